"""What makes a diagram legible, checked where the renderer puts things: `problems(figure)` says all that is wrong."""

from itertools import combinations, pairwise

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle

LEAST_POINTS, LEAST_CONTRAST = 9, 4.5  # the second is WCAG's for text
SLACK = 1.0  # pixels


def problems(figure):
    """A sentence for each fault; none for a diagram that can be read."""
    figure.canvas.draw()
    return [
        *(f"no title on axes {i}" for i, ax in enumerate(figure.axes) if not ax.get_title(loc="left").strip()),
        *(f"text outside: {name(t)}" for t in texts(figure) if not inside(extent(t), figure.bbox)),
        *(f"too small: {name(t)}" for t in texts(figure) if t.get_fontsize() < LEAST_POINTS),
        *(
            f"overlap: {name(a)} and {name(b)}"
            for (a, one), (b, other) in combinations([(t, extent(t)) for t in texts(figure)], 2)
            if not apart(one, other)
        ),
        *(
            f"box cut by an axis: {p}"
            for ax in figure.axes
            for p in ax.patches
            if not inside(p.get_window_extent(), ax.bbox)
        ),
        *(p for ax in figure.axes for p in against_patches(drawn_in(ax), ax)),
        *(f"a line through: {name(t)}" for ax in figure.axes for t in drawn_in(ax) if crossed(t, ax)),
    ]


def texts(figure):
    """Every text that a reader sees: in the axes, titles, labels, legends, ticks in view."""
    seen = []
    for ax in figure.axes:
        seen += [*drawn_in(ax), ax.title, ax._left_title, ax._right_title]
        seen += ax.get_legend().get_texts() if ax.get_legend() else []
        for axis in (ax.xaxis, ax.yaxis) if ax.axison else ():
            low, high = sorted(axis.get_view_interval())
            seen += [axis.label, *(t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high)]
    return [text for text in seen if text.get_visible() and text.get_text().strip()]


def drawn_in(ax):
    return [text for text in ax.texts if text.get_text().strip()]


def name(text):
    return repr(text.get_text())


def extent(text):
    """The text's own box in pixels, without the ground that it may stand on."""
    ground, text._bbox_patch = text._bbox_patch, None
    box = text.get_window_extent()
    text._bbox_patch = ground
    return box


def inside(box, outer):
    return (
        box.x0 >= outer.x0 - SLACK
        and box.x1 <= outer.x1 + SLACK
        and box.y0 >= outer.y0 - SLACK
        and box.y1 <= outer.y1 + SLACK
    )


def apart(one, other):
    return (
        one.x1 <= other.x0 + SLACK
        or other.x1 <= one.x0 + SLACK
        or one.y1 <= other.y0 + SLACK
        or other.y1 <= one.y0 + SLACK
    )


def against_patches(texts, ax):
    """Each rectangle holds a text wholly or not at all, and the innermost one is of a colour that it can be read on."""
    boxes = [(p.get_window_extent(), p.get_facecolor()) for p in ax.patches if isinstance(p, Rectangle)]
    boxes.sort(key=lambda box: -box[0].width * box[0].height)
    for text in texts:
        ground, own = "white", extent(text)
        for edges, color in boxes:
            if not apart(own, edges):
                if not inside(own, edges):
                    yield f"across the edge of a box: {name(text)}"
                elif color[3]:
                    ground = color[:3]
        if contrast(text.get_color(), ground) < LEAST_CONTRAST:
            yield f"too little contrast: {name(text)}"


def contrast(one, other):
    """The ratio of WCAG 2: what remains of it in grey."""

    def luminance(color):
        parts = np.array(to_rgb(color))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def crossed(text, ax):
    """Whether a line or an arrow runs through the text."""
    box = extent(text)
    for artist in (*ax.lines, *(patch for patch in ax.patches if isinstance(patch, FancyArrowPatch))):
        xy = path_of(artist)
        steps = np.linspace(0, 1, 200)[:, None]
        for start, end in pairwise(xy):
            x, y = (start + (end - start) * steps).T
            if ((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).any():
                return True
    return False


def path_of(artist):
    """Corners in pixels; the arrows are straight."""
    if isinstance(artist, FancyArrowPatch):
        return artist.axes.transData.transform(artist._posA_posB)
    return artist.axes.transData.transform(artist.get_xydata())
