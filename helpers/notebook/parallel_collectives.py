"""Rings against torch.distributed, among all ranks and among some (notebook 06b)."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.notebook.parallel_sizes import ParallelSizes
from helpers.notebook.results import Results
from helpers.parallel import runs
from helpers.parallel.ranks import on_ranks
from helpers.parallel.rings import chunk_sent


def show_ring(values: Sequence[Sequence[int]]) -> None:
    """A reduce-scatter of small numbers, step by step: the partial sum that each rank passes on."""
    n = len(values)
    totals = [values[place][chunk_sent(place, 0, n)] for place in range(n)]
    print(f"{'':12}" + "".join(f"{'rank ' + str(place):>22}" for place in range(n)))
    for step in range(n):
        names = [f"chunk {chunk_sent(place, step, n)}: {totals[place]}" for place in range(n)]
        words = f"step {step} sends" if step < n - 1 else "at the end"
        print(f"{words:12}" + "".join(f"{name:>22}" for name in names))
        if step < n - 1:
            totals = [totals[place - 1] + values[place][chunk_sent(place, step + 1, n)] for place in range(n)]


def compare_rings(results: Results, sizes: ParallelSizes, guess: float, seed: int = 0) -> None:
    """Each collective's numbers on each number of ranks, and what a rank sends as a share of its data; writes them, and
    the invariant, every collective at every rank counted."""
    same = of = 0
    by_ranks = {}
    for ranks in sizes.ranks:
        found = on_ranks(runs.compare_rings, ranks, dict(cases=sizes.cases, seed=seed), show=False)
        same, of = same + sum(one["same"] for one in found), of + sum(one["of"] for one in found)
        by_ranks[ranks] = found[0]["shares"]
        for name, share in found[0]["shares"].items():
            results.metric(f"collectives.sent_share.{name}.ranks_{ranks}", share, "share", n=sizes.cases)
    results.invariant("parallel.rings_equal_torch", same == of, same, of)
    print(f"{same} of {of} results are PyTorch's, number for number.")
    print("The data are what is summed, exchanged, or (for all-gather) what all ranks have together.")
    print(f"{'a rank sends, times the data':32}" + "".join(f"{ranks} ranks".rjust(10) for ranks in sizes.ranks))
    for name in next(iter(by_ranks.values())):
        print(f"{name.replace('_', '-'):32}" + "".join(f"{shares[name]:10.2f}" for shares in by_ranks.values()))
    most = max(by_ranks)
    print(f"An all-reduce on {most} ranks: {by_ranks[most]['all_reduce']:.2f}; you guessed {guess:g} for four.")


def compare_groups(results: Results, sizes: ParallelSizes) -> None:
    """An all-to-all among all ranks, and in two groups of half of them at once, with the same data a rank; writes what
    one sends."""
    ranks = sizes.in_groups
    halves = [list(range(0, ranks, 2)), list(range(1, ranks, 2))]
    sent = {}
    for name, groups in (("all", [list(range(ranks))]), ("half", halves)):
        asked = dict(groups=groups, numbers=240_000, repeats=sizes.repeats)
        found = on_ranks(runs.exchange, ranks, asked, show=False)
        sent[name] = found[0]
        slowest = max(one["seconds"] for one in found)
        results.metric(f"collectives.all_to_all_bytes.{name}", found[0]["bytes"], "bytes", n=1)
        results.metric(f"collectives.all_to_all_ms.{name}", 1e3 * slowest, "ms", n=sizes.repeats)
        print(f"among {len(groups[0])} of {ranks}: a rank sends {found[0]['bytes'] / 1e3:.0f} kB", end=" ")
        print(f"in {len(groups[0]) - 1} messages, {1e3 * slowest:.1f} ms")
    share = sent["half"]["bytes"] / sent["all"]["bytes"]
    print(f"In groups a rank sends {share:.0%} of the bytes, in fewer messages: more stays where it is.")
