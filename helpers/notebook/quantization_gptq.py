"""GPTQ looked at: a row by hand, a layer by bits and groups, the model by its layers and answers (notebook 02b)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.measuring.quality import paired
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.diagrams.error_fed_forward import draw_error_fed_forward
from helpers.notebook.quantization_charts import draw_errors
from helpers.notebook.quantization_models import Texts, copy_of
from helpers.notebook.quantization_quality import Perplexity, as_it_answers, perplexity_of, ratio_of
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.quantization.calibration import Hessian, observe
from helpers.weights.quantization.gptq import gptq, gptq_weight, inverse_factor, round_columns
from helpers.weights.quantization.integer import Group, grouped, install, round_to_nearest, weight_grid
from helpers.weights.quantization.quality import layer_errors, output_error

DAMPING = 0.01  # gptq.py's default


def by_hand(weight: Sequence[float], correlation: float) -> None:
    """Two weights on the grid of whole numbers, for inputs of size 1 that go together: what rounding each for itself
    adds to the squared output, and what feeding the first error forward does."""
    w = torch.tensor(weight)
    hessian = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    alone = w.round()
    error = w[0] - alone[0]
    moved = w[1] + error * correlation  # U of [[1, c], [c, 1]]^-1: U[0, 1] / U[0, 0] = -c
    fed = torch.stack([alone[0], moved.round()])
    for name, rounded in (("each for itself", alone), ("error fed forward", fed)):
        off = rounded - w
        print(f"{name:18} {w[0]:.1f} and {w[1]:.1f} become {rounded[0]:.0f} and {rounded[1]:.0f},", end=" ")
        print(f"squared error of the output {(off @ hessian @ off).item():.3f}")
    print(f"(the first error, {error.item():.1f}, moved the second weight to {moved.item():.2f} before its rounding)")


def draw_together(hessian: torch.Tensor, count: int = 40) -> None:
    """How inputs go together: the cosine between every two of the first columns."""
    size = hessian.diagonal().clamp(min=1e-12).sqrt()
    cosine = (hessian / size[:, None] / size)[:count, :count]
    _, ax = plt.subplots(figsize=(5.4, 4.4))
    image = ax.imshow(cosine.cpu(), cmap="RdBu", vmin=-1, vmax=1)
    ax.set(title=f"How the first {count} inputs go together", xlabel="input (count)", ylabel="input (count)")
    ax.grid(visible=False)
    plt.colorbar(image, ax=ax, label="cosine (from -1 to 1)")
    apart = cosine - torch.diag(cosine.diagonal())
    print(f"Two different inputs have a cosine of {apart.abs().mean():.2f} on average, whatever its sign; 0 would mean")
    print("that no weight can make up for another.")


def states_of(row: torch.Tensor, hessian: torch.Tensor, bits: int) -> list[list[float]]:
    """A row of weights (n,) at the beginning and after each of its columns was rounded, for the Hessian (n, n)."""
    weight, grid = row[None].float(), weight_grid(row[None], bits)
    factor = inverse_factor(hessian)
    codes, errors = round_columns(weight, factor, [grid] * weight.shape[1])
    rounded, states = grid.decode(codes), [weight[0].tolist()]
    for done in range(1, weight.shape[1] + 1):
        rest = weight[:, done:] - errors[:, :done] @ factor[:done, done:]
        states.append(torch.cat([rounded[:, :done], rest], 1)[0].tolist())
    return states


def draw_row(weight: torch.Tensor, hessian: torch.Tensor, bits: int = 3, count: int = 6) -> None:
    """The first weights of a row, rounded one after the other; of the inputs only these are looked at."""
    draw_error_fed_forward(states_of(weight[0, :count], hessian[:count, :count], bits))


def check_errors(
    results: Results, weight: torch.Tensor, rounded: torch.Tensor, errors: torch.Tensor, hessian: torch.Tensor
) -> None:
    """The sum of the squared errors of all columns against the output's squared error by the damped Hessian; writes
    the invariant, a case for each row of the weight."""
    damped = hessian.double().clone()
    damped.diagonal()[damped.diagonal() == 0] = 1
    damped.diagonal().add_(DAMPING * damped.diagonal().mean())
    off = (rounded - weight).double()
    by_hessian, by_errors = ((off @ damped) * off).sum(1), errors.double().square().sum(1)
    same = int(torch.isclose(by_hessian, by_errors, rtol=1e-3).sum())
    print(
        f"squared error of the output {by_hessian.sum():.4g}, sum of the squared errors {by_errors.sum():.4g}:", end=" "
    )
    print(f"equal in {same} of {len(off)} rows")
    results.invariant("gptq.errors_are_the_outputs", same == len(off), same, len(off))


LAYER_ROWS: tuple[tuple[int, Group], ...] = ((4, "channel"), (4, 64), (3, "channel"), (3, 64), (2, "channel"), (2, 64))


def show_layer(results: Results, weight: torch.Tensor, hessian: torch.Tensor) -> dict[tuple[int, Group], float]:
    """One layer: the share of its output that plain rounding and GPTQ change, with columns in their order and with the
    largest inputs first; returns by (bits, group) how many times smaller GPTQ's error is, and writes those of a scale a
    channel."""
    print(f"{'error of the output':22}{'plain rounding':>16}{'GPTQ':>10}{'act order':>12}{'times smaller':>15}")
    ratios = {}
    for bits, group in LAYER_ROWS:
        if isinstance(group, int) and weight.shape[1] % group:
            continue
        plain = output_error(weight, round_to_nearest(weight, bits, group), hessian)
        errors = []
        for act_order in (False, True):
            codes, grid = gptq_weight(weight, hessian, bits, group, act_order=act_order)
            rounded = grid.decode(codes.reshape(grouped(weight, group).shape)).reshape(weight.shape)
            errors.append(output_error(weight, rounded, hessian))
        ratios[bits, group] = plain / max(errors[0], 1e-12)
        name = f"{bits} bits, {'groups of 64' if group == 64 else 'a channel'}"
        print(f"{name:22}{plain:16.3%}{errors[0]:10.3%}{errors[1]:12.3%}{ratios[bits, group]:15.1f}")
        if group == "channel":
            results.metric(f"gptq.output_error.rtn.{bits}bit", plain, "share")
            results.metric(f"gptq.output_error.gptq.{bits}bit", errors[0], "share")
            results.metric(f"gptq.output_error.gptq_act_order.{bits}bit", errors[1], "share")
            results.metric(f"gptq.output_error_ratio.{bits}bit", ratios[bits, group], "ratio")
    return ratios


def quantized_models(
    results: Results, model: nn.Module, prompts: Sequence[Sequence[int]], bits: int
) -> dict[str, nn.Module]:
    """Plain rounding and GPTQ of the whole model, a scale a channel; writes GPTQ's seconds."""
    made = {"rtn": install(copy_of(model), bits)}
    began = time.perf_counter()
    made["gptq"] = gptq(copy_of(model), prompts, bits)
    seconds = time.perf_counter() - began
    results.metric(f"gptq.seconds.{bits}bit", seconds, "s", n=len(prompts))
    print(f"{bits} bits: GPTQ took {seconds:.0f} s for {len(prompts)} calibration prompts", flush=True)
    return made


