"""Every diagram can be read, in grey as well: no text is cut, small, pale or on top of another; and each check sees its
planted mistake."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import Rectangle

from helpers.errors import CourseError
from helpers.notebook import diagrams
from helpers.notebook.plots import use_style
from tests.notebook.diagrams.examples import EXAMPLES, MACHINE, SMOLLM2, STEPS, TERMS
from tests.notebook.diagrams.legibility import problems

plt.switch_backend("Agg")
H100 = {"parameters": 7e9, "bytes_per_weight": 2, "bandwidth": 3.35e12, "rate": 990e12}
ONE_MAX = {"bf16": {"overhead": 0.2, "weights": 0.15, "arithmetic": 0.03, "KV cache": 0.01}}
OTHERS = {
    "a short prompt": lambda: diagrams.draw_prefill_and_decode(["a"], ["b"]),
    "dollars and line ends": lambda: diagrams.draw_prefill_and_decode(["$x", "$y"], ["\n", " _"]),
    "one bar, overlapped": lambda: diagrams.draw_step_bars(ONE_MAX, form="max"),
    "three bars": lambda: diagrams.draw_step_bars({**TERMS, "compiled": TERMS["fused"]}),
    "a large machine": lambda: diagrams.draw_roofline({"vLLM": [(1, 0.006), (256, 0.012)]}, **H100),
    "through the roof": lambda: diagrams.draw_roofline(STEPS, **{**MACHINE, "bytes_per_weight": 4, "rate": 90e9}),
    "a decode step": lambda: diagrams.draw_llama(diagrams.LlamaShape.of(SMOLLM2), num_tokens=1, context=1234),
    "a square matrix": lambda: diagrams.draw_lora(576, 576, 8, 16),
    "a wide matrix of full rank": lambda: diagrams.draw_lora(4096, 512, 512, 512),
    "all accepted": lambda: diagrams.draw_speculative_step("(", ["*", ")"], ["*", ")", " FROM"]),
    "none accepted": lambda: diagrams.draw_speculative_step("a", ["distinct", "b"], ["x", "y", "z"]),
    "a chain": lambda: diagrams.draw_token_tree("a", list("bcd"), [-1, 0, 1]),
    "one head": lambda: diagrams.draw_medusa_heads(["a"], "b", ["c"], 64),
    "one guess": lambda: diagrams.draw_token_tree("SELECT", ["DISTINCT"], [-1]),
}


@pytest.fixture(autouse=True)
def _style():
    use_style()
    yield
    plt.close("all")


@pytest.mark.parametrize("draw", [*EXAMPLES.values(), *OTHERS.values()], ids=[*EXAMPLES, *OTHERS])
def test_a_diagram_can_be_read(draw):
    assert problems(draw()) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_diagram_can_be_read_without_the_courses_style(name):
    with plt.style.context("default", after_reset=True):
        figure = EXAMPLES[name]()
        if figure.axes[0].axison:  # charts with axes are laid out by the style
            figure.set_layout_engine("constrained")
        assert problems(figure) == []


def write(words, x=0.5, y=0.5, **style):
    return lambda ax: ax.text(x, y, words, transform=ax.transAxes, **style)


PLANTED = {
    "text outside": write("far to the right", 0.98, 0.02),
    "too small": write("small", 0.01, 0.01, fontsize=7),
    "overlap": lambda ax: [write("twice", 0.4, 0.02)(ax) for _ in range(2)],
    "across the edge of a box": write("computes far too much to fit", 0.3, 0.86, fontsize=10),
    "box cut by an axis": lambda ax: ax.add_patch(Rectangle((-0.2, 0.5), 1, 0.2)),
    "a line through": lambda ax: ax.plot([0.1, 1.5], [2.17, 2.17]),
    "too little contrast": write("pale", 0.01, 0.01, color="#cccccc"),
    "no title": lambda ax: ax.set_title("", loc="left"),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_each_check_sees_its_mistake(mistake):
    figure = EXAMPLES["prefill_and_decode"]()
    PLANTED[mistake](figure.axes[0])
    assert any(problem.startswith(mistake) for problem in problems(figure))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_diagram_is_drawn_where_it_is_asked_to(name, monkeypatch):
    figure, axes = plt.subplots(1, 2, figsize=(16, 9))
    monkeypatch.setattr(plt, "figure", lambda **_: pytest.fail("a figure of its own"))
    monkeypatch.setattr(plt, "subplots", lambda **_: pytest.fail("a figure of its own"))
    place = {"ax": axes[0]}
    again = {
        "prefill_and_decode": lambda: diagrams.draw_prefill_and_decode(["a"], ["b"], **place),
        "step_bars": lambda: diagrams.draw_step_bars(TERMS, **place),
        "roofline": lambda: diagrams.draw_roofline(STEPS, **MACHINE, **place),
        "llama": lambda: diagrams.draw_llama(diagrams.LlamaShape.of(SMOLLM2), 1, **place),
        "lora": lambda: diagrams.draw_lora(4, 4, 1, 1, **place),
        "speculative_step": lambda: diagrams.draw_speculative_step("a", ["b"], ["b", "c"], **place),
        "token_tree": lambda: diagrams.draw_token_tree("a", ["b"], [-1], **place),
        "medusa_heads": lambda: diagrams.draw_medusa_heads(["a"], "b", ["c"], 8, **place),
    }
    assert again[name]() is figure and axes[0].get_title(loc="left") and not axes[1].texts


@pytest.mark.parametrize(
    "draw",
    [
        lambda: diagrams.draw_prefill_and_decode([], ["a"]),
        lambda: diagrams.draw_prefill_and_decode(["word"] * 20, ["a"]),
        lambda: diagrams.draw_step_bars({}),
        lambda: diagrams.draw_step_bars(TERMS, form="product"),
        lambda: diagrams.draw_step_bars({"a": {"overhead": -1.0}}),
        lambda: diagrams.draw_roofline({"a": []}, **MACHINE),
        lambda: diagrams.draw_roofline({"a": [(1, 0.0)]}, **MACHINE),
        lambda: diagrams.draw_llama(diagrams.LlamaShape.of(SMOLLM2), 0),
        lambda: diagrams.draw_lora(8, 8, 9, 1),
        lambda: diagrams.draw_speculative_step("a", ["b"], ["b"]),
        lambda: diagrams.draw_token_tree("a", ["b", "c"], [1, -1]),
        lambda: diagrams.draw_medusa_heads(["a"], "b", [], 8),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw):
    with pytest.raises(CourseError):
        draw()
    assert not plt.get_fignums()
