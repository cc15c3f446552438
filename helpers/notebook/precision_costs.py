"""What half precision costs in logits and answers, and what a user feels of it (notebook 01)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from helpers import models
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.quality import logits_of, paired, perplexity, worst_logit_error
from helpers.measuring.timing import interleave, speedup
from helpers.models.sharing import sharing_copy
from helpers.notebook.answers import Judged
from helpers.notebook.precision_speed import SHORT, HalfSizes
from helpers.notebook.results import Results
from helpers.profiling.against_generate import our_greedy
from helpers.text_to_sql.evaluate import answer_in_batches, right_answers
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for
from helpers.weights.precision.emulation import emulated

Pairs = Sequence[tuple[Sequence[int], Sequence[int]]]  # a prompt's token ids, its reference answer's


@contextmanager
def as_if(model: nn.Module, dtype: str, slow: Collection[str]) -> Iterator[None]:
    """Around a float32 model that stands for a slow format: emulated; around others nothing."""
    if dtype in slow:
        with emulated(model, models.dtype_of(dtype)):
            yield
    else:
        yield


def with_rounded_weights(model: nn.Module, dtype: str) -> nn.Module:
    """A float32 copy whose weights have been through the dtype."""
    copy = sharing_copy(model)
    for module in copy.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            through = parameter.detach().to(models.dtype_of(dtype)).to(parameter.dtype)
            setattr(module, name, nn.Parameter(through, requires_grad=False))
    copy.tie_weights()
    return copy


def show_logits(
    results: Results, exact: nn.Module, by_dtype: Mapping[str, nn.Module], slow: Collection[str], pairs: Pairs
) -> None:
    """Largest error of a logit and perplexity of the reference answers: weights rounded, then all of it; writes both.
    A model that stands for a slow format is another object than `exact`: it is rounded for a while."""
    sequences = [[*prompt, *answer] for prompt, answer in pairs]
    reference = logits_of(exact)
    top = torch.cat([reference(s).topk(2).values for s in sequences])
    print(f"The best token leads the second by {(top[:, 0] - top[:, 1]).median():.1f} logits (median).")
    print(f"{'':44} {'largest error':>14} {'perplexity':>11}")

    def line(words: str, model: nn.Module, dtype: str = "float32", key: str = "") -> None:
        with as_if(model, dtype, slow):
            error = worst_logit_error(logits_of(model), reference, sequences)
            hesitates = perplexity(logits_of(model), pairs)
        kind = "simulated" if dtype in slow else "measured"
        print(f"{words:44} {error:14.4f} {hesitates:11.5f}" + ("   emulated" if dtype in slow else ""))
        if key:
            results.metric(f"precision.worst_logit_error.{key}", error, "logits", kind=kind, n=len(sequences))
            results.metric(f"precision.perplexity.{key}", hesitates, "tokens", kind=kind, n=len(sequences))

    line("float32", by_dtype["float32"], key="fp32")
    for dtype in ("bfloat16", "float16"):
        line(f"{dtype} weights, float32 arithmetic", with_rounded_weights(exact, dtype))
        line(f"{dtype} throughout", by_dtype[dtype], dtype, SHORT[dtype])


def show_answers(
    results: Results,
    by_dtype: Mapping[str, nn.Module],
    slow: Collection[str],
    tokenizer,
    examples: Sequence[Example],
    half: HalfSizes,
) -> None:
    """How many answers each format puts right, and how many wrong, question by question; writes both."""
    judged, moved = {}, 0
    for dtype, model in by_dtype.items():
        asked = examples[: half.emulated if dtype in slow else half.answers]
        if dtype in slow:  # the course's decoder wants the numbers of a float32 model to be float32's
            prompts = [prompt_for(tokenizer, example) for example in asked]
            with as_if(model, dtype, slow):
                texts = answer_in_batches(model, tokenizer, prompts, max_new_tokens=half.longest)
            judged[dtype] = Judged.of(asked, texts)
        else:
            judged[dtype] = Judged.by(fastest_step(model, half.turns), tokenizer, asked, half.longest)
        one, (low, high) = judged[dtype], judged[dtype].interval
        print(f"{dtype:9} {sum(one.right)} of {len(asked)} right ({low:.0%} to {high:.0%})", end="")
        if dtype == "float32":
            print()
            continue
        change = paired(judged["float32"].right[: len(asked)], one.right)
        print(f"; against float32 {change}" + (" (emulated)" if dtype in slow else ""))
        about = {"kind": "simulated" if dtype in slow else "measured", "n": change.n}
        for what, count in (("fixed", change.fixed), ("broken", change.broken)):
            key = f"precision.answers_{what}.{SHORT[dtype]}"
            results.metric(key, count, "answers", **about)
            moved += count
    if moved:
        print("Rounding moved answers that were close: look at both numbers, not at their difference.")
    else:
        print("Not one answer went from right to wrong, or back.")


def show_whole_answers(
    results: Results,
    by_dtype: Mapping[str, nn.Module],
    tokenizer,
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    half: HalfSizes,
) -> None:
    """Whole answers, prefill and all, the formats taking turns, compared where they are equal; writes the ratio."""
    arms = {dtype: our_greedy(fastest_step(model, half.turns), half.longest) for dtype, model in by_dtype.items()}
    timed = interleave(arms, prompts, warmup=1)
    base = timed["float32"]
    for dtype, arm in timed.items():
        written = tokenizer.batch_decode(arm.results, skip_special_tokens=True)
        good = right_answers(examples, written)
        for example, *about in zip(examples, arm.seconds, map(len, arm.results), written, good, strict=True):
            results.prompt(example.id, "greedy", dtype, *about)
        same = [place for place, answer in enumerate(arm.results) if answer == base.results[place]]
        if dtype != "float32":
            print(f"{dtype:9} {len(same)} of {len(prompts)} answers are float32's, token for token", end="")
        if dtype != "float32" and len(same) > 1:
            gain = speedup(*([one.seconds[place] for place in same] for one in (base, arm)))
            interval = {"low": gain.low, "high": gain.high, "n": gain.n}
            results.metric(f"precision.answer_speedup.shipped.{SHORT[dtype]}", gain.ratio, "x", **interval)
            print(f"; these: {gain}")
        elif dtype != "float32":
            print(": too few to compare")
