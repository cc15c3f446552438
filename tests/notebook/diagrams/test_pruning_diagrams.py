"""Notebook 04's diagrams can be read, show what they are given, and refuse what can't be drawn."""

import matplotlib.pyplot as plt
import pytest

from helpers.errors import CourseError
from helpers.notebook.diagrams.canvas import DARK, PALE, PAPER, WARM
from helpers.notebook.diagrams.pruning_scores import draw_pruning_scores
from helpers.notebook.diagrams.removed_structures import draw_removed_structures
from helpers.notebook.plots import use_style
from helpers.notebook.pruning_layers import toy
from helpers.weights.pruning.magnitude import magnitude_mask
from helpers.weights.pruning.wanda import wanda_mask
from tests.notebook.diagrams.legibility import problems
from tests.notebook.diagrams.test_content import boxes, title, words

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def _style():
    use_style()
    yield
    plt.close("all")


def scores(**more):
    weight, norms = toy()
    masks = magnitude_mask(weight, 0.5), wanda_mask(weight, norms**2, 0.5)
    return draw_pruning_scores(weight.tolist(), norms.tolist(), *(mask.tolist() for mask in masks), **more)


def removed(**more):
    channels = [True, True, False, True, False, True, True, False]
    return draw_removed_structures([True, False, True], channels, 3, **more)


DRAWN = {
    "scores": scores,
    "a small weight": lambda: draw_pruning_scores([[1.5, -12]], [0.25, 3], [[True, False]], [[False, True]]),
    "removed": removed,
    "one head": lambda: draw_removed_structures([True, False], [True] * 12, 1),
}


@pytest.mark.parametrize("name", DRAWN)
def test_it_can_be_read(name):
    assert problems(DRAWN[name]()) == []


@pytest.mark.parametrize("draw", [scores, removed])
def test_it_is_drawn_where_it_is_asked_to(draw):
    figure, axes = plt.subplots(1, 2, figsize=(20, 6))
    assert draw(ax=axes[0]) is figure and axes[0].get_title(loc="left") and not axes[1].texts


def test_scores_are_sizes_times_norms_and_what_stays_is_dark():
    figure = scores()
    assert boxes(figure, WARM) == ["1", "2", "8", "3"]
    assert boxes(figure, DARK) == ["4", "4", "8", "3", "2", "3", "8", "9", "3", "2", "3", "6"]
    assert len(boxes(figure, PAPER)) == 12


def test_what_goes_is_dashed_in_all_matrices():
    figure = removed()
    assert "1 of 3 KV heads, 3 of 8 channels" in title(figure)
    gone = boxes(figure, PAPER)
    assert sorted(gone) == sorted(["3", "4", "5"] * 2 + ["1"] * 2 + ["2", "4", "7"] * 3)
    assert len(boxes(figure, PALE)) == 2 * 6 + 2 * 2 + 3 * 5
    assert set(words(figure)) >= {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_pruning_scores([], [], [], []),
        lambda: draw_pruning_scores([[1, 2]], [1], [[True, False]], [[True, False]]),
        lambda: draw_pruning_scores([[1, 2]], [1, 2], [[True]], [[True, False]]),
        lambda: draw_removed_structures([], [True], 1),
        lambda: draw_removed_structures([True], [True], 0),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw):
    with pytest.raises(CourseError):
        draw()
    assert not plt.get_fignums()
