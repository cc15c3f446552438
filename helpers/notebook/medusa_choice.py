"""Which tree, and which guessers in it: counted on validation answers, priced by this machine (notebook 08).

What is chosen here is what is measured and reported, and what is promised here is what is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import matplotlib.pyplot as plt

from helpers.decoding.proposer import Proposer
from helpers.notebook import plots
from helpers.notebook.medusa_bench import BFLOAT16, MedusaBench
from helpers.profiling.breakdown import StepBreakdown, step_breakdown
from helpers.profiling.step_time import steps_in_turns
from helpers.speculation.guessers import NAMES
from helpers.speculation.medusa import Medusa, Tree
from helpers.speculation.node_chances import Position
from helpers.speculation.plan import Costs, Plan, make_plan
from helpers.speculation.replay import KnownAnswer, ReplayedStep, chosen, mean_emitted, record
from helpers.speculation.tree_choice import Ranks, Shares, accepted_steps, best_tree, path_shares, ranks_of
from helpers.training.self_distillation import greedy_answers

NEVER = 10**9  # a rank beyond every tree
SETS = (  # which guessers share a tree: each is tried on validation, as far as there are such
    ("heads",),
    ("drafter",),
    ("lookup",),
    ("suffix", "recycling"),
    ("heads", "lookup"),
    ("heads", "suffix"),
    ("heads", "suffix", "recycling"),
    ("drafter", "lookup"),
    ("drafter", "suffix"),
    ("heads", "drafter", "suffix"),
    NAMES,
)


def known_answers(bench: MedusaBench, prompts: Sequence[list[int]], dtype: str = BFLOAT16) -> list[KnownAnswer]:
    """The model's greedy answers to prompts (token ids), many at a time, with the states that made them."""
    answers = greedy_answers(bench.fast[dtype], prompts, bench.sizes.longest)
    return [KnownAnswer(prompt, *answer) for prompt, answer in zip(prompts, answers)]


def halves(answers: Sequence) -> tuple[Sequence, Sequence]:
    """What is counted on, and what is tried on: a choice is not judged by what it was made from."""
    middle = (len(answers) + 1) // 2
    return answers[:middle], answers[middle:] or answers[:middle]


@dataclass(frozen=True)
class Prices:
    """What decoding costs here: `costs` by the tokens of a step, and the parts of a plain step; `prompts` are a few on
    which guessing is timed."""

    bench: MedusaBench
    dtype: str
    costs: Costs
    plain: StepBreakdown
    prompts: Sequence[list[int]]

    def asking(self, proposer: Proposer) -> float:
        """Seconds a step that this proposer costs: its guesses, and what the loop does more for them."""
        options = dict(max_new_tokens=self.bench.sizes.longest)
        parts = step_breakdown(self.bench.fast[self.dtype], proposer, self.prompts, **options)
        return parts.guessing + max(0.0, parts.rest - self.plain.rest)


