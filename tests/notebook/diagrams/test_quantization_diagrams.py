"""The diagrams of notebook 02 and 02b: they can be read, show what they were given, and refuse what can't be drawn."""

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, WARM
from helpers.notebook.diagrams.error_fed_forward import draw_error_fed_forward
from helpers.notebook.diagrams.nf4_levels import draw_nf4_levels
from helpers.notebook.diagrams.outlier_columns import draw_outlier_columns
from helpers.notebook.diagrams.quantization_grid import draw_grid
from helpers.notebook.plots import use_style
from helpers.weights.quantization.nf4_codes import LEVELS
from tests.notebook.diagrams.legibility import problems

plt.switch_backend("Agg")
ROW = [0.31, -0.12, 0.05, 0.44, -0.29, 0.18, -0.41, 0.02]
INPUTS = [[0.3, -7.1, 0.8, 1.2, 0.1, 0.4], [0.2, 6.5, -0.4, 0.9, -0.3, 9.0], [1.0, 8.2, 0.6, -0.2, 0.5, 0.1]]
STATES = [[0.31, -0.12, 0.40], [0.30, -0.08, 0.44], [0.30, 0.0, 0.36], [0.30, 0.0, 0.30]]
DRAW = {
    "grid": lambda **place: draw_grid({"a row": ROW, "with one large weight": [*ROW[:-1], 1.4]}, **place),
    "grid of two bits": lambda **place: draw_grid({"a row": ROW}, 2, **place),
    "grid of four bits": lambda **place: draw_grid({"a row": ROW, "a large one": [*ROW, 5.0]}, 4, **place),
    "NF4": lambda **place: draw_nf4_levels(LEVELS.tolist(), ROW * 8, **place),
    "outlier columns": lambda **place: draw_outlier_columns(INPUTS, 6.0, **place),
    "no outliers": lambda **place: draw_outlier_columns([[0.1] * 10] * 4, 6.0, **place),
    "error fed forward": lambda **place: draw_error_fed_forward(STATES, **place),
    "the first weights alone": lambda **place: draw_error_fed_forward(STATES[:2], **place),
}


@pytest.fixture(autouse=True)
def _style():
    use_style()
    yield
    plt.close("all")


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def title(figure):
    return figure.axes[0].get_title(loc="left").strip()


def squares(figure, face):
    patches = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    return [p for p in patches if to_hex(p.get_facecolor()) == to_hex(face)]


@pytest.mark.parametrize("name", DRAW)
def test_it_can_be_read(name):
    assert problems(DRAW[name]()) == []


@pytest.mark.parametrize("name", DRAW)
def test_it_is_drawn_where_it_is_asked_to(name, monkeypatch):
    figure, axes = plt.subplots(1, 2, figsize=(16, 9))
    monkeypatch.setattr(plt, "figure", lambda **_: pytest.fail("a figure of its own"))
    monkeypatch.setattr(plt, "subplots", lambda **_: pytest.fail("a figure of its own"))
    assert DRAW[name](ax=axes[0]) is figure and title(figure) and not axes[1].texts


def ends(figure):
    """(weight's place, level's place) of each line from a weight to its level, in inches."""
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 1.2]
    return [tuple(line.get_xdata()) for line in lines]


def test_each_weight_lands_on_its_nearest_level():
    figure = draw_grid({"a row": [1.0, -0.4, 0.3, 0.1]}, 2)  # levels -1, 0 and 1
    (one, at_one), (_, middle), (third, of_third), (_, of_fourth) = ends(figure)
    assert at_one == pytest.approx(one) and middle == of_third == of_fourth  # -0.4, 0.3 and 0.1 become 0
    assert third > middle
    assert "levels 1 apart" in words(figure)[0] and "off by 0.2 on average" in words(figure)[0]
    assert title(figure).startswith("2 bits are 3 levels")


def test_one_large_weight_makes_the_grid_coarse_for_all():
    fine, coarse = (text for text in words(DRAW["grid"]()) if "levels" in text)
    assert "levels 0.15 apart" in fine and "levels 0.47 apart" in coarse


def test_nf4_shows_its_levels_the_even_grid_and_the_block():
    lines = DRAW["NF4"]().axes[0].lines
    even, block = lines[1], lines[2]
    assert len(even.get_xdata()) == 15 and len(block.get_xdata()) == 64
    assert max(abs(x) for x in block.get_xdata()) == 1


def test_outlier_columns_and_their_rows_stay_in_16_bits():
    figure = DRAW["outlier columns"]()
    assert title(figure) == "LLM.int8: 2 of 6 columns are outliers, and stay in 16 bits"
    assert len(squares(figure, DARK)) == 2 * 3 + 2 * 4 + 1  # of x, of the weight, the product in 16 bits
    assert len(squares(figure, WARM)) == 3 + 4 + 1  # a scale for each token and output, and the legend
    assert {"int8 × int8: 4 columns", "16 bits: 2 columns"} <= set(words(figure))
    none = DRAW["no outliers"]()
    assert len(squares(none, DARK)) == 1 and "0 of 10 columns" in title(none)


def test_what_was_rounded_and_what_was_moved():
    figure = DRAW["error fed forward"]()
    assert len(squares(figure, DARK)) == 1 + 2 + 3
    assert len(squares(figure, WARM)) == 2 + 1  # -0.12 and 0.40, then 0.44
    assert len(squares(figure, PALE)) == 3
    assert words(figure).count("0.30") == 4 and "3 rounded" in words(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_grid({}),
        lambda: draw_grid({"zeros": [0.0, 0.0]}),
        lambda: draw_grid({"a row": ROW}, 8),
        lambda: draw_nf4_levels([], ROW),
        lambda: draw_nf4_levels(LEVELS.tolist(), [0.0, 0.0]),
        lambda: draw_outlier_columns([], 6.0),
        lambda: draw_outlier_columns([[1.0], [1.0, 2.0]], 6.0),
        lambda: draw_error_fed_forward([]),
        lambda: draw_error_fed_forward([[1.0, 2.0]]),
        lambda: draw_error_fed_forward([[1.0], [1.0]]),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw):
    with pytest.raises(CourseError):
        draw()
    assert not plt.get_fignums()
