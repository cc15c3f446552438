"""How large a model's activations get, and what each format makes of them (notebook 01)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import nn

from helpers.measuring.quality import logits_of
from helpers.text_to_sql.dataset import load_split
from helpers.training.completions import encode
from helpers.training.mixed_precision import batch_loss
from helpers.training.packing import Tree, collate, pack
from helpers.weights.precision.formats import FORMATS, fate
from helpers.weights.precision.ranges import recording, with_outliers


def record_activations(model: nn.Module, tokenizer, length: int = 512) -> dict[str, torch.Tensor]:
    """What each linear layer reads ("..., in") and each block passes on, on questions with their answers."""
    encoded = [encode(example, tokenizer) for example in load_split("train", limit=12)]
    length = max(length, *(len(e.ids) for e in encoded))
    row = max(pack([Tree((e,)) for e in encoded], length), key=len)
    batch = {name: tensor.to(model.device) for name, tensor in collate([row], tokenizer.pad_token_id).items()}
    with torch.no_grad(), recording(model) as seen:
        batch_loss(model, batch)
    return seen.activations


def draw_activations(activations: Mapping[str, torch.Tensor]) -> None:
    """The largest of each, from the first layer on, with the ends of two formats."""
    largest = {name: x.abs().max().item() for name, x in activations.items()}
    _, ax = plt.subplots(figsize=(9, 3.6))
    for label, marker, is_in in (("read by a linear layer", "o", True), ("passed on by a block", "s", False)):
        places = [place for place, name in enumerate(largest) if name.endswith(", in") == is_in]
        ax.plot(places, [list(largest.values())[place] for place in places], marker, label=label, markersize=4)
    for name, style in (("float16", "--"), ("float8_e4m3fn", ":")):
        line = {"color": "#555555", "linestyle": style, "marker": ""}
        ax.axhline(FORMATS[name].largest, label=f"largest in {name}", **line)
    ax.set(title="How large activations get, and where two formats end", yscale="log")
    ax.set(xlabel="place in the model (count, from its first layer)", ylabel="largest activation (absolute value)")
    ax.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    where = max(largest, key=largest.get)
    room = FORMATS["float16"].largest / largest[where]
    middle = sorted(largest.values())[len(largest) // 2]
    print(f"The largest is {largest[where]:.0f}, at {where}: {largest[where] / middle:.0f} times", end=" ")
    print(f"as large as the middle one of these points.\nfloat16 ends at {room:.1f} times the largest.")


def show_fates(activations: Mapping[str, torch.Tensor]) -> None:
    """What becomes of all these numbers in each format: too large, 0, or off by how much."""
    everything = torch.cat([x.flatten() for x in activations.values()])
    print(f"{'':15} {'too large':>10} {'become 0':>10} {'error of the others (median)':>30}")
    for fmt in list(FORMATS.values())[1:]:
        overflow, vanish, error = fate(everything, fmt)
        print(f"{fmt.name:15} {overflow:10.4%} {vanish:10.4%} {error:30.2%}")


def show_outliers(
    models: Mapping[str, nn.Module], activations: Mapping[str, torch.Tensor], tokens: Sequence[int]
) -> None:
    """The same function with larger activations inside its MLPs, in each dtype: what becomes of its logits."""
    inside = max(x.abs().max().item() for name, x in activations.items() if "down_proj" in name)
    factor = 2.0 ** (math.ceil(math.log2(FORMATS["float16"].largest / inside)) + 1)
    print(f"inside the MLPs activations of up to {inside:.0f}, then of up to {inside * factor:.0f}")
    for dtype, model in models.items():
        before, after = logits_of(model)(tokens), logits_of(with_outliers(model, factor))(tokens)
        broken = (~after.isfinite()).float().mean()
        if broken:
            print(f"   {dtype:9} {broken:.0%} of the logits are NaN")
        else:
            print(f"   {dtype:9} logits change by {(after - before).abs().max().item():.3g} at most")
