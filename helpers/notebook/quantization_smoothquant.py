"""SmoothQuant looked at: sizes before and after, alpha, and what it is for where activations have outliers (02c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.measuring.quality import logits_of, paired, worst_logit_error
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.quantization_charts import draw_errors
from helpers.notebook.quantization_models import Texts, copy_of
from helpers.notebook.quantization_quality import (
    Perplexity,
    answers_of,
    as_it_answers,
    perplexity_of,
    ratio_of,
    widened,
)
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.quantization import llm_int8
from helpers.weights.quantization.calibration import InputSizes, Prompts, observe
from helpers.weights.quantization.rescaling import norm_folds, rescale_norm
from helpers.weights.quantization.smoothquant import alpha_sweep, smooth, smoothquant, w8a8

FACTOR, STEP = 64.0, 20  # outliers are so many times as large, in every 20th channel
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def with_outliers(model: nn.Module, factor: float = FACTOR, step: int = STEP) -> nn.Module:
    """A copy that computes the same with outliers in every `step`-th channel of what each norm gives."""
    return rescale_norm(copy_of(model), factor, range(0, model.config.hidden_size, step))


def most_uneven(sizes: Mapping[str, InputSizes], model: nn.Module) -> str:
    """The layer that reads a norm whose largest column stands out most, by its name."""
    names = {module: name for name, module in model.named_modules()}
    readers = [names[fold.readers[0]] for fold in norm_folds(model)]
    return max(readers, key=lambda name: (sizes[name].absmax.max() / sizes[name].absmax.median()).item())


def draw_before_and_after(activation: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, name: str) -> None:
    """The largest magnitude of each input column, and of the weight's column that it meets, before and after a scale
    moved from the one to the other."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    order = activation.argsort(descending=True).cpu()
    pairs = {"as it is": (activation, weight), "smoothed": (activation / scale, weight * scale)}
    for ax, (title, (of_input, of_weight)) in zip(axes, pairs.items()):
        for place, (values, label) in enumerate(((of_input, "input"), (of_weight, "weight"))):
            look = {"color": plots.COLORS[place], "marker": plots.MARKERS[place], "markersize": 3, "linestyle": ""}
            ax.plot(range(len(order)), values.cpu()[order], label=label, **look)
        ax.set(title=f"{name.split('.')[-1]}, {title}", yscale="log")
        ax.set(xlabel="column, by size of its input (count)", ylabel="largest magnitude (absolute)")
        ax.legend(fontsize=9)
    bottom = min(ax.get_ylim()[0] for ax in axes)
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(bottom, top)
    before, after = ((x.max() / x.median().clamp(min=1e-12)).item() for x in (activation, activation / scale))
    print(f"{name}: the largest input column is {before:.1f} times the middle one; smoothed {after:.1f} times.")


def check_same_function(results: Results, changed: Mapping[str, nn.Module], model: nn.Module, texts: Prompts) -> None:
    """Moving scales must change nothing but rounding in float32; writes the invariant, a case each copy and text."""
    same = of = 0
    for name, copy in changed.items():
        errors = [worst_logit_error(logits_of(copy), logits_of(model), [text]) for text in texts]
        spread = max(logits_of(model)(text).std().item() for text in texts)
        good = sum(error < 1e-3 * spread for error in errors)
        same, of = same + good, of + len(errors)
        print(f"{name:24} logits change by {max(errors):.2g} at most, where they spread by {spread:.2g}")
    results.invariant("smoothquant.same_function", same == of, same, of)


def show_arms(
    results: Results, models: Mapping[str, nn.Module], prompts: Prompts, texts: Texts, alphas: Mapping[str, float]
) -> dict[tuple[str, str], Perplexity]:
    """Perplexity of plain W8A8, LLM.int8 and SmoothQuant for the model as it is and for the one with outliers; writes
    it, and SmoothQuant's over plain W8A8's text by text."""
    found: dict[tuple[str, str], Perplexity] = {}
    for which, model in models.items():
        arms: dict[str, Callable[[nn.Module], nn.Module]] = {
            "float32": lambda copy: copy,
            "w8a8": w8a8,
            "llm_int8": llm_int8.install,
            "smoothquant": lambda copy, which=which: smoothquant(copy, prompts, alphas[which]),
        }
        words = {"w8a8": "plain W8A8", "llm_int8": "LLM.int8", "smoothquant": f"SmoothQuant, alpha {alphas[which]:g}"}
        print(which)
        for name, make in arms.items():
            one = found[which, name] = perplexity_of(as_it_answers(make(copy_of(model))), texts.pairs)
            print(f"   {words.get(name, name):26} perplexity {one.value:10.4f} ({one.low:.4f} to {one.high:.4f})")
            if name != "float32":
                one.note(results, f"smoothquant.perplexity.{name}.{KEYS[which]}")
        ratio, low, high = ratio_of(found[which, "smoothquant"], found[which, "w8a8"])
        key = f"smoothquant.perplexity_ratio.{KEYS[which]}"
        results.metric(key, ratio, "ratio", low=low, high=high, n=len(texts.pairs))
        verdict = "lower" if high < 1 else "higher" if low > 1 else "not to be told apart"
        print(f"   SmoothQuant's is {ratio:.4f} times plain W8A8's, text by text: {verdict}", flush=True)
    return found


