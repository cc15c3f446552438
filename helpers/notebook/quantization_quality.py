"""What fewer bits cost: perplexity, logits and answers of each method, side by side (notebook 02)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.quality import Logits, Paired, logits_of, paired, perplexity, worst_logit_error
from helpers.notebook.answers import Judged
from helpers.notebook.quantization_models import Pair, Texts, copy_of
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.text_to_sql.evaluate import answer_in_batches
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.quantization.integer import to_dense
from helpers.weights.quantization.llm_int8 import Int8Linear, widen_codes


@dataclass(frozen=True)
class Perplexity:
    """Of `n` answers together, with a 95 % interval by a bootstrap over them; `losses` are (nats, tokens) of each."""

    value: float
    low: float
    high: float
    losses: tuple[tuple[float, int], ...]

    @property
    def n(self) -> int:
        return len(self.losses)

    def note(self, results: Results, key: str) -> None:
        """Write it."""
        results.metric(key, self.value, "tokens", low=self.low, high=self.high, n=self.n)


def perplexity_of(model: nn.Module, pairs: Sequence[Pair], seed: int = 0) -> Perplexity:
    """The perplexity of reference answers, and how sure it is."""
    logits = logits_of(model)
    losses = [(math.log(perplexity(logits, [pair])) * len(pair[1]), len(pair[1])) for pair in pairs]
    nats, tokens = np.asarray(losses).T
    picks = np.random.default_rng(seed).integers(0, len(pairs), (2000, len(pairs)))
    low, high = np.percentile(np.exp(nats[picks].sum(1) / tokens[picks].sum(1)), (2.5, 97.5))
    value = float(np.exp(nats.sum() / tokens.sum()))
    return Perplexity(value, min(float(low), value), max(float(high), value), tuple(losses))


def ratio_of(one: Perplexity, other: Perplexity, seed: int = 0) -> tuple[float, float, float]:
    """How many times the other's perplexity one has, text by text, with its 95 % interval: (ratio, low, high)."""
    a, b = (np.asarray(each.losses) for each in (one, other))
    nats, tokens = a[:, 0] - b[:, 0], a[:, 1]
    picks = np.random.default_rng(seed).integers(0, len(nats), (2000, len(nats)))
    low, high = np.percentile(np.exp(nats[picks].sum(1) / tokens[picks].sum(1)), (2.5, 97.5))
    ratio = float(np.exp(nats.sum() / tokens.sum()))
    return ratio, min(float(low), ratio), max(float(high), ratio)


@dataclass(frozen=True)
class Quality:
    """A method's name in words; bytes of its linear layers' weights, and bits of one; perplexity of reference answers;
    the largest change of a logit, and in how many texts; its answers."""

    words: str
    size: int
    bits: float
    perplexity: Perplexity
    worst: float
    num_texts: int
    judged: Judged

    def change(self, exact: Quality) -> Paired:
        """Answers fixed and broken against the unquantized model's."""
        return paired(exact.judged.right, self.judged.right)


def widened(model: nn.Module) -> nn.Module:
    """A copy whose codes are widened once; it computes the same numbers."""
    return to_dense(widen_codes(copy_of(model)))


def as_it_answers(model: nn.Module) -> nn.Module:
    """The fastest way to the same numbers: codes widened once, the step fused. The model is left alone."""
    return fastest_step(widened(model), turns=0)


def answers_of(
    wide: nn.Module, tokenizer, examples: Sequence[Example], longest: int, step: nn.Module | None = None
) -> Judged:
    """The greedy answers of a widened model, by its fused `step` where there is one already. Layers that round what
    they read turn the smallest difference into a whole step, so the course's decoder, which wants batches to change
    nothing, refuses them: transformers' own loop answers then."""
    if any(isinstance(module, Int8Linear) for module in wide.modules()):
        prompts = [prompt_for(tokenizer, example) for example in examples]
        return Judged.of(examples, answer_in_batches(wide, tokenizer, prompts, max_new_tokens=longest))
    return Judged.by(step or fastest_step(wide, turns=0), tokenizer, examples, longest)


