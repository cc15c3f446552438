"""Rings against torch.distributed, among all ranks and among some (notebook 06b)."""

from __future__ import annotations

from helpers.notebook.parallel_sizes import ParallelSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.parallel import runs
from helpers.parallel.ranks import on_ranks


def compare_rings(results: Results, sizes: ParallelSizes, seed: int = 0) -> None:
    """Each collective's numbers on each number of ranks, and what a rank sends as a share of its data; writes them, and
    the invariant, every collective at every rank counted."""
    same = of = 0
    print(f"{'':16}" + "".join(f"{ranks} ranks sent".rjust(16) for ranks in sizes.ranks))
    by_ranks = {}
    for ranks in sizes.ranks:
        found = on_ranks(runs.compare_rings, ranks, dict(cases=sizes.cases, seed=seed), show=False)
        same, of = same + sum(one["same"] for one in found), of + sum(one["of"] for one in found)
        by_ranks[ranks] = found[0]["shares"]
        for name, share in found[0]["shares"].items():
            results.metric(f"collectives.sent_share.{name}.ranks_{ranks}", share, "x", n=sizes.cases)
    for name in next(iter(by_ranks.values())):
        print(f"{name.replace('_', '-'):16}" + "".join(f"{shares[name]:16.2f}" for shares in by_ranks.values()))
    results.invariant("parallel.rings_equal_torch", same == of, same, of)
    print(f"(times the data of a rank.) {same} of {of} results are PyTorch's, number for number.")


def compare_groups(results: Results, sizes: ParallelSizes, ranks: int = 4) -> None:
    """An all-to-all among all ranks, and among half of them with the same data a rank; writes what one sends."""
    members = list(range(0, ranks, 2))
    sent = {}
    for name, chosen in (("all", None), ("half", members)):
        found = on_ranks(runs.exchange, ranks, dict(members=chosen, numbers=1200, repeats=sizes.repeats), show=False)
        sent[name] = found[0]
        results.metric(f"collectives.all_to_all_bytes.{name}", found[0]["bytes"], "bytes", n=1)
        results.metric(f"collectives.all_to_all_ms.{name}", 1e3 * found[0]["seconds"], "ms", n=sizes.repeats)
        count = ranks if chosen is None else len(chosen)
        print(f"among {count} of {ranks}: a rank sends {found[0]['bytes']:,} bytes in {count - 1} messages,", end=" ")
        print(f"{1e3 * found[0]['seconds']:.2f} ms")
    share = sent["half"]["bytes"] / sent["all"]["bytes"]
    say(
        f"Half of the ranks send {share:.0%} of the bytes of all, and fewer messages: more stays where it is."
        if share < 1
        else "Fewer ranks send no less here."
    )
