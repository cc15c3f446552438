"""Where heads and channels go: what is removed of each matrix of a layer, together (LLM-Pruner; notebook 04)."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import PALE, PAPER, SMALL, box, canvas, width_of, write

STRIPE, SIDE, GAP = 0.22, 0.75, 0.35  # inches: a part's thickness, the other side of a matrix, between matrices
FLOOR = 0.75  # below the matrices, for the words


def draw_removed_structures(
    kv_heads: Sequence[bool], channels: Sequence[bool], group: int, ax: Axes | None = None
) -> Figure:
    """A layer's seven matrices in stripes: rows of q, k, v, gate and up, columns of o and down; what goes is dashed.

    Args:
        kv_heads: whether each KV head stays; so do the `group` heads that share it.
        channels: whether each channel of the MLP stays.
    """
    if not kv_heads or not channels or group < 1:
        raise CourseError("Give one KV head and one channel at least, and how many heads share a KV head.")
    heads = [stays for stays in kv_heads for _ in range(group)]
    parts = {  # the name, its stripes, and whether they are rows
        "q_proj": (heads, True),
        "k_proj": (kv_heads, True),
        "v_proj": (kv_heads, True),
        "o_proj": (heads, False),
        "gate_proj": (channels, True),
        "up_proj": (channels, True),
        "down_proj": (channels, False),
    }
    tallest = STRIPE * max(len(heads), len(channels), round(SIDE / STRIPE))
    place, top = 0.15, FLOOR + tallest
    lefts = {}
    for name, (stripes, rows) in parts.items():
        width = max(SIDE if rows else len(stripes) * STRIPE, width_of(name))
        lefts[name], place = place, place + width + GAP
    title = f"{kv_heads.count(False)} of {len(kv_heads)} KV heads, {channels.count(False)} of {len(channels)} channels"
    ax = canvas(place, top + 0.45, f"What goes together: {title}", ax)
    for name, (stripes, rows) in parts.items():
        write(ax, (lefts[name], top + 0.15), name)
        for number, stays in enumerate(stripes):
            look = {"face": PALE} if stays else {"face": PAPER, "dashed": True}
            corner = (lefts[name], top - (number + 1) * STRIPE) if rows else (lefts[name] + number * STRIPE, top - SIDE)
            size = (SIDE, STRIPE) if rows else (STRIPE, SIDE)
            box(ax, corner, size, str(number), points=SMALL, **look)
    words = "q, k, v, gate and up lose rows (outputs), o and down the columns that read them;"
    write(ax, (0.15, 0.42), words, points=SMALL)
    write(ax, (0.15, 0.17), f"each KV head goes with the {group} heads that share it; dashed: removed", points=SMALL)
    return ax.figure
