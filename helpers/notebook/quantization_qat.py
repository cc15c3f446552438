"""Training with rounded weights, looked at: a layer by hand, then the model in few bits (notebook 02d)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.measuring.quality import paired
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.quantization_models import Pair, Texts, copy_of
from helpers.notebook.quantization_quality import Perplexity, as_it_answers, as_multiple, perplexity_of, ratio_of
from helpers.notebook.quantization_sizes import QuantizationSizes
from helpers.notebook.results import Results
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization.calibration import Prompts, answer_pairs
from helpers.weights.quantization.gptq import gptq, gptq_weight
from helpers.weights.quantization.integer import install, round_to_nearest, weight_grid
from helpers.weights.quantization.qat import straight_through, train_quantized

Step = Callable[..., torch.Tensor]
WORDS = {"rtn": "plain rounding", "gptq": "GPTQ", "qat": "trained with rounded weights"}


def layer_to_train(tokens: int = 512, size: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A small layer's weight (size, size), its inputs (tokens, size), which go together, and its outputs."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, size // 2, generator=draw) @ torch.randn(size // 2, size, generator=draw)
    x = x + 0.3 * torch.randn(tokens, size, generator=draw)
    weight = torch.randn(size, size, generator=draw)
    return weight, x, x @ weight.T


def compare_with_autograd(results: Results, step: Step, steps: int = 20, bits: int = 2, lr: float = 0.02) -> None:
    """Steps by hand against autograd's through `straight_through`; writes the invariant, a case a step."""
    weight, x, y = layer_to_train()
    ours, theirs, same = weight.clone(), weight.clone().requires_grad_(), 0
    for _ in range(steps):
        ours = step(ours, x, y, bits, lr)
        loss = (x @ straight_through(theirs, bits).T - y).square().mean()
        (gradient,) = torch.autograd.grad(loss, theirs)
        with torch.no_grad():
            theirs -= lr * gradient
        same += torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    results.invariant("qat.step_equals_autograd", same == steps, same, steps)
    print(f"by hand and by autograd: the same weights after {same} of {steps} steps")


def compare_with_torchao(results: Results, bits: int = 3) -> None:
    """Values and gradients of torchao's fake quantization, given our scales, against `straight_through`; writes the
    invariant, a case a weight. And the error of the scale that torchao chooses by itself."""
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer

    dtype, (start, *_) = getattr(torch, f"int{bits}"), layer_to_train(size=64)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    fake = IntxFakeQuantizer(IntxFakeQuantizeConfig(dtype, "per_channel", is_dynamic=False))
    fake.scale = weight_grid(start, bits).scale
    fake.zero_point = torch.zeros_like(fake.scale, dtype=torch.int32)
    rounded = straight_through(ours, bits), fake(theirs)
    gradients = (torch.autograd.grad(each.square().sum(), w)[0] for each, w in zip(rounded, (ours, theirs)))
    near = [torch.isclose(*pair, rtol=1e-5, atol=1e-6) for pair in (rounded, tuple(gradients))]
    same = int((near[0] & near[1]).sum())
    results.invariant("qat.equals_torchao", same == start.numel(), same, start.numel())
    print(f"the same value and gradient for {same:,} of {start.numel():,} weights")
    own = IntxFakeQuantizer(IntxFakeQuantizeConfig(dtype, "per_channel"))(start)
    for name, values in (("our scale", rounded[0].detach()), ("torchao's own scale", own)):
        print(f"{name}: error of the weights {((values - start).norm() / start.norm()).item():.1%}")
    print(f"(torchao also uses the code {-(2 ** (bits - 1))}: its levels lie closer, and the largest weights are cut.)")


def draw_layer(step: Step, bits: int = 3, steps: int = 300, lr: float = 3e-3) -> None:
    """The squared error of a small layer while it trains, at a rate that falls to zero, beside plain rounding and GPTQ;
    and one weight's way, with the level that it is rounded to."""
    start, x, y = layer_to_train()

    def error(rounded: torch.Tensor) -> float:
        return ((x @ rounded.T - y).square().mean() / y.square().mean()).item()

    weight, errors, way = start.clone(), [], []
    for done in range(steps):
        rounded = round_to_nearest(weight, bits)
        errors.append(100 * error(rounded))
        way.append((weight, rounded))
        weight = step(weight, x, y, bits, lr * (1 - done / steps))
    codes, grid = gptq_weight(start, x.T @ x, bits)
    plain, fed = 100 * error(round_to_nearest(start, bits)), 100 * error(grid.decode(codes))
    _, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
    left.plot(errors, color=plots.COLORS[0], marker="", label="trained with rounded weights")
    for value, color, name in ((plain, 1, "plain rounding"), (fed, 3, "GPTQ")):
        left.axhline(value, color=plots.COLORS[color], linestyle="--", marker="", label=name)
    left.set(title=f"A layer in {bits} bits", xlabel="step (count)", ylabel="error of the output (%)", ylim=(0, None))
    left.legend(fontsize=9)
    jumps = torch.stack([(a[1] - b[1]).abs() for a, b in zip(way[1:], way)]).gt(0.2 * start.std()).sum(0)
    few = (jumps - 3).abs()  # more would be a solid block, none a line
    row, column = divmod(int(few.argmin()), start.shape[1])
    right.plot([one[0][row, column].item() for one in way], color=plots.COLORS[0], marker="", label="the weight behind")
    right.plot([one[1][row, column].item() for one in way], color=plots.COLORS[1], marker="", label="rounded")
    right.set(title="One weight on its way", xlabel="step (count)", ylabel="weight (number)")
    right.legend(fontsize=9)
    print(f"Error of the output: plain rounding {plain:.1f} %, GPTQ {fed:.1f} %, trained {errors[-1]:.1f} %.", end=" ")
    if errors[-1] > fed:
        print("For one layer")
        print("and its squared error calibration is the better way: it solves what training approaches.")
        print("Training sees what calibration can't: the loss of the whole model.")
    else:
        print("Training beats\ncalibration even here.")


