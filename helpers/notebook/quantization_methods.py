"""The methods of notebook 02, by name: made of the fine-tuned model, and compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from helpers import models
from helpers.errors import CourseError
from helpers.measuring.quality import logits_of
from helpers.models.merging import ADAPTER
from helpers.notebook.quantization_grids import relative_error
from helpers.notebook.quantization_models import Opened, Texts, copy_of, in_bfloat16
from helpers.notebook.quantization_quality import (
    HEADER,
    Quality,
    as_it_answers,
    as_multiple,
    measure_quality,
    note_quality,
    perplexity_of,
    ratio_of,
    read_quality,
    show_line,
)
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.weights.quantization import integer, llm_int8, nf4_codes
from helpers.weights.quantization.awq import awq
from helpers.weights.quantization.calibration import observed_linears
from helpers.weights.quantization.gptq import gptq
from helpers.weights.quantization.integer import absmax_codes, linear_bytes
from helpers.weights.quantization.q4_1 import BITS as Q4_1_BITS
from helpers.weights.quantization.q4_1 import through_q4_1
from helpers.weights.quantization.smoothquant import smoothquant

Prompts = Sequence[Sequence[int]]
KEPT = ("int8", "awq")  # what vLLM serves and what is written to files


@dataclass(frozen=True)
class Settings:
    """What methods need beside the model: calibration prompts, weights that share a scale in 4 bits, AWQ's alphas."""

    prompts: Prompts
    group: int
    alphas: int


@dataclass(frozen=True)
class Method:
    """A method in words, and what makes it of a model, in place."""

    words: str
    make: Callable[[nn.Module, Settings], nn.Module]


METHODS: dict[str, Method] = {
    "int8": Method("int8, a scale a channel", lambda model, s: integer.install(model, 8)),
    "llm_int8": Method("LLM.int8", lambda model, s: llm_int8.install(model)),
    "smoothquant": Method("SmoothQuant (W8A8)", lambda model, s: smoothquant(model, s.prompts)),
    "rtn": Method("int4, plain rounding", lambda model, s: integer.install(model, 4, s.group)),
    "nf4": Method("NF4", lambda model, s: nf4_codes.install(model)),
    "awq": Method("int4, AWQ", lambda model, s: awq(model, s.prompts, 4, s.group, steps=s.alphas)),
    "gptq": Method("int4, GPTQ", lambda model, s: gptq(model, s.prompts, 4, s.group)),
}
FEW_BITS: dict[str, Callable[[nn.Module, Settings, int], nn.Module]] = {  # with a scale a channel
    "rtn": lambda model, s, bits: integer.install(model, bits),
    "awq": lambda model, s, bits: awq(model, s.prompts, bits, steps=s.alphas),
    "gptq": lambda model, s, bits: gptq(model, s.prompts, bits),
}


def show_int8_products(weight: torch.Tensor, x: torch.Tensor, threshold: float = llm_int8.THRESHOLD) -> None:
    """The error of x times W for a layer: weights alone in 8 bits, inputs as well, outlier columns kept apart."""
    exact, (codes, scales) = x @ weight.T, absmax_codes(weight)
    ways = {
        "weights alone in 8 bits": x @ (codes.float() * scales).T,
        "inputs as well (W8A8)": llm_int8.llm_int8(x, codes, scales, None),
        "LLM.int8": llm_int8.llm_int8(x, codes, scales, threshold),
    }
    errors = {name: relative_error(y, exact) for name, y in ways.items()}
    for name, error in errors.items():
        print(f"{name:26} error of the output {error:.2%}")
    apart = int(llm_int8.outlier_columns(x, threshold).sum())
    print(f"{apart} of {x.shape[1]} columns are outliers for this prompt.", end=" ")
    _, inputs_too, kept = errors.values()
    if not apart:
        print("There is nothing to keep apart.")
    elif kept < inputs_too / 1.5:
        print(f"Keeping them apart leaves {kept / inputs_too:.0%} of the error.")
    else:
        print("Here keeping them apart changes little: one scale a token had room for them.")


def num_weights(tuned: nn.Module) -> int:
    """Numbers in the linear layers that are quantized."""
    return sum(linear.weight.numel() for linear in observed_linears(tuned).values())


