"""The charts draw plain numbers, and refuse to be drawn without a title or a unit."""

import matplotlib
import pytest

from helpers.errors import CourseError
from helpers.plots import bars_with_intervals, step_time_vs_bytes, timeline_of_steps, use_style

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


def test_points_line_and_lanes():
    ax = step_time_vs_bytes({"float32": [(20, 3.0), (40, 5.0)]}, lambda mb: 1 + mb / 10, title="Steps")
    assert len(ax.lines) == 2 and ax.get_ylabel() == "time of a step (ms)"
    ax = timeline_of_steps({"greedy": [(0, 3, 1), (3, 3, 1)], "medusa": [(0, 4, 3)]}, title="The race")
    assert [text.get_text() for text in ax.texts] == ["1", "1", "3"]


def test_refuses_a_chart_without_title_or_unit():
    with pytest.raises(CourseError, match="unit"):
        bars_with_intervals(["a"], [1], title="A", value_label="speedup")
    with pytest.raises(CourseError, match="title"):
        timeline_of_steps({"a": [(0, 1, 1)]}, title=" ")
