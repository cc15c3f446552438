"""What pruning costs in answers and perplexity (notebook 04): each pruned model takes the same exam."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import matplotlib.pyplot as plt
from torch import nn

from helpers.decoding.support import UnsupportedModelError
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.quality import Paired, logits_of, paired, perplexity
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.pruning_sizes import PruningSizes
from helpers.notebook.results import Results
from helpers.text_to_sql.evaluate import answer_in_batches
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.pruning.sparsity import zeros_by_row
from helpers.weights.quantization.calibration import answer_pairs, observed_linears

TWO_OF_FOUR = "2:4"
Amount = float | str  # a sparsity, or TWO_OF_FOUR


@dataclass(frozen=True)
class Outcome:
    """Answers, whether each is right, and the perplexity of `num_pairs` reference answers."""

    judged: Judged
    perplexity: float
    num_pairs: int


@dataclass(frozen=True)
class Exam:
    """The same questions and reference answers for every model."""

    tokenizer: object
    examples: Sequence[Example]
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]]
    longest: int

    @classmethod
    def of(cls, tokenizer, examples: Sequence[Example], sizes: PruningSizes) -> Exam:
        """The first of the examples, as many as the profile has time for."""
        pairs = answer_pairs(tokenizer, examples[: sizes.pairs])
        return cls(tokenizer, examples[: sizes.answers], pairs, sizes.longest)

    def take(self, model: nn.Module) -> Outcome:
        """What this model answers, many questions at a time: by its fused step, or by transformers' own loop, where so
        little is left of the model that a trial of the step in half precision is lost in rounding."""
        step = fastest_step(model, 0)
        try:
            judged = Judged.by(step, self.tokenizer, self.examples, self.longest)
        except UnsupportedModelError:
            prompts = [prompt_for(self.tokenizer, example) for example in self.examples]
            texts = answer_in_batches(model, self.tokenizer, prompts, max_new_tokens=self.longest)
            judged = Judged.of(self.examples, texts)
        return Outcome(judged, perplexity(logits_of(step), self.pairs), len(self.pairs))


def key_of(method: str, amount: Amount) -> str:
    """How a method and an amount stand in a metric's key: "wanda_50", "wanda_2_4"."""
    return f"{method}_{'2_4' if amount == TWO_OF_FOUR else round(100 * amount)}"


def words_of(amount: Amount) -> str:
    """ "50 %", or "2:4"."""
    return amount if amount == TWO_OF_FOUR else f"{amount:.0%}"


def prune_and_time(results: Results, prune: Callable[[], nn.Module], num_prompts: int) -> nn.Module:
    """The model that `prune()` gives; writes the seconds that it took."""
    began = time.perf_counter()
    pruned = prune()
    seconds = time.perf_counter() - began
    results.metric("pruning.seconds", seconds, "s", n=num_prompts)
    print(f"{num_prompts} calibration prompts, every layer pruned, in {seconds:.1f} s")
    return pruned


def check_rows(results: Results, model: nn.Module, key: str = "wanda_50", sparsity: float = 0.5) -> None:
    """Each row of each pruned layer has lost exactly its share, as near as whole weights come; writes the sparsity and
    the invariant."""
    rows, exact, zeros, weights = 0, 0, 0, 0
    for linear in observed_linears(model).values():
        shares, n = zeros_by_row(linear.weight), linear.in_features
        rows += len(shares)
        exact += int(((shares * n).round() == round(sparsity * n)).sum())
        zeros, weights = zeros + int((shares * n).round().sum()), weights + linear.weight.numel()
    results.metric(f"pruning.sparsity.{key}", zeros / weights, "share", n=weights)
    results.invariant("pruning.rows_lose_their_share", exact == rows, exact, rows)
    print(f"{zeros / weights:.2%} of {weights:,} weights are 0; exactly {sparsity:.0%} in {exact:,} of {rows:,} rows")


def show_dense(results: Results, dense: Outcome) -> None:
    """The model as it was, the one that all others are compared with; writes its metrics."""
    _write(results, "dense", dense)
    low, high = dense.judged.interval
    right, n = sum(dense.judged.right), len(dense.judged.right)
    print(f"not pruned: {right} of {n} right ({low:.0%} to {high:.0%}), perplexity {dense.perplexity:.3f}")


