"""LoRA (Hu et al. 2021): a frozen matrix, and beside it a tall and a wide one that are trained (notebook 03)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, SMALL, WARM, box, canvas, width_of, write

LONGEST, THINNEST = 2.1, 0.12  # inches
FLOOR = 0.95  # inches below the matrices, for the words


def draw_lora(in_features: int, out_features: int, rank: int, alpha: float, ax: Axes | None = None) -> Figure:
    """y = W x + alpha/r B A x, each matrix drawn to scale (as thin as can be seen, where it would be thinner).

    Args:
        in_features, out_features: of the linear layer; W is out x in.
        rank: r; B is out x r, A is r x in.
        alpha: LoRA's constant; the change counts alpha / r times.
    """
    if not 0 < rank <= min(in_features, out_features):
        raise CourseError(f"A rank is from 1 to {min(in_features, out_features)} for this matrix, not {rank}.")
    scale = LONGEST / max(in_features, out_features)
    wide, tall, thin = in_features * scale, out_features * scale, max(THINNEST, rank * scale)
    frozen, trained = in_features * out_features, rank * (in_features + out_features)
    matrices = {
        "W": (wide, tall, PALE, "///", f"{out_features:,} × {in_features:,}", f"frozen: {frozen:,}"),
        "B": (thin, tall, DARK, "", f"{out_features:,} × {rank:,}", f"trained: {out_features * rank:,}"),
        "A": (wide, thin, DARK, "", f"{rank:,} × {in_features:,}", f"trained: {in_features * rank:,}"),
        "x": (THINNEST, wide, WARM, "", f"{in_features:,}", ""),
    }
    before = {"W": "y  =  (", "B": f"+  {alpha / rank:g} ×", "A": "", "x": ")"}
    height = FLOOR + max(tall, wide) + 0.3
    place, places = 0.15, {}
    for name, (width, _, _, _, shape, count) in matrices.items():
        room = max(width, width_of(shape), width_of(count, SMALL)) + 0.2
        sign = width_of(before[name], 13) + 0.1 if before[name] else 0.0
        places[name] = place + sign + room / 2
        place += sign + room
    title = f"LoRA trains {trained:,} numbers beside {frozen:,} frozen ones: {trained / frozen:.1%}"
    ax = canvas(place + 0.1, height, title, ax)
    middle, end = FLOOR + max(tall, wide) / 2, 0.0
    for name, (width, high, face, hatch, shape, count) in matrices.items():
        center = places[name]
        if before[name]:  # in the middle between the two matrices
            write(ax, ((end + center - width / 2) / 2, middle), before[name], align="center", points=13)
        end = center + width / 2
        corner = (center - width / 2, middle - high / 2)
        box(ax, corner, (width, high), "W" if name == "W" else "", face=face, hatch=hatch, points=14)
        if name != "W":  # too thin for its name
            write(ax, (center, middle + high / 2 + 0.06), name, align="center", vertical="bottom", bold=True)
        write(ax, (center, FLOOR - 0.2), shape, align="center")
        write(ax, (center, FLOOR - 0.42), count, align="center", points=SMALL)
    words = f"rank r = {rank}, alpha = {alpha:g}: the change B A counts alpha / r = {alpha / rank:g} times"
    write(ax, (0.15, 0.2), words, points=SMALL)
    return ax.figure