def training_pairs(tokenizer, count: int = 600) -> list[Pair]:
    """Prompts and answers of the training split."""
    return answer_pairs(tokenizer, load_split("train", limit=count))


def train_models(
    results: Results,
    tuned: nn.Module,
    pairs: Sequence[Pair],
    calibration: Prompts,
    bits: int,
    sizes: QuantizationSizes,
    lr: float,
    seed: int,
) -> tuple[dict[str, nn.Module], list[float]]:
    """Plain rounding, GPTQ, and training with rounded weights, from the same start and with a scale a channel; the
    losses of the training's steps. Writes its seconds a step."""
    made = {"rtn": install(copy_of(tuned), bits), "gptq": gptq(copy_of(tuned), calibration, bits)}
    model, began = copy_of(tuned), time.perf_counter()
    options = dict(steps=sizes.training, lr=lr, batch_size=sizes.batch, seed=seed)
    losses = train_quantized(model, pairs, bits, **options)
    seconds = time.perf_counter() - began
    made["qat"] = model
    results.metric("qat.seconds_per_step", seconds / sizes.training, "s", n=sizes.training)
    results.metric("qat.training_steps", sizes.training, "steps")
    print(f"{sizes.training} steps of {sizes.batch} examples in {bits} bits took {seconds:.0f} s;", end=" ")
    print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")
    return made, losses


def draw_losses(losses: Sequence[float], bits: int) -> None:
    """The loss of each step's answers."""
    ax = plt.subplots(figsize=(8, 3.2))[1]
    ax.plot(range(1, len(losses) + 1), losses, color=plots.COLORS[0], marker="o", markersize=3)
    ax.set(title=f"Training with weights rounded to {bits} bits", xlabel="step (count)", ylabel="loss (nats a token)")
    ax.set_ylim(0, None)


def compare_trained(
    results: Results, tuned: nn.Module, models: Mapping[str, nn.Module], texts: Texts, bits: int
) -> dict[str, Perplexity]:
    """Perplexity of each, and its ratio to plain rounding's text by text; writes both."""
    found = {"float32": perplexity_of(as_it_answers(tuned), texts.pairs)}
    for name, model in models.items():
        found[name] = perplexity_of(as_it_answers(model), texts.pairs)
        found[name].note(results, f"qat.perplexity.{name}.{bits}bit")
    for name, one in found.items():
        print(f"{WORDS.get(name, name):30} perplexity {one.value:12.4f} ({one.low:.4f} to {one.high:.4f})", end="")
        if name not in models or name == "rtn":
            print()
            continue
        ratio, low, high = ratio_of(one, found["rtn"])
        results.metric(f"qat.perplexity_ratio.{name}.{bits}bit", ratio, "ratio", low=low, high=high, n=one.n)
        verdict = "lower" if high < 1 else "higher" if low > 1 else "not to be told apart"
        print(f", {as_multiple(ratio)} plain rounding's: {verdict}")
    return found


def show_trained_answers(
    results: Results,
    tuned: nn.Module,
    models: Mapping[str, nn.Module],
    tokenizer,
    texts: Texts,
    sizes: QuantizationSizes,
    bits: int,
    guess: float,
) -> None:
    """Answers fixed and broken against float32, and the guess about the trained model's; writes them."""
    asked, broken = texts.test[: sizes.answers], {}
    exact = Judged.by(as_it_answers(tuned), tokenizer, asked, sizes.longest)
    print(f"float32: {sum(exact.right)} of {len(asked)} right")
    for name, model in models.items():
        change = paired(exact.right, Judged.by(as_it_answers(model), tokenizer, asked, sizes.longest).right)
        broken[name] = change.broken
        results.metric(f"qat.answers_fixed.{name}.{bits}bit", change.fixed, "answers", n=change.n)
        results.metric(f"qat.answers_broken.{name}.{bits}bit", change.broken, "answers", n=change.n)
        print(f"{WORDS[name]}: {change}", flush=True)
    if broken["rtn"]:
        share = 1 - broken["qat"] / broken["rtn"]
        results.metric(f"qat.answers_saved.{bits}bit", share, "share", n=broken["rtn"])
        print(f"Of the answers that plain rounding broke training saved {share:.0%} (net); you guessed {guess:.0%}.")
    else:
        print("Plain rounding broke no answer, so none could be saved.")