KEYS = {"as it is": "as_it_is", "with outliers": "with_outliers"}


def draw_sweep(
    results: Results, models: Mapping[str, nn.Module], prompts: Prompts, sequences: Sequence[Sequence[int]]
) -> dict[str, float]:
    """The change of the logits by alpha, for both models; returns each one's best alpha, and writes it."""
    series, best = {}, {}
    for which, model in models.items():
        errors = alpha_sweep(model, prompts, sequences, ALPHAS)
        best[which] = min(errors, key=errors.get)
        series[which] = [(alpha, 100 * error) for alpha, error in errors.items()]
        results.metric(f"smoothquant.best_alpha.{KEYS[which]}", best[which], "power", n=len(sequences))
        least = errors[best[which]]
        print(f"{which}: alpha {best[which]:g} changes the logits least, by {least:.2%} of their square")
    ax = draw_errors(
        series,
        title="How much of the outliers goes into the weights",
        x_label="alpha (power)",
        y_label="change of the logits (% of their square)",
    )
    ax.set_yscale("log")
    return best


def show_answers(
    results: Results,
    models: Mapping[str, nn.Module],
    tuned: nn.Module,
    tokenizer,
    texts: Texts,
    alphas: Mapping[str, float],
    sizes: QuantizationSizes,
) -> tuple[dict[str, int], int]:
    """Answers of plain W8A8 and SmoothQuant, fixed and broken against float32; writes both. Returns how many plain W8A8
    broke of each model's, and how many were right."""
    asked, sentences, plain = texts.test[: sizes.answers], [], {}
    exact = Judged.by(as_it_answers(tuned), tokenizer, asked, sizes.longest)
    print(f"float32: {sum(exact.right)} of {len(asked)} right")
    for which, model in models.items():
        broken = {}
        for name, make in (
            ("w8a8", w8a8),
            ("smoothquant", lambda copy, which=which: smoothquant(copy, texts.calibration, alphas[which])),
        ):
            judged = answers_of(widened(make(copy_of(model))), tokenizer, asked, sizes.longest)
            change = paired(exact.right, judged.right)
            broken[name] = change.broken
            ending = f"{name}.{KEYS[which]}"
            results.metric(f"smoothquant.answers_fixed.{ending}", change.fixed, "answers", n=change.n)
            results.metric(f"smoothquant.answers_broken.{ending}", change.broken, "answers", n=change.n)
            print(f"{which}, {'plain W8A8' if name == 'w8a8' else 'SmoothQuant'}: {change}", flush=True)
        if broken["smoothquant"] < broken["w8a8"]:
            sentences.append(f"The model {which}: smoothing saves {broken['w8a8'] - broken['smoothquant']} answers.")
        else:
            sentences.append(f"The model {which}: smoothing saves no answer.")
        plain[which] = broken["w8a8"]
    say(*sentences)
    return plain, sum(exact.right)


def read_guess(results: Results, broken: Mapping[str, int], right: int, guess: float) -> None:
    """What plain W8A8 broke of 100 right answers of the model with outliers, beside the guess; writes it."""
    if not right:
        print("No answer was right before, so none could be broken.")
        return
    share = 100 * broken["with outliers"] / right
    results.metric("smoothquant.broken_per_hundred.w8a8.with_outliers", share, "answers", n=right)
    print(f"With outliers plain W8A8 breaks {share:.1f} of 100 right answers; you guessed {guess:g}.")


def smoothed(model: nn.Module, prompts: Prompts, alpha: float = 0.5) -> nn.Module:
    """A copy with scales moved from norms into weights, not quantized."""
    return smooth(copy_of(model), observe(model, prompts, InputSizes), alpha)
