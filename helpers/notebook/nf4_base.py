"""QLoRA's base in four bits, looked at (notebook 03): its levels, its bits, and which base an adapter belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from torch import nn

from helpers.measuring.quality import logits_of, perplexity
from helpers.models.sharing import sharing_copy
from helpers.notebook import plots
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.weights.adapters import lora, peft_files
from helpers.weights.quantization import nf4

BLOCK, OF_SCALES = 64, 256  # weights that share a scale; scales that share one


def draw_levels(model: nn.Module) -> None:
    """The weights of one layer, each over the largest of its block, and NF4's 16 levels."""
    import bitsandbytes.functional as bnb

    levels = bnb.get_4bit_type("nf4", device="cpu").numpy()
    linear = next(module for module in model.modules() if isinstance(module, nn.Linear))
    weights = linear.weight.detach().float().cpu().flatten()
    blocks = weights[: len(weights) // BLOCK * BLOCK].view(-1, BLOCK)
    scaled = (blocks / blocks.abs().amax(1, keepdim=True).clamp(min=1e-12)).flatten()
    _, ax = plt.subplots(figsize=(8, 3))
    ax.hist(scaled.numpy(), 81, color=plots.COLORS[2], label="weights of one layer")
    ax.vlines(levels, 0, ax.get_ylim()[1] / 4, color=plots.COLORS[0], label="the 16 levels of NF4")
    ax.set(title="NF4 has more levels where there are more weights")
    ax.set(xlabel="weight / largest of its block (ratio)", ylabel="weights (count)")
    ax.legend()


def show_bits(results: Results, four_bits: nn.Module) -> None:
    """Bits of a weight with one scale a block, with the scales quantized in turn, and as they are here; writes the
    linear layers' bytes over those in float16."""
    plain, double = 4 + 32 / BLOCK, 4 + 8 / BLOCK + 32 / BLOCK / OF_SCALES
    ratio = nf4.linear_bytes(four_bits) / (2 * nf4.linear_numbers(four_bits))
    results.metric("qlora.linear_weight_bytes_ratio", ratio, "ratio")
    print(f"4 bits and a float32 scale for each block of {BLOCK}: {plain:.3f} bits a weight, {plain / 16:.3f} of fp16.")
    print(f"Double quantization keeps the scales in 8 bits, too: {double:.3f} bits, {double / 16:.3f} of fp16.")
    say(
        f"Measured: {nf4.linear_bytes(four_bits) / 1e6:.1f} MB, {16 * ratio:.3f} bits, {ratio:.3f} of fp16.",
        "What is beyond that are tables, which each matrix keeps for itself: small matrices feel them.",
    )


def show_bases(
    results: Results,
    four_bits: nn.Module,
    base: nn.Module,
    adapters: Mapping[str, Path],
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> None:
    """Perplexity of reference answers by each adapter ("qlora", trained on the four-bit base, or "shipped", trained on
    the unquantized one), beside the four-bit weights and beside the unquantized ones. `four_bits` gets the adapters."""
    whole = sharing_copy(base)
    print(f"{'perplexity of reference answers':34} {'4-bit base':>11} {'unquantized':>12}")
    rows = {"no adapter": [perplexity(logits_of(model), pairs) for model in (four_bits, whole)]}
    for name, folder in adapters.items():
        rows[name] = []
        for model in (four_bits, whole):
            peft_files.load_adapter(model, folder, name)
            rows[name].append(perplexity(logits_of(lora.use(model, name)), pairs))
    words = {"qlora": "trained on the 4-bit base", "shipped": "trained on the unquantized base"}
    for name, (four, unquantized) in rows.items():
        print(f"{words.get(name, name):34} {four:11.3f} {unquantized:12.3f}")
    for key, value in zip(("four_bit_base", "unquantized_base"), rows["qlora"]):
        results.metric(f"qlora.perplexity.{key}", value, "tokens", n=len(pairs))
    four, unquantized = rows["qlora"]
    undone = "the rounding is undone, and that is more than the adapter had learned to make up for."
    missed = "it had learned to make up for a rounding that is no longer there."
    sentences = [
        f"Four bits alone: {rows['no adapter'][1]:.2f} becomes {rows['no adapter'][0]:.2f}.",
        f"QLoRA's adapter, moved from the base that it was trained on to the unquantized one: {four:.3f} becomes",
        f"{unquantized:.3f}: {undone if unquantized < four else missed}",
    ]
    if "shipped" in rows:
        shipped = rows["shipped"]
        sentences.append(f"The shipped one, moved the other way: {shipped[1]:.3f} becomes {shipped[0]:.3f}.")
    say(*sentences)
