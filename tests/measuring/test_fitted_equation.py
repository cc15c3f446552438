"""The equation is fitted in the form that fits better, kept whole, and read back the same."""

import math
from dataclasses import replace

import pytest

from helpers.errors import CourseError
from helpers.measuring.cost_model import Measured, Shape, StepTime
from helpers.measuring.fitted_equation import fit_better_form, load_equation, save_equation

SHAPES = {name: Shape(n, n * 10**7, n * 4 * 10**7, 1000 * n) for name, n in (("a", 4), ("b", 9), ("c", 20))}
SHAPES["d"] = Shape(30, 5 * 10**7, 2 * 10**8, 3000)


def points_of(equation):
    return [
        Measured(name, shape, "float32", n, 128, equation(shape, "float32", n, 128))
        for name, shape in SHAPES.items()
        for n in (1, 4, 32, 64)
    ]


@pytest.mark.parametrize("form", ["sum", "max"])
def test_it_finds_the_form_and_predicts_what_it_never_saw(form):
    equation = StepTime(form, 2e-4, {"float32": 2e10}, {"float32": 3e11})
    fitted = fit_better_form(points_of(equation), "c")
    assert fitted.equation.form == form and fitted.num_points == 16
    assert fitted.error < 1e-6 and fitted.r2 > 0.999999


def test_a_held_out_shape_that_behaves_otherwise_is_seen():
    equation = StepTime("sum", 2e-4, {"float32": 2e10}, {"float32": 3e11})
    points = points_of(equation)
    slow = [replace(p, seconds=2 * p.seconds) for p in points if p.name == "c"]
    fitted = fit_better_form([p for p in points if p.name != "c"] + slow, "c")
    assert fitted.error == pytest.approx(0.5) and fitted.equation.overhead == pytest.approx(2e-4)
    with pytest.raises(CourseError, match="hold out e"):
        fit_better_form(points, "e")


def test_it_comes_back_as_it_was_written(tmp_path):
    equation = StepTime("max", 2e-4, {"float32": 2e10}, {"float32": 3e11})
    fitted = fit_better_form(points_of(equation), "c")
    infinite = StepTime("sum", 1e-4, {"float32": 2e10}, {"float32": math.inf})
    for one in (fitted.equation, infinite):
        written = type(fitted)(one, "c", 0.1, 0.99, 16)
        save_equation("smoke", written, tmp_path)
        assert load_equation("smoke", tmp_path) == written


def test_what_is_missing_or_damaged_says_how_to_make_it(tmp_path):
    with pytest.raises(CourseError, match="--profile cpu --only 00"):
        load_equation("cpu", tmp_path)
    (tmp_path / "cpu").mkdir()
    for text in ("{", "{}", '{"equation": 3}'):
        (tmp_path / "cpu" / "equation.json").write_text(text)
        with pytest.raises(CourseError, match="damaged"):
            load_equation("cpu", tmp_path)
