"""A Llama in one picture: from token ids to the next token's probabilities, with the shape of every tensor (the primer
of notebook 00; Touvron et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from helpers.errors import CourseError
from helpers.measuring.cost_model import kv_heads_of
from helpers.notebook.diagrams.canvas import DARK, INK, PALE, PAPER, SMALL, WARM, arrow, box, canvas, line, write

LEFT, RIGHT = 0.75, 5.85  # inches: the column of boxes; to its left the residual line, to its right the shapes
MIDDLE = (LEFT + RIGHT) / 2
HIGH, GAP, SIDE = 0.38, 0.17, 0.15  # inches: of a box, between boxes, between boxes that stand side by side
THIRD = (RIGHT - LEFT - 2 * SIDE) / 3
TOP = 9.55  # of the canvas, inches
PASSES = ("", PAPER)  # instead of a box: what flows passes by


@dataclass(frozen=True)
class LlamaShape:
    """The numbers that the picture names."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config) -> LlamaShape:
        """From a transformers configuration of the Llama family."""
        kv_heads, head_dim = kv_heads_of(config)
        return cls(
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            kv_heads,
            head_dim,
            config.intermediate_size,
            config.vocab_size,
            bool(config.tie_word_embeddings),
        )


def draw_llama(shape: LlamaShape, num_tokens: int, context: int = 0, ax: Axes | None = None) -> Figure:
    """What one step computes, from top to bottom; on the right the shape of what flows.

    Args:
        shape: the model's, `LlamaShape.of(model.config)`.
        num_tokens: that the step reads: the prompt's in a prefill, 1 in a decode step.
        context: tokens whose keys and values the KV cache holds already.
    """
    if num_tokens < 1 or context < 0:
        raise CourseError("The picture of a step needs a token or more to read, and a context of 0 tokens or more.")
    s, n, length = shape, num_tokens, context + num_tokens
    ax = canvas(7.75, TOP, f"A Llama of {s.layers} layers reads {n} token{'s' * (n > 1)} in one step", ax)
    flow, vector, kv = _Flow(ax), f"{n:,} × {s.hidden:,}", f"{s.kv_heads} × {s.head_dim}"
    write(ax, (RIGHT + 0.3, TOP - 0.1), "shapes", bold=True)
    flow.row("token ids", f"{n:,}", face=PAPER)
    flow.row(f"embedding: a row for each token ({s.vocabulary:,} × {s.hidden:,})", vector, face=WARM)

    top = flow.enter_layer()
    flow.enter_block()
    flow.row("RMSNorm", vector)
    heads = {"q": s.heads, "k": s.kv_heads, "v": s.kv_heads}
    projections = [(f"{name}_proj: {s.hidden:,} → {count} × {s.head_dim}", WARM) for name, count in heads.items()]
    flow.row(projections, f"q {n:,} × {s.heads} × {s.head_dim}\nk, v {n:,} × {kv}")
    flow.row([("RoPE: rotate by position", PALE)] * 2 + [PASSES])
    flow.row([PASSES, ("KV cache: earlier k and v, and these", DARK)], f"{length:,} × {kv} each")
    shared = f"; {s.heads // s.kv_heads} query heads share a KV head" if s.heads != s.kv_heads else ""
    flow.row(f"attention: softmax(q kᵀ / √{s.head_dim}) v{shared}", f"{n:,} × {s.heads} × {s.head_dim}")
    flow.row(f"o_proj: {s.heads * s.head_dim:,} → {s.hidden:,}", vector, face=WARM)
    flow.leave_block()
    flow.enter_block()
    flow.row("RMSNorm", vector)
    flow.row(f"gate_proj and up_proj: {s.hidden:,} → {s.mlp:,} each", f"{n:,} × {s.mlp:,} each", face=WARM)
    flow.row(f"SiLU(gate) × up, then down_proj: {s.mlp:,} → {s.hidden:,}", vector, face=WARM)
    flow.leave_block()
    flow.leave_layer(top, f"one layer, {s.layers} times")

    flow.row("RMSNorm", vector)
    matrix = "the embedding's matrix again" if s.tied else f"{s.hidden:,} → {s.vocabulary:,}"
    flow.row(f"lm_head: a score for each token ({matrix})", f"logits {n:,} × {s.vocabulary:,}", face=WARM)
    flow.row("softmax of the last row: how probable each next token is", f"{s.vocabulary:,}", face=PAPER)
    return ax.figure


class _Flow:
    """Draws rows one below the other; `y` is where the next one begins."""

    def __init__(self, ax: Axes):
        self.ax, self.y = ax, TOP - 0.1
        self.lanes: list[float] = []  # where arrows leave the last row

    def row(self, text: str | Sequence[tuple[str, str]], shape: str = "", face: str = PALE) -> None:
        """One box, or two or three side by side, (text, face) each, the second of two twice as wide; with the arrows
        that lead to it and the shape of what leaves it."""
        texts = [(text, face)] if isinstance(text, str) else text
        spans = {1: [3], 2: [1, 2], 3: [1, 1, 1]}[len(texts)]
        lanes = [LEFT + THIRD / 2 + i * (THIRD + SIDE) for i in range(3)] if len(texts) > 1 else [MIDDLE]
        bottom, column = self.y - GAP - HIGH, 0
        for (words, color), span in zip(texts, spans):
            mine = [x for i, x in enumerate(lanes) if len(lanes) == 1 or column <= i < column + span]
            left, width = LEFT + column * (THIRD + SIDE), span * THIRD + (span - 1) * SIDE
            if words:
                box(self.ax, (left, bottom), (width, HIGH), words, face=color, points=SMALL)
                for x in self.lanes if len(lanes) == 1 else mine:
                    arrow(self.ax, (x, self.y), (x, bottom + HIGH))
            else:
                for x in mine:
                    line(self.ax, (x, self.y), (x, bottom))
            column += span
        if shape:
            write(self.ax, (RIGHT + 0.3, bottom + HIGH / 2), shape, points=SMALL + 0.5)
        self.y, self.lanes = bottom, lanes

    def enter_layer(self) -> float:
        """Begin the frame; returns its upper edge."""
        line(self.ax, (MIDDLE, self.y), (MIDDLE, self.y - 0.28))
        self.y -= 0.28
        return self.y + 0.12

    def leave_layer(self, top: float, words: str) -> None:
        """Draw the frame down to here, its name in the lower left corner."""
        line(self.ax, (MIDDLE, self.y), (MIDDLE, self.y - 0.3))
        bottom = self.y - 0.2
        frame = {"facecolor": "none", "edgecolor": INK, "linewidth": 1.4, "linestyle": (0, (5, 3))}
        self.ax.add_patch(Rectangle((0.2, bottom), RIGHT - 0.05, top - bottom, **frame))
        write(self.ax, (0.32, bottom + 0.14), words, points=SMALL, bold=True)
        self.y -= 0.3

    def enter_block(self) -> None:
        """The residual leaves here."""
        line(self.ax, (MIDDLE, self.y), (MIDDLE, self.y - 0.1))
        self.y -= 0.1
        self.residual = self.y

    def leave_block(self) -> None:
        """The residual is added here."""
        plus = self.y - GAP - 0.13
        arrow(self.ax, (MIDDLE, self.y), (MIDDLE, plus + 0.13))
        line(self.ax, (MIDDLE, self.residual), (0.48, self.residual), (0.48, plus))
        arrow(self.ax, (0.48, plus), (MIDDLE - 0.13, plus))
        box(self.ax, (MIDDLE - 0.13, plus - 0.13), (0.26, 0.26), "+", face=PAPER)
        self.y = plus - 0.13