def compare_models(
    results: Results, model: nn.Module, by_bits: dict[int, dict[str, nn.Module]], texts: Texts
) -> dict[tuple[int, str], Perplexity]:
    """Perplexity of both at each number of bits, with their ratio text by text; writes it."""
    found: dict[tuple[int, str], Perplexity] = {}
    exact = perplexity_of(as_it_answers(model), texts.pairs)
    print(f"{'float32':22} perplexity {exact.value:10.4f} ({exact.low:.4f} to {exact.high:.4f})")
    for bits, models in by_bits.items():
        for name, quantized in models.items():
            one = found[bits, name] = perplexity_of(as_it_answers(quantized), texts.pairs)
            one.note(results, f"gptq.perplexity.{name}.{bits}bit")
            words = "plain rounding" if name == "rtn" else "GPTQ"
            print(f"{f'{bits} bits, {words}':22} perplexity {one.value:10.4f} ({one.low:.4f} to {one.high:.4f})")
        ratio, low, high = ratio_of(found[bits, "gptq"], found[bits, "rtn"])
        results.metric(f"gptq.perplexity_ratio.{bits}bit", ratio, "ratio", low=low, high=high, n=len(texts.pairs))
        verdict = "GPTQ's is lower" if high < 1 else "GPTQ's is higher" if low > 1 else "no difference shown"
        print(f"   text by text GPTQ has {ratio:.3f} times the other's ({low:.3f} to {high:.3f}): {verdict}")
    return found