def measure_prices(bench: MedusaBench, prompts: Sequence[list[int]], dtype: str = BFLOAT16) -> Prices:
    """Time steps of every size, a prefill, and what the loop adds; prints the verify cost."""
    model, sizes = {"": bench.fast[dtype]}, bench.sizes
    times = steps_in_turns(model, sizes.num_tokens, rounds=sizes.rounds)[""]
    middle = sorted(map(len, prompts))[len(prompts) // 2]
    prefill = steps_in_turns(model, (middle,), context=0, rounds=min(9, sizes.rounds))[""][middle]
    few = prompts[: sizes.tuning]
    plain = step_breakdown(bench.fast[dtype], None, few, max_new_tokens=sizes.longest)
    step = {n: median(seconds) + plain.rest for n, seconds in times.items()}
    shown = [n for n in (1, 4, 8, 16, 32, 65) if n in step]
    print(f"{dtype}, a step by the tokens that it reads:", ", ".join(f"{n}: {1e3 * step[n]:.1f} ms" for n in shown))
    print(f"A prefill of {middle} tokens takes {1e3 * median(prefill):.0f} ms.", end=" ")
    print(f"{shown[-1]} tokens cost {step[shown[-1]] / step[1]:.1f} times one.")
    return Prices(bench, dtype, Costs(median(prefill), step), plain, few)


def all_ranks(bench: MedusaBench, answers: Sequence[KnownAnswer], dtype: str = BFLOAT16) -> list[Ranks]:
    """For each answer, at each position, the rank that each head gave to what came; NEVER to a token that it never
    guesses."""
    heads = bench.heads[dtype]
    ranks = [ranks_of(heads, answer.hidden, answer.tokens) for answer in answers]
    return [[[r if r < heads.num_guessable else NEVER for r in position] for position in answer] for answer in ranks]


@dataclass(frozen=True)
class FixedTree:
    """The tree of heads alone that validation chose, and what it promises: times as fast, tokens a step. `by_size` has
    the promise of every size, `chains` that of every chain."""

    tree: Tree
    speedup: float
    tokens_per_step: float
    by_size: dict[int, float]
    chains: dict[int, float]

    @property
    def beats_the_chain(self) -> bool:
        """Whether the tree promises 1 % more than the best chain: less can't be told apart."""
        return self.speedup > 1.01 * max(self.chains.values())


def choose_fixed_tree(prices: Prices, ranks: Sequence[Ranks], most: int = 64) -> FixedTree:
    """The size of tree with which the second half of the answers takes the least time; its shape is counted on the
    first half."""
    counted, tried = halves(ranks)
    shares, num_heads = path_shares(counted), prices.bench.heads[prices.dtype].count
    asking = prices.asking(Medusa(prices.bench.heads[prices.dtype], best_tree(shares, 8) or ((0,),)))
    trees = {size: best_tree(shares, size) for size in range(1, most + 1)}
    chains = {length: tuple((0,) * depth for depth in range(1, length + 1)) for length in range(1, num_heads + 1)}

    def promise(tree: Tree) -> float:
        return prices.costs.speedup(as_steps(tried, tree), asking)

    by_size = {size: promise(tree) for size, tree in trees.items() if len(tree) == size}
    by_length = {length: promise(chain) for length, chain in chains.items()}
    best = trees[max(by_size, key=by_size.get)] if by_size else chains[1]
    return FixedTree(best, promise(best), mean_emitted(as_steps(tried, best)), by_size, by_length)


def as_steps(ranks: Sequence[Ranks], tree: Tree) -> list[list[ReplayedStep]]:
    """The steps of answers decoded with a tree of ranks."""
    return [[ReplayedStep(len(tree), emitted) for emitted in accepted_steps(answer, tree)] for answer in ranks]


def show_fixed_tree(results, found: FixedTree) -> None:
    """The promise by the size of the tree; says what was chosen and whether a chain would do; saves the prediction."""
    _, ax = plt.subplots(figsize=(7, 3.2))
    ax.plot(list(found.by_size), list(found.by_size.values()), marker="", label="tree")
    ax.plot(list(found.chains), list(found.chains.values()), linestyle="", marker="s", label="chain")
    ax.plot([len(found.tree)], [found.speedup], linestyle="", marker="o", label="chosen")
    ax.axhline(1, color="#555555", linestyle=":", marker="")
    title = "Which tree of the heads pays on this machine (predicted)"
    ax.set(title=title, xlabel="nodes of the tree (count)", ylabel="speed of a request (times)")
    ax.legend()
    results.prediction("medusa.predicted_speedup", found.speedup, "x")
    print(f"Chosen: {len(found.tree)} nodes, {found.tokens_per_step:.2f} tokens a step,", end=" ")
    print(f"{found.speedup:.2f} times as fast (predicted, saved before any request is timed).")
    length = max(found.chains, key=found.chains.get)
    if found.beats_the_chain:
        print(f"The best chain, of {length}, promises {found.chains[length]:.2f}: rivals are worth their place.")
    else:
        print(f"A chain of {length} promises {found.chains[length]:.2f}:", end=" ")
        print("the tree brings nothing here that a chain doesn't.")
    if found.by_size:
        largest = max(found.by_size)
        print(f"The largest tree, of {largest} nodes, promises {found.by_size[largest]:.2f}.")
    if found.speedup < 1:
        print("None of them pays here: plain decoding is faster.")


def draw_paths(shares: Shares, tree: Tree, most: int = 16) -> None:
    """The chosen tree: each node's rank, and how often all up to it is right; of a large one the likeliest nodes."""
    likeliest = sorted(tree, key=lambda path: (-shares.get(path, 0.0), len(path)))[:most]
    nodes = sorted((path for path in likeliest if path[:-1] in ((), *likeliest)), key=lambda path: (len(path), path))
    place = {(): (0.0, 0)}
    for depth in range(1, 1 + max(map(len, nodes), default=0)):
        level = [path for path in nodes if len(path) == depth]
        place |= {path: (i - (len(level) - 1) / 2, depth) for i, path in enumerate(level)}
    _, ax = plt.subplots(figsize=(max(4.0, 0.9 * max(x for x, _ in place.values()) * 2 + 3), 3.4))
    for path in nodes:
        (x0, y0), (x1, y1) = place[path[:-1]], place[path]
        width = 0.5 + 7 * shares.get(path, 0.0)
        ax.plot([x0, x1], [y0, y1], color=plots.COLORS[0], linestyle="-", marker="", linewidth=width)
        box = dict(facecolor="white", edgecolor=plots.COLORS[0])
        ax.text(x1, y1, f"{path[-1]}\n{shares.get(path, 0.0):.0%}", bbox=box, ha="center", va="center", fontsize=9)
    ax.text(0, 0, "certain", bbox=dict(facecolor="#dddddd"), ha="center", va="center", fontsize=9)
    ax.set(title="The chosen tree: each guess's rank, and how often", ylabel="depth (tokens ahead)", xticks=[])
    ax.set_ylim(max(map(len, nodes), default=1) + 0.5, -0.5)
    ax.margins(x=0.12)
    ax.grid(visible=False)


def record_guessers(bench: MedusaBench, answers: Sequence[KnownAnswer], dtype: str = BFLOAT16) -> list[list[Position]]:
    """What all guessers propose at each position of the answers, and what really follows."""
    lm_head = bench.fast[dtype].get_output_embeddings()
    return record(bench.guessers(bench.guesser_names, dtype), answers, logits_of=lambda hidden: lm_head(hidden).float())


def choose_plan(prices: Prices, recorded: Sequence[Sequence[Position]], sets=SETS) -> dict[tuple[str, ...], Plan]:
    """For each set of guessers its tree and what it promises on the second half of the answers, guessing timed inside
    the loop."""
    plans, there = {}, prices.bench.guesser_names
    for names in sets:
        if not set(names) <= set(there):
            continue
        counted, tried = halves(chosen(recorded, [there.index(name) for name in names]))
        first = make_plan(names, counted, tried, prices.costs, prices.plain.forward / 10)
        asking = prices.asking(prices.bench.planned(first, prices.dtype))
        plans[names] = make_plan(names, counted, tried, prices.costs, asking)
    return plans


def show_plans(results, plans: dict[tuple[str, ...], Plan]) -> Plan:
    """A line for each set of guessers, the best first; saves the prediction of the best, and returns it."""
    print(f"{'guessers in one tree':38} {'guesses':>8} {'tokens':>7}   (a step) {'speed':>6} (predicted)")
    ranking = sorted(plans.values(), key=lambda plan: -plan.speedup)
    for plan in ranking:
        name = " + ".join(plan.guessers)
        print(f"{name:38} {plan.guesses_per_step:8.1f} {plan.tokens_per_step:7.2f} {plan.speedup:15.2f}")
    best, alone = ranking[0], plans.get(("heads",))
    results.prediction("medusa.speedup.with_lookup", best.speedup, "x")
    if "heads" not in best.guessers:
        others = "the recurrent drafter" if "drafter" in best.guessers else "guessers that nobody trained"
        print(f"The best tree has no heads in it: here they lose to {others}.")
    elif alone is not None and best is not alone:
        gain = best.speedup / alone.speedup - 1
        print(f"Beside other guessers heads do better than alone: {gain:+.0%}, as predicted on validation.")
    return best
