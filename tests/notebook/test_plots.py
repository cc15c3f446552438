"""The charts draw plain numbers, and refuse to be drawn without a title or a unit."""

import matplotlib
import pytest

from helpers.errors import CourseError
from helpers.notebook.plots import (
    bars_with_intervals,
    efficient,
    pareto,
    step_time_vs_bytes,
    step_time_vs_tokens,
    timeline_of_steps,
    use_style,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _figures():
    use_style()
    yield
    matplotlib.pyplot.close("all")


def test_what_is_not_measured_is_hatched_and_named():
    ax = bars_with_intervals(
        ["greedy", "medusa"],
        [1, 2.4],
        [None, (2.2, 2.6)],
        title="Medusa",
        value_label="speedup (x)",
        kinds=["measured", "simulated"],
    )
    assert [bar.get_hatch() for bar in ax.patches] == ["", "xxx"]
    assert "(simulated)" in ax.get_yticklabels()[1].get_text()
    ax.figure.savefig("/dev/null", format="png")


def test_points_and_lanes():
    ax = step_time_vs_bytes({"float32": [(20, 3.0), (40, 5.0)], "bf16": [(10, 2.0)]}, title="Steps")
    assert len(ax.lines) == 2 and ax.get_ylabel() == "time of a step (ms)"
    ax = timeline_of_steps({"greedy": [(0, 3, 1), (3, 3, 1)], "medusa": [(0, 4, 3)]}, title="The race")
    assert [text.get_text() for text in ax.texts] == ["1", "1", "3"]


def test_tokens_stand_beside_their_full_cost():
    ax = step_time_vs_tokens({"a": [(1, 1.0), (8, 2.0)], "b": [(1, 1.0), (8, 9.0)]}, {"balance": 5.0}, title="Tokens")
    assert [label.get_text() for label in ax.get_legend().get_texts()] == ["a", "b", "if tokens cost in full"]
    assert list(ax.get_xticks()) == [1, 8] and ax.texts[0].get_text() == "balance"


def test_refuses_a_chart_without_title_or_unit():
    with pytest.raises(CourseError, match="unit"):
        bars_with_intervals(["a"], [1], title="A", value_label="speedup")
    with pytest.raises(CourseError, match="title"):
        timeline_of_steps({"a": [(0, 1, 1)]}, title=" ")


def test_only_what_nothing_beats_is_on_the_pareto_line():
    points = {"slow": (4, 1.0), "good": (1, 3.0), "best": (2, 5.0), "beaten": (3, 4.0), "same cost": (2, 4.5)}
    assert efficient(points) == ["good", "best"]
    ax = pareto(points, title="Choices", cost_label="price ($)", gain_label="speed (x)")
    hollow = {name for name, line in zip(points, ax.lines[1:]) if line.get_markerfacecolor() == "white"}
    assert hollow == {"slow", "beaten", "same cost"} and {text.get_text() for text in ax.texts} == set(points)