def draw_layer_errors(
    model: nn.Module, by_bits: dict[int, dict[str, nn.Module]], prompts: Sequence[Sequence[int]]
) -> None:
    """The error of each layer's output, from the first on, by method and bits, and a sentence about the whole."""
    series, better, layers = {}, 0, 0
    for bits, models in by_bits.items():
        of_bits = {name: list(layer_errors(one, model, prompts).values()) for name, one in models.items()}
        for name, errors in of_bits.items():
            words = "plain rounding" if name == "rtn" else "GPTQ"
            series[f"{words}, {bits} bits"] = [(place, 100 * error) for place, error in enumerate(errors)]
        better += sum(g < r for g, r in zip(of_bits["gptq"], of_bits["rtn"]))
        layers += len(of_bits["rtn"])
    ax = draw_errors(
        series,
        title="What rounding changes in each layer's output",
        x_label="linear layer, in the model's order (count)",
        y_label="error of the output (% of its square)",
    )
    ax.set_yscale("log")
    for line in ax.lines:
        line.set(marker=".", markersize=3, linewidth=0.8)
    text = f"GPTQ's error is the smaller one in {better} of {layers} layers. (These prompts were not calibrated on.)"
    say(text)


def show_answers_of(
    results: Results,
    model: nn.Module,
    quantized: dict[str, nn.Module],
    tokenizer,
    texts: Texts,
    sizes: QuantizationSizes,
    bits: int,
) -> None:
    """Right answers of both at these bits, against float32's question by question; writes fixed and broken."""
    asked = texts.test[: sizes.answers]
    exact = Judged.by(as_it_answers(model), tokenizer, asked, sizes.longest)
    print(f"float32: {sum(exact.right)} of {len(asked)} right")
    for name, one in quantized.items():
        change = paired(exact.right, Judged.by(as_it_answers(one), tokenizer, asked, sizes.longest).right)
        words = "plain rounding" if name == "rtn" else "GPTQ"
        print(f"{bits} bits, {words}: {change}")
        results.metric(f"gptq.answers_fixed.{name}.{bits}bit", change.fixed, "answers", n=change.n)
        results.metric(f"gptq.answers_broken.{name}.{bits}bit", change.broken, "answers", n=change.n)


def hessians_by_count(
    model: nn.Module, name: str, prompts: Sequence[Sequence[int]], parts: Sequence[int] = (16, 8, 4, 2, 1)
) -> dict[int, torch.Tensor]:
    """A layer's Hessian over the first 16th, 8th, ... of the calibration prompts, and over all of them, by their
    number."""
    linear = {name: model.get_submodule(name)}
    counts = sorted({max(1, len(prompts) // part) for part in parts})
    return {count: observe(model, prompts[:count], Hessian, linear)[name].matrix for count in counts}


def draw_calibration(
    results: Results, weight: torch.Tensor, hessians: dict[int, torch.Tensor], unseen: torch.Tensor, bits: int = 3
) -> None:
    """One layer's error on inputs that were not calibrated on (their Hessian is `unseen`), by calibration prompts."""
    plain = output_error(weight, round_to_nearest(weight, bits), unseen)
    series = []
    for count, hessian in hessians.items():
        codes, grid = gptq_weight(weight, hessian, bits)
        error = output_error(weight, grid.decode(codes), unseen)
        series.append((count, 100 * error))
        results.metric(f"gptq.unseen_output_error.prompts_{count}", error, "share")
    ax = draw_errors(
        {"GPTQ": series},
        title=f"One layer in {bits} bits, on texts that were not calibrated on",
        x_label="calibration prompts (count)",
        y_label="error of the output (% of its square)",
    )
    ax.axhline(100 * plain, color=plots.COLORS[1], linestyle="--", marker="", label="plain rounding")
    ax.set_ylim(0, None)
    ax.legend(fontsize=9)
    (fewest, first), (most, last) = series[0], series[-1]
    print(f"With {fewest} prompts {first:.2f} %, with {most} {last:.2f} %; plain rounding {100 * plain:.2f} %.")
