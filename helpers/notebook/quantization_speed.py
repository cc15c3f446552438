"""What fewer bits bring in a step's time, by rows: predicted, measured, read (notebook 02)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from helpers import models
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.probes import Memory
from helpers.measuring.timing import Comparison
from helpers.notebook.quantization_charts import draw_by_rows
from helpers.notebook.quantization_models import Opened, in_bfloat16
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import note_speedup
from helpers.profiling.quantized_steps import PROMPT, QuantizedSteps, quantized_arms, time_quantized_steps

CONTEXT = 128  # tokens before a step, as notebook 00's
WORDS = {
    "float32": "float32",
    "bf16": "bfloat16",
    "int8": "int8",
    "int4": "int4",
    "nf4": "NF4",
    "w8a8": "W8A8",
    "torch_int8": "int8, PyTorch's kernel",
    "torch_int4": "int4, PyTorch's kernel",
    "torch_w8a8": "W8A8, PyTorch's kernel",
}
SHAPE = ("float32", "bf16", "int8", "int4")  # of the random shape; all arms would need more memory than a laptop has


def rows_in_words(n: int) -> str:
    return f"{n} row{'s' * (n > 1)}"


def bits_of(name: str, group: int) -> float:
    """Bits of a weight with its scales."""
    return {"float32": 32, "bf16": 16, "int8": 8, "int4": 4 + 16 / group}[name]


def predict_steps(results: Results, equation: StepTime, shape_name: str, group: int) -> dict[str, float]:
    """How many times as fast as in float32 a step of one token is by notebook 00's equation, if a format changes the
    bytes and nothing else: its overhead, arithmetic and bandwidth are bfloat16's. Saves and prints the predictions."""
    full, half = (Shape.of(models.shape_only(shape_name, d, device="meta")) for d in ("float32", "bfloat16"))
    in_float32, predicted = equation(full, "float32", 1, CONTEXT), {}
    terms = equation.terms(half, "bfloat16", 1, CONTEXT)
    for name in ("bf16", "int8", "int4"):
        weights = terms["weights"] * bits_of(name, group) / 16
        both = weights, terms["arithmetic"]
        middle = max(both) if equation.form == "max" else sum(both)
        predicted[name] = in_float32 / (terms["overhead"] + middle + terms["KV cache"])
        if name != "bf16":
            results.prediction(f"quantization.predicted_decode_speedup.{name}", predicted[name], "x")
        print(f"{shape_name}, {WORDS[name]:17} {predicted[name]:5.2f} times float32's speed by the equation,", end=" ")
        print(f"{32 / bits_of(name, group):5.2f} by the bytes alone")
    return predicted


def time_shape(sizes: QuantizationSizes, group: int, rounds: int, memory: Memory) -> dict[str, QuantizedSteps]:
    """Steps of the random shape in float32, bfloat16, int8 and int4, which take turns; memory is read between them."""
    model = models.shape_only(sizes.shape, "bfloat16")
    arms = quantized_arms(model, SHAPE, group=group, turns=min(sizes.turns, 2))
    del model
    return time_quantized_steps(arms, rounds=rounds, before=memory.read)


def model_arms(opened: Opened, group: int, turns: int) -> dict[str, nn.Module]:
    """The fine-tuned model's steps in each format, on the CPU, which these kernels are for."""
    return quantized_arms(in_bfloat16(opened.tuned).to("cpu"), tuple(WORDS), group=group, turns=turns)


def show_steps(timed: Mapping[str, QuantizedSteps], bandwidth: float, title: str) -> None:
    """A line for each format: bytes a step reads, its times, the share of the bandwidth, its speed over bfloat16's."""
    rows = list(next(iter(timed.values())).seconds)
    print(f"{title:26}{'MB':>7}" + "".join(f"{rows_in_words(n) + ', ms':>12}" for n in rows), end="")
    print(f"{'bandwidth':>11}{'1 row over bfloat16':>24}")
    for name, one in timed.items():
        times = "".join(f"{one.median(n) * 1e3:12.1f}" for n in rows)
        gain = "" if name == "bf16" else in_short(one.speedup_over(timed["bf16"]))
        print(f"{WORDS[name]:26}{one.weight_bytes / 1e6:7.0f}{times}{one.share_of(bandwidth):11.0%}{gain:>24}")


def in_short(gain: Comparison) -> str:
    """The ratio with its interval."""
    return f"{gain.ratio:.2f} ({gain.low:.2f} to {gain.high:.2f})"


