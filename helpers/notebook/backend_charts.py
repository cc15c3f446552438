"""Our server beside others (notebook 11b)."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt

from helpers.notebook import plots
from helpers.notebook.serving_backends import Pair


def draw_backends(found: Mapping[str, Mapping[int, Pair]], words: Mapping[str, str]) -> None:
    """How many times each server's tokens a second ours writes in the same turns, by users at a time."""
    _, ax = plt.subplots(figsize=(8, 3.4))
    users = sorted({number for pairs in found.values() for number in pairs})
    for place, number in enumerate(users):
        gains = [pairs[number].gain for pairs in found.values()]
        places = [row + 0.8 * place / len(users) for row in range(len(found))]
        look = dict(color=plots.COLORS[place], hatch=("", "//", "..", "xx")[place % 4], edgecolor="white")
        reach = [[gain.ratio - gain.low for gain in gains], [gain.high - gain.ratio for gain in gains]]
        ratios = [gain.ratio for gain in gains]
        ax.barh(places, ratios, height=0.8 / len(users), xerr=reach, label=f"{number} at a time", **look)
    ax.axvline(1.0, color="#555555", linestyle=":")
    ax.set_yticks([row + 0.4 * (len(users) - 1) / len(users) for row in range(len(found))])
    ax.set_yticklabels([words[name] for name in found])
    ax.set(title="Our server beside others", xlabel="tokens a second of ours, over those of the other (ratio)")
    ax.legend()
