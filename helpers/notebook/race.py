"""The race: two ways of decoding write the same answer side by side, drawn from recorded steps alone (notebook 08).

Each block is one run of the model, as wide as it took; in it stand the tokens that it made certain, each with who
guessed it, and below it, behind a cross, the guesses that were wrong. A lane ends with what its SQL returns.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from helpers.decoding.completion import Completion
from helpers.decoding.transcript import OWN, judged
from helpers.errors import CourseError
from helpers.notebook.ask import show_rows
from helpers.notebook.plots import COLORS
from helpers.text_to_sql.prompts import extract_sql

GUESSERS = {  # each one's mark, and what it says; "head 2" has 2
    "lookup": ("L", "copied from the prompt"),
    "suffix": ("S", "the longest match"),
    "earlier answer": ("E", "earlier answers"),
    "recycling": ("R", "recycled"),
    "bigram": ("B", "bigram table"),
    "draft": ("D", "draft model"),
    "drafter": ("N", "recurrent drafter, a network"),
}
FACES = ("#dfe7ec", "#f7dfc9")  # light enough for the text in it, a lane each


@dataclass(frozen=True)
class Block:
    """One run of the model, in seconds from the request: the tokens that it emitted, each with its guesser's mark, and
    the rejected guesses."""

    start: float
    end: float
    emitted: tuple[tuple[str, str], ...]  # (token's text, mark)
    rejected: tuple[str, ...]


def blocks(completion: Completion, tokenizer) -> list[Block]:
    """The recorded steps as blocks, one after the other, with their true times."""
    drawn, now = [], 0.0
    for step in completion.steps:
        emitted, rejected = judged(step)
        marked = tuple((tokenizer.decode([t]), mark_of(guesser) if guesser else OWN) for t, guesser in emitted)
        drawn.append(Block(now, now + step.seconds, marked, tuple(tokenizer.decode([t]) for t in rejected)))
        now += step.seconds
    return drawn


def mark_of(proposer: str) -> str:
    """A letter or digit for who guessed."""
    return GUESSERS[proposer][0] if proposer in GUESSERS else proposer.rsplit(" ", 1)[-1][:1].upper()


class Race:
    """Lanes by their names, in order from the slowest; `schema` is what the answers' SQL is run on."""

    def __init__(self, lanes: Mapping[str, Completion], tokenizer, schema: str):
        if len(lanes) < 2 or any(not c.steps for c in lanes.values()):
            raise CourseError("A race needs two recorded answers or more: give Completions of `generate`.")
        self.lanes = {name: blocks(c, tokenizer) for name, c in lanes.items()}
        self.results = {
            name: shortened(" ".join(show_rows(schema, extract_sql(c.text)).split()), 60) for name, c in lanes.items()
        }
        same = len({c.text for c in lanes.values()}) == 1
        self.title = f"{'The same answer' if same else 'An answer'} by each lane: a block is one run of the model"

    @property
    def seconds(self) -> float:
        """Until the last lane is done."""
        return max(lane[-1].end for lane in self.lanes.values())

    def figure(self, until: float | None = None, replay: str = "") -> Figure:
        """The race as it stood `until` seconds after the request; the end of it by default."""
        until = self.seconds if until is None else until
        fig, ax = plt.subplots(figsize=(13, 1.9 * len(self.lanes) + 0.6))
        for place, ((name, lane), face) in enumerate(zip(self.lanes.items(), FACES * len(self.lanes))):
            for block in lane:
                if block.start <= until:
                    self._draw(ax, block, place, face, shown=block.end <= until, until=until)
            caption = f"{name}, {len(lane)} runs of the model"
            if lane[-1].end <= until:
                caption += f", {1e3 * lane[-1].end:.0f} ms: {self.results[name]}"
            ax.text(0, place - 0.44, caption, fontsize=10, va="bottom")
        ax.set(
            title=self.title + replay,
            xlabel="time since the request (ms)",
            xlim=(0, 1e3 * self.seconds * 1.01),
            ylim=(len(self.lanes) - 0.4, -0.62),
            yticks=[],
        )
        ax.spines["left"].set_visible(False)
        ax.grid(visible=False)
        marks = {mark for lane in self.lanes.values() for block in lane for _, mark in block.emitted}
        ax.annotate(_legend(marks), (1, -0.16), xycoords="axes fraction", ha="right", va="top", fontsize=8.5)
        return fig

    def _draw(self, ax, block: Block, place: int, face: str, shown: bool, until: float) -> None:
        start, end = 1e3 * block.start, 1e3 * min(block.end, until)
        ax.barh(place, end - start, left=start, height=0.6, color=face, edgecolor=COLORS[0], linewidth=0.8)
        if shown:
            lines = [(f"{mark} " if mark != OWN else "") + shortened(repr(text), 14) for text, mark in block.emitted]
            middle = (start + end) / 2
            ax.text(middle, place, "\n".join(lines), rotation=90, ha="center", va="center", fontsize=7, linespacing=1)
            if block.rejected:
                crossed = "× " + shortened("".join(block.rejected), 14)
                ax.text(
                    middle, place + 0.31, crossed, rotation=90, ha="center", va="top", fontsize=5.5, color="#666666"
                )

    def gif(self, path: Path, slower: float = 60.0, pictures_a_second: int = 10) -> Path:
        """Write an animation that is `slower` times slower than it was, with that written on it."""
        count = int(self.seconds * slower * pictures_a_second) + 1
        frames = []
        for number in range(count + 1):
            until = min(self.seconds, number / slower / pictures_a_second)
            fig = self.figure(until, f" (replayed {slower:.0f} times slower)")
            frames.append(_picture(fig))
            plt.close(fig)
        palette = frames[-1].quantize(16, dither=Image.Dither.NONE)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
        times = [1000 // pictures_a_second] * (len(frames) - 1) + [4000]
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
        return path


def _picture(fig: Figure) -> Image.Image:
    out = io.BytesIO()
    fig.savefig(out, format="png", dpi=75)
    out.seek(0)
    return Image.open(out).convert("RGB")


def shortened(text: str, max_length: int) -> str:
    """The text, or its beginning and an ellipsis: at most `max_length` characters."""
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


def _legend(marks: set[str]) -> str:
    """What the marks say, for those that occur."""
    heads = sorted(mark for mark in marks if mark.isdigit())
    entries = [f"{mark}: {words}" for mark, words in GUESSERS.values() if mark in marks]
    if heads:
        entries.insert(0, f"{heads[0]} to {heads[-1]}: guessed by that head")
    return "   ".join([*entries, "no mark: the model's own", "small, behind a ×: wrong guesses"])