def measure_quality(
    words: str,
    model: nn.Module,
    size: tuple[int, float],
    exact: Logits,
    tokenizer,
    texts: Texts,
    sizes: QuantizationSizes,
) -> Quality:
    """Everything that notebook 02 wants to know of a method's answers; `size` is its bytes and bits, `exact` gives the
    unquantized model's logits."""
    wide = widened(model)
    fast = fastest_step(wide, turns=0)
    sequences = [[*prompt, *answer] for prompt, answer in texts.pairs[: sizes.logits]]
    worst = worst_logit_error(logits_of(fast), exact, sequences)
    judged = answers_of(wide, tokenizer, texts.test[: sizes.answers], sizes.longest, fast)
    return Quality(words, *size, perplexity_of(fast, texts.pairs), worst, len(sequences), judged)


def as_multiple(ratio: float) -> str:
    """ "0.873 times", or "1/250 of", where three places would say nothing."""
    return f"{ratio:.3f} times" if ratio >= 0.01 else f"1/{1 / ratio:,.0f} of"


HEADER = f"{'':34}{'bits':>6}{'MB':>7}{'perplexity':>12}{'logits off':>12}{'right':>7}{'fixed':>7}{'broken':>7}"


def show_line(one: Quality, exact: Quality) -> None:
    """A method as a line of the table."""
    change = one.change(exact)
    print(f"{one.words:34}{one.bits:6.2f}{one.size / 1e6:7.1f}{one.perplexity.value:12.4f}{one.worst:12.2f}", end="")
    print(f"{sum(one.judged.right):7}{change.fixed:7}{change.broken:7}", flush=True)


def note_quality(results: Results, key: str, one: Quality, exact: Quality) -> None:
    """Write a method's metrics."""
    change, (low, high) = one.change(exact), one.judged.interval
    share, n = one.judged.share, len(one.judged.right)
    one.perplexity.note(results, f"quantization.perplexity.{key}")
    results.metric(f"quantization.worst_logit_error.{key}", one.worst, "logits", n=one.num_texts)
    interval = dict(low=min(low, share), high=max(high, share), n=n)  # rounding, where none or all are right
    results.metric(f"quantization.execution_accuracy.{key}", share, "share", **interval)
    results.metric(f"quantization.linear_bytes_ratio.{key}", one.bits / 16, "ratio")
    if one is not exact:
        results.metric(f"quantization.answers_fixed.{key}", change.fixed, "answers", n=change.n)
        results.metric(f"quantization.answers_broken.{key}", change.broken, "answers", n=change.n)


def read_quality(quality: Mapping[str, Quality]) -> None:
    """What the table says: of 8 bits, of 4 bits, and whether the methods can be told apart."""
    exact = quality["fp32"]
    moved = {key: one.change(exact) for key, one in quality.items() if one is not exact}
    eight = [key for key in ("int8", "llm_int8", "smoothquant") if key in moved]
    four = [key for key in ("rtn", "nf4", "awq", "gptq") if key in moved]
    sentences = []
    for bits, keys in ((8, eight), (4, four)):
        if keys:
            worst = max(keys, key=lambda key: moved[key].broken)
            sentences.append(
                f"In {bits} bits the most answers are broken by {quality[worst].words}: {moved[worst].broken} of "
                f"{moved[worst].n}, and {moved[worst].fixed} are fixed."
            )
    clever = [key for key in ("awq", "gptq", "nf4") if key in moved]
    if "rtn" in moved and clever:
        apart = [
            quality[key].words for key in clever if paired(quality["rtn"].judged.right, quality[key].judged.right).real
        ]
        if apart:
            sentences.append(f"By its answers {' and '.join(apart)} can be told from plain rounding to 4 bits.")
        else:
            sentences.append("In 4 bits no method's answers can be told from those of plain rounding, in these groups.")
    if "beside" in moved:
        sentences.append(
            f"The base in its own 4 bits, with the adapter beside it, breaks {moved['beside'].broken} and fixes "
            f"{moved['beside'].fixed}: it is the merging that takes the weights off the grid that they came from."
        )
    say(*sentences)