def adapter_beside(opened: Opened) -> tuple[nn.Module, int]:
    """The base in the 4 bits that it came in (Q4_1), with the adapter added to each layer's output instead of its
    weights; and its bytes. Here both are one dense weight, which gives the same numbers.

    Raises:
        CourseError: the model has no adapter beside a base, or Q4_1's blocks don't divide its rows.
    """
    if opened.base is opened.tuned:
        raise CourseError("this model has no adapter to keep beside its base.")
    model, base = copy_of(opened.tuned), observed_linears(opened.base)
    for name, linear in observed_linears(model).items():
        learned = linear.weight - base[name].weight
        linear.weight = nn.Parameter(through_q4_1(base[name].weight) + learned, requires_grad=False)
    of_adapter = Path(models.folder_of(opened.name), ADAPTER).stat().st_size
    return model, round(num_weights(model) * Q4_1_BITS / 8) + of_adapter


def compare_methods(
    results: Results, opened: Opened, texts: Texts, group: int, sizes: QuantizationSizes
) -> tuple[dict[str, Quality], dict[str, nn.Module]]:
    """All methods on the same questions, a line each; writes bytes, perplexity, logits and answers, paired with those
    of the unquantized model in float32. Returns them, and the models that are needed again."""
    tuned = opened.tuned
    weights, exact_logits = num_weights(tuned), logits_of(tuned)
    settings = Settings(texts.calibration, group, sizes.alphas)
    quality: dict[str, Quality] = {}
    kept: dict[str, nn.Module] = {}
    print(HEADER)

    def measure(key: str, words: str, model: nn.Module, held: int | None = None) -> None:
        held = held or linear_bytes(model)
        size = held, 8 * held / weights
        one = quality[key] = measure_quality(words, model, size, exact_logits, opened.tokenizer, texts, sizes)
        show_line(one, quality["fp32"])
        note_quality(results, key, one, quality["fp32"])

    measure("fp32", "float32", tuned)
    measure("bf16", "bfloat16", in_bfloat16(tuned))
    for key, method in METHODS.items():
        began = time.perf_counter()
        model = method.make(copy_of(tuned), settings)
        results.metric(f"quantization.seconds_to_quantize.{key}", time.perf_counter() - began, "s")
        measure(key, method.words, model)
        if key in KEPT:
            kept[key] = model
    try:
        measure("beside", "Q4_1, the adapter beside it", *adapter_beside(opened))
    except CourseError as reason:
        print(f"Q4_1, the adapter beside it: left out, {reason}")
    read_quality(quality)
    return quality, kept


def broken_per_hundred(results: Results, quality: Mapping[str, Quality], guess: float, key: str = "nf4") -> None:
    """The guess about right answers that 4 bits put wrong, beside the measurement; writes it."""
    exact, change = quality["fp32"], quality[key].change(quality["fp32"])
    right = sum(exact.judged.right)
    if not right:
        print("No answer was right before, so none could be broken.")
        return
    broken = 100 * change.broken / right
    results.metric(f"quantization.broken_per_hundred.{key}", broken, "answers", n=right)
    print(f"Of 100 right answers {broken:.1f} are wrong in {METHODS[key].words}; you guessed {guess:g}.")


def compare_few_bits(results: Results, tuned: nn.Module, texts: Texts, sizes: QuantizationSizes) -> None:
    """Plain rounding, AWQ and GPTQ in few bits, a scale a channel: perplexity, and its ratio to plain rounding's, text
    by text; writes both."""
    exact = perplexity_of(as_it_answers(tuned), texts.pairs)
    settings, lower = Settings(texts.calibration, 0, sizes.alphas), []
    print(f"{'float32':24} perplexity {exact.value:12.4f} ({exact.low:.4f} to {exact.high:.4f})")
    for bits in sizes.few_bits:
        found = {}
        for name, make in FEW_BITS.items():
            one = found[name] = perplexity_of(as_it_answers(make(copy_of(tuned), settings, bits)), texts.pairs)
            one.note(results, f"quantization.perplexity.{name}.{bits}bit")
            words = f"{bits} bits, {METHODS[name].words.removeprefix('int4, ')}"
            print(f"{words:24} perplexity {one.value:12.4f} ({one.low:.4f} to {one.high:.4f})", end="")
            if name == "rtn":
                print(flush=True)
                continue
            ratio, low, high = ratio_of(one, found["rtn"])
            verdict = "lower" if high < 1 else "higher" if low > 1 else "not to be told apart"
            print(f", {as_multiple(ratio)} plain rounding's: {verdict}", flush=True)
            results.metric(
                f"quantization.perplexity_over_rtn.{name}.{bits}bit", ratio, "ratio", low=low, high=high, n=one.n
            )
            lower.append(high < 1)
    if all(lower):
        print("Here the methods earn their keep: both lie below plain rounding, text by text.")
    else:
        print(f"In {sum(lower)} of {len(lower)} cases the cleverer method lies below plain rounding for certain.")
