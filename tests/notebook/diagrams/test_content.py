"""What a diagram shows is what it was given: each check is also run against other data, which it must not accept."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from helpers.notebook import diagrams
from helpers.notebook.diagrams import token_tree
from helpers.notebook.diagrams.canvas import DARK, PALE, PAPER, WARM
from helpers.notebook.diagrams.step_bar import milliseconds
from tests.notebook.diagrams.examples import EXAMPLES, MACHINE, SMOLLM2, STEPS, TERMS, TREE

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def words(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts if text.get_text()]


def title(figure):
    return figure.axes[0].get_title(loc="left")


def boxes(figure, face):
    """The texts in boxes of this colour, from top to bottom and from left to right."""
    ax = figure.axes[0]
    held = []
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and to_hex(patch.get_facecolor()) == to_hex(face):
            (x, y), width, height = patch.get_xy(), patch.get_width(), patch.get_height()
            inside = [
                t.get_text()
                for t in ax.texts
                if x < t.get_position()[0] < x + width and y < t.get_position()[1] < y + height
            ]
            held.append((-round(y, 3), x, "".join(inside)))
    return [text for _, _, text in sorted(held)]


def test_prefill_and_decode_compute_what_they_should():
    figure = EXAMPLES["prefill_and_decode"]()
    computed, again, written = (boxes(figure, face) for face in (DARK, PALE, PAPER))
    assert computed == ["How", "many", "ships", "?", "SELECT", "COUNT", "(*)", "FROM", ""]  # the last in the legend
    assert written == ["SELECT", "COUNT", "(*)", "FROM", "ship", ""]
    assert again == ["K V"] * (4 + 5 + 6 + 7) + [""]
    assert [text for text in words(figure) if text.startswith("computes")] == [
        "computes 4, reads 0 again",
        *(f"computes 1, reads {known} again" for known in (4, 5, 6, 7)),
    ]


def test_milliseconds_keep_what_is_small():
    assert [milliseconds(s) for s in (0.1302, 0.0221, 0.0009, 0.00004, 0)] == ["130", "22.1", "0.9", "0.04", "0"]


def lengths(figure):
    """Milliseconds of each bar, by row."""
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    rows = sorted({bar.get_y() for bar in bars})
    return [[round(bar.get_width(), 3) for bar in bars if bar.get_y() == y] for y in rows]


def test_a_steps_bar_is_its_terms_one_after_the_other():
    figure = EXAMPLES["step_bars"]()
    assert lengths(figure) == [[round(s * 1e3, 3) for s in parts.values()] for parts in TERMS.values()]
    starts = [round(bar.get_x(), 3) for bar in figure.axes[0].patches[:4]]
    assert starts == [0, 32.1, 39.8, 40.7]
    assert "overhead 32.1, weights 7.7, arithmetic 0.9, KV cache 0.2 ms" in words(figure)
    assert "40.9 ms, measured 40.5" in words(figure) and "21.9 ms, measured 22.3" in words(figure)
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [40.5, 22.3]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(TERMS["fused"])
    assert lengths(diagrams.draw_step_bars({"fused": TERMS["fused"]})) != lengths(figure)


def test_where_terms_overlap_only_the_larger_is_drawn():
    figure = diagrams.draw_step_bars(TERMS, form="max")
    assert lengths(figure) == [[32.1, 7.7, 0.2], [13.1, 7.7, 0.2]]
    assert "overhead 13.1, weights 7.7, arithmetic 0.9 (hidden), KV cache 0.2 ms" in words(figure)
    assert "21.0 ms" in words(figure)  # not 21.9


def test_the_points_lie_under_the_roofs_of_this_machine():
    figure = EXAMPLES["roofline"]()
    roof, *measured, balance = figure.axes[0].lines
    tokens, operations = roof.get_data()
    assert tokens[1] == pytest.approx(400 / 35) and list(balance.get_xdata()) == [tokens[1]] * 2
    assert operations == pytest.approx([2 * 35 / 2, 400, 400])  # of one token, at the balance, beyond it
    for line, (name, series) in zip(measured, STEPS.items(), strict=True):
        assert line.get_label() == name
        assert list(line.get_ydata()) == pytest.approx([2 * n * 134.5e6 / s / 1e9 for n, s in series])
    assert {"bandwidth: 35.0 GB/s", "arithmetic: 400 GFLOP/s", "balance: 11 tokens"} <= set(words(figure))
    faster = diagrams.draw_roofline(STEPS, **{**MACHINE, "bandwidth": 70e9})
    assert "balance: 6 tokens" in words(faster) and faster.axes[0].lines[0].get_ydata()[0] == pytest.approx(70)


SHAPES = ["5", "5 × 576", "q 5 × 9 × 64\nk, v 5 × 3 × 64", "5 × 3 × 64 each", "5 × 9 × 64", "5 × 1,536 each"]


def test_the_llama_names_every_shape():
    figure = EXAMPLES["llama"]()
    for text in [*SHAPES, "logits 5 × 49,152", "49,152", "one layer, 30 times"]:
        assert text in words(figure), text
    assert words(figure).count("5 × 576") == 6  # embedding, norm, o_proj, norm, down_proj, norm
    weights = ["q_proj: 576 → 9 × 64", "k_proj: 576 → 3 × 64", "v_proj: 576 → 3 × 64", "o_proj: 576 → 576"]
    assert set(weights) <= set(boxes(figure, WARM))
    later = diagrams.draw_llama(diagrams.LlamaShape.of(SMOLLM2), num_tokens=1, context=99)
    assert "100 × 3 × 64 each" in words(later) and "1 × 576" in words(later) and "5 × 576" not in words(later)
    untied = diagrams.LlamaShape(64, 2, 4, 4, 16, 128, 1000, tied=False)
    drawn = words(diagrams.draw_llama(untied, 1))
    assert "lm_head: a score for each token (64 → 1,000)" in drawn
    assert "attention: softmax(q kᵀ / √16) v" in drawn  # no heads are shared


def test_loras_matrices_have_their_shapes():
    figure = EXAMPLES["lora"]()
    for text in (
        "1,536 × 576",
        "1,536 × 16",
        "16 × 576",
        "frozen: 884,736",
        "trained: 24,576",
        "trained: 9,216",
        "+  2 ×",
    ):
        assert text in words(figure), text
    assert title(figure).strip() == "LoRA trains 33,792 numbers beside 884,736 frozen ones: 3.8%"
    w, b, a, x = figure.axes[0].patches
    assert w.get_height() / w.get_width() == pytest.approx(1536 / 576)
    assert b.get_height() == w.get_height() and a.get_width() == w.get_width() == pytest.approx(x.get_height())


def test_a_speculative_step_keeps_what_agrees_and_the_models_own():
    figure = EXAMPLES["speculative_step"]()
    assert boxes(figure, PALE) == ["name", "FROM", "ships", "WHERE"]
    assert boxes(figure, WARM) == ["name", "FROM", "ship"]
    assert boxes(figure, DARK) == ["SELECT", "name", "FROM", "ship"]
    assert boxes(figure, PAPER) == ["AND", "city", "× WHERE"]
    assert words(figure).count("= same") == 2 and words(figure).count("≠ differs") == 1
    assert "2 of 4 guesses accepted, 3 tokens in one step" in title(figure)
    figure = diagrams.draw_speculative_step("a", ["b", "c"], ["b", "c", "d"])
    assert boxes(figure, DARK) == ["a", "b", "c", "d"] and words(figure).count("bonus") == 1
    figure = diagrams.draw_speculative_step("a", ["b", "c"], ["x", "c", "d"])  # right again behind a wrong one: no use
    assert boxes(figure, DARK) == ["a", "x"] and "0 of 2 guesses accepted, 1 token in" in title(figure)


def ancestors(parents):
    """By node, the certain token first: itself and all that it follows."""
    seen = [{0}]
    for node, parent in enumerate(parents, 1):
        seen.append(seen[parent + 1] | {node})
    return seen


def mask_faults(figure, parents):
    """Squares of the mask that are not as the tree has it."""
    num = len(parents) + 1
    squares = [p for p in figure.axes[0].patches if isinstance(p, Rectangle) and p.get_width() == p.get_height()]
    dark = [to_hex(square.get_facecolor()) == DARK for square in squares]
    wanted = [other in ancestors(parents)[node] for node in range(num) for other in range(num)]
    assert len(dark) == num * num
    return [i for i, pair in enumerate(zip(dark, wanted)) if pair[0] != pair[1]]


def test_the_mask_beside_the_tree_is_the_trees():
    figure = EXAMPLES["token_tree"]()
    assert mask_faults(figure, TREE[1]) == []
    assert mask_faults(figure, [-1, -1, -1, 1, 1, 3])  # another tree's
    for token in ("SELECT", *TREE[0]):
        assert words(figure).count(token) == 3  # a node, a row, a column
    assert len(figure.axes[0].lines) == 6  # a line from each guess to what it follows


def test_a_mask_that_sees_its_neighbours_is_caught(monkeypatch):
    monkeypatch.setattr(token_tree, "own_mask", lambda certain, parents: certain_and_all_before(len(parents) + 1))
    assert mask_faults(EXAMPLES["token_tree"](), TREE[1])


def certain_and_all_before(num):
    import torch

    return torch.ones(num, num, dtype=torch.bool).tril()