def note_shape(results: Results, timed: Mapping[str, QuantizedSteps], bandwidth: float) -> None:
    """Write the random shape's speeds: over float32 at one row, over bfloat16 by rows and for a prefill; and the shares
    of the bandwidth."""
    for name, one in timed.items():
        if name != "float32":
            note_speedup(results, f"quantization.decode_speedup.{name}", one.speedup_over(timed["float32"]))
            results.metric(f"quantization.bandwidth_share.{name}", one.share_of(bandwidth), "share")
        if name not in ("float32", "bf16"):
            _note_over_bf16(results, "quantization.decode_speedup_over_bf16", name, one, timed["bf16"])


def note_model(results: Results, timed: Mapping[str, QuantizedSteps], bandwidth: float) -> None:
    """Write the model's speeds over its bfloat16 step, by rows and for a prefill; and its shares of the
    bandwidth."""
    for name, one in timed.items():
        results.metric(f"quantization.bandwidth_share.model.{name}", one.share_of(bandwidth), "share")
        results.metric(f"quantization.step_ms.model.{name}", one.median() * 1e3, "ms", n=len(one.seconds[1]))
        if name != "bf16":
            _note_over_bf16(results, "quantization.decode_speedup.model", name, one, timed["bf16"])


def _note_over_bf16(results: Results, key: str, name: str, one: QuantizedSteps, base: QuantizedSteps) -> None:
    for n in one.seconds:
        note_speedup(results, f"{key}.{name}" + ("" if n == 1 else f".rows_{n}"), one.speedup_over(base, n))
    prefill = key.replace("decode", "prefill")
    note_speedup(results, f"{prefill}.{name}", one.speedup_over(base, one.prompt))


def draw_steps(timed: Mapping[str, QuantizedSteps], title: str) -> None:
    """A group of bars for each number of rows."""
    milliseconds = {WORDS[name]: {n: one.median(n) * 1e3 for n in one.seconds} for name, one in timed.items()}
    draw_by_rows(milliseconds, title=title, baseline=WORDS["bf16"])


def read_steps(timed: Mapping[str, QuantizedSteps], what: str) -> None:
    """Where fewer bits pay beside bfloat16, and where they cost, by rows and for the prefill."""
    sentences = []
    for name in (name for name in timed if name not in ("float32", "bf16")):
        pays, costs, open_ones = [], [], []
        for n in (*timed[name].seconds, PROMPT):
            gain = timed[name].speedup_over(timed["bf16"], n)
            where = "a prefill" if n == PROMPT else rows_in_words(n)
            (pays if gain.low > 1 else costs if gain.high < 1 else open_ones).append(f"{where} ({gain.ratio:.2f})")
        parts = [
            f"{verb} at {', '.join(places)}"
            for verb, places in (("is faster", pays), ("is slower", costs), ("can't be told apart", open_ones))
            if places
        ]
        sentences.append(f"{WORDS[name]} against bfloat16 {'; '.join(parts)}.")
    verify = [f"{WORDS[name]} {one.median(8) / one.median():.2f}" for name, one in timed.items() if name != "float32"]
    sentences.append(f"Checking 7 guesses in a step (8 rows) costs, in steps of one row: {'; '.join(verify)}.")
    say(f"{what}:", *sentences)


def read_guess(results: Results, predicted: Mapping[str, float], guess: float) -> None:
    """The guess about int4's step, the equation's prediction and the measurement."""
    for name in (name for name in ("int8", "int4") if f"quantization.decode_speedup.{name}" in results.metrics):
        entry = results.metrics[f"quantization.decode_speedup.{name}"]
        off = predicted[name] / entry["value"] - 1
        print(f"{name}: {entry['value']:.2f} times float32's speed", end=" ")
        print(
            f"({entry['low']:.2f} to {entry['high']:.2f}); the equation said {predicted[name]:.2f} ({off:+.0%} off)",
            end="",
        )
        print(f", you guessed {guess:g}" if name == "int4" else "")


def read_formats(timed: Mapping[str, QuantizedSteps], of_library: Mapping[str, float]) -> None:
    """Which formats save both memory and time at one row here, and which memory alone. `of_library` has the seconds of
    bitsandbytes' models and of the bfloat16 one beside them."""
    smaller = [name for name, one in timed.items() if one.weight_bytes < timed["bf16"].weight_bytes]
    gains = {WORDS[name]: timed[name].speedup_over(timed["bf16"]) for name in smaller}
    both = [name for name, gain in gains.items() if gain.low > 1]
    memory = [name for name, gain in gains.items() if gain.high < 1]
    memory += [
        f"{name} of bitsandbytes ({seconds / of_library['bf16']:.1f} times bfloat16's time)"
        for name, seconds in of_library.items()
        if name != "bf16" and seconds > of_library["bf16"]
    ]
    print("One row on this machine. Smaller and faster than bfloat16:", ", ".join(both) or "nothing")
    print("Smaller, and slower than bfloat16 run the same way:", ", ".join(memory) or "nothing")
