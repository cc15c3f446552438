"""What the diagrams are made of: a canvas measured in inches, boxes with their text inside, arrows.

Text is never smaller than 9 points, and boxes differ in lightness, hatch or edge, so that a grey print says the same.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.text import Text
from matplotlib.textpath import text_to_path

from helpers.errors import CourseError
from helpers.notebook.plots import COLORS

DARK, PALE, WARM, PAPER = COLORS[0], "#dfe7ec", "#f3c9a0", "white"  # light from left to right: 0.2, 0.9, 0.8, 1
INK, SOFT = "#1c2330", "#4a5361"
SIZE, SMALL, TITLE = 10, 9, 11.5  # points
TITLE_ROOM = 0.42  # inches above the canvas
MAX_WIDTH = 10.5  # inches: what a notebook's page shows without shrinking it


def canvas(width: float, height: float, title: str, ax: Axes | None = None) -> Axes:
    """Axes without a frame, of `width` x `height` units, wider where the title needs it; a unit is an inch where no
    `ax` is given."""
    width = max(width, width_of(title, TITLE, bold=True) + 0.25)
    if width > MAX_WIDTH:
        raise CourseError(f"This diagram would be {width:.1f} inches wide, {MAX_WIDTH} at most: give fewer tokens.")
    if ax is None:
        figure = plt.figure(figsize=(width, height + TITLE_ROOM), layout="none")
        ax = figure.add_axes((0, 0, 1, height / (height + TITLE_ROOM)))
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")
    ax.set_title(f" {title}", loc="left", fontsize=TITLE, fontweight="bold", color=INK)
    return ax


def box(
    ax: Axes,
    corner: tuple[float, float],
    size: tuple[float, float],
    text: str = "",
    *,
    face: str = PALE,
    hatch: str = "",
    dashed: bool = False,
    points: float = SIZE,
) -> Rectangle:
    """A rectangle from its lower left corner, with its text in the middle, light on dark or dark on light."""
    style = {"facecolor": face, "edgecolor": INK, "linewidth": 0.9, "linestyle": "--" if dashed else "-"}
    patch = ax.add_patch(Rectangle(corner, *size, hatch=hatch, **style))
    if text:
        middle = corner[0] + size[0] / 2, corner[1] + size[1] / 2
        color = INK if lightness(face) > 0.5 else "white"
        label = write(ax, middle, text, align="center", points=points, color=color)
        if hatch:  # the text stands on a plain ground
            label.set_bbox({"facecolor": face, "edgecolor": "none", "pad": 1})
    return patch


def write(
    ax: Axes,
    place: tuple[float, float],
    text: str,
    *,
    align: str = "left",
    vertical: str = "center_baseline",  # tokens with and without descenders stand on one line
    points: float = SIZE,
    color: str = INK,
    bold: bool = False,
    rotation: float = 0,
) -> Text:
    """Text at a place; dollars stay dollars."""
    style = {"fontsize": points, "color": color, "fontweight": "bold" if bold else "normal", "rotation": rotation}
    return ax.text(*place, text, ha=align, va=vertical, parse_math=False, linespacing=1.15, **style)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False) -> None:
    """A thin arrow, or a line of dashes with a head."""
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "color": INK, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, linestyle=(0, (3, 2)) if dashed else "-", **style))


def line(ax: Axes, *places: tuple[float, float]) -> None:
    """Straight lines from place to place."""
    ax.plot(*zip(*places), color=INK, linewidth=1.1, marker="", linestyle="-")


def width_of(text: str, points: float = SIZE, bold: bool = False) -> float:
    """Inches that a text takes, the longest of its lines."""
    font = FontProperties(size=points, weight="bold" if bold else "normal")
    return max(text_to_path.get_text_width_height_descent(part, font, False)[0] for part in text.split("\n")) / 72


def shown(token: str) -> str:
    """A token as a reader sees it: without the space that it begins with."""
    return token.strip() or repr(token)


def lightness(color: str) -> float:
    """Relative luminance, 0 for black and 1 for white: what a grey print keeps of a colour."""
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), to_rgb(color)))