def show_outcomes(results: Results, dense: Outcome, outcomes: Mapping[tuple[str, Amount], Outcome]) -> None:
    """A line for each method and amount: right answers, what became of the dense model's, perplexity; writes them."""
    print(f"{'':16} {'right when run':>24} {'fixed':>6} {'broken':>7} {'perplexity':>11}")
    for (method, amount), one in outcomes.items():
        key, change = key_of(method, amount), paired(dense.judged.right, one.judged.right)
        note_change(results, key, one, change)
        low, high = one.judged.interval
        right = f"{sum(one.judged.right):3} of {change.n:3}, {low:.0%} to {high:.0%}"
        changes = f"{change.fixed:6} {change.broken:7}"
        print(f"{method:10} {words_of(amount):>5} {right:>24} {changes} {one.perplexity:11.3f}")


def note_change(results: Results, key: str, one: Outcome, change: Paired) -> None:
    """Write a pruned model's metrics, with what became of the dense model's answers."""
    _write(results, key, one)
    results.metric(f"pruning.answers_fixed.{key}", change.fixed, "answers", n=change.n)
    results.metric(f"pruning.answers_broken.{key}", change.broken, "answers", n=change.n)


def _write(results: Results, key: str, one: Outcome) -> None:
    low, high = one.judged.interval
    ends = {"low": min(low, one.judged.share), "high": max(high, one.judged.share)}  # rounding, where none or all
    results.metric(f"pruning.execution_accuracy.{key}", one.judged.share, "share", **ends, n=len(one.judged.right))
    results.metric(f"pruning.perplexity.{key}", one.perplexity, "tokens", n=one.num_pairs)


def read_outcomes(dense: Outcome, outcomes: Mapping[tuple[str, Amount], Outcome], guess: float) -> None:
    """Which method is ahead at each amount, question by question; what is the most that costs nothing; the guess."""
    amounts = list(dict.fromkeys(amount for _, amount in outcomes))
    for amount in amounts:
        one, other = (outcomes.get((method, amount)) for method in ("magnitude", "wanda"))
        if one is None or other is None:
            continue
        change = paired(one.judged.right, other.judged.right)
        verdict = f"{'Wanda' if change.fixed > change.broken else 'magnitude'} is better"
        print(
            f"{words_of(amount)}: from magnitude to Wanda {change}:",
            verdict if change.real else "no difference shown",
        )
    for method in ("magnitude", "wanda"):
        tried = sorted(a for m, a in outcomes if m == method and a != TWO_OF_FOUR)
        if not tried:
            continue
        harmless = list(takewhile(lambda a, m=method: _is_harmless(dense, outcomes[m, a]), tried))
        most = (
            f"up to {max(harmless):.0%} can't be told from"
            if harmless
            else "even the least sparsity tried is worse than"
        )
        print(f"{method}: {most} the dense model, by these {len(dense.judged.right)} answers")
    if half := outcomes.get(("wanda", 0.5)):
        print(f"Wanda at 50%: {half.judged.share:.0%} right; you guessed {guess:.0%}.")


def _is_harmless(dense: Outcome, one: Outcome) -> bool:
    change = paired(dense.judged.right, one.judged.right)
    return change.fixed >= change.broken or not change.real


def draw_outcomes(dense: Outcome, outcomes: Mapping[tuple[str, Amount], Outcome], dtype: str) -> None:
    """Right answers with their intervals, and perplexity, over the sparsity, a line for each method."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for place, method in enumerate(("magnitude", "wanda")):
        points = {a: one for (m, a), one in outcomes.items() if m == method and a != TWO_OF_FOUR}
        points = {0.0: dense} | dict(sorted(points.items()))
        x = [100 * amount for amount in points]
        look = {"color": plots.COLORS[place], "marker": plots.MARKERS[place], "linestyle": ("-", "--")[place]}
        shares = [100 * one.judged.share for one in points.values()]
        ends = [[100 * end for end in one.judged.interval] for one in points.values()]
        below = [max(0, share - low) for share, (low, _) in zip(shares, ends)]
        above = [max(0, high - share) for share, (_, high) in zip(shares, ends)]
        axes[0].errorbar(x, shares, (below, above), capsize=3, label=method, **look)
        axes[1].plot(x, [one.perplexity for one in points.values()], label=method, **look)
    n = len(dense.judged.right)
    axes[0].set(title=f"Right answers (n = {n}, {dtype})", xlabel="sparsity (%)", ylabel="right answers (%)")
    axes[0].set_ylim(bottom=0)
    axes[1].set(title="Perplexity of reference answers", xlabel="sparsity (%)", ylabel="perplexity (tokens)")
    axes[1].set_yscale("log")
    for ax in axes:
        ax.legend()
