"""The equation finds what it was made from, and is as wrong as the data are."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.measuring.cost_model import Measured, Shape, StepTime, balance_tokens, errors, fit, r2
from tests.tiny_models import tiny

SHAPES = {n: Shape(layers, int(p), int(4 * p), 1000) for n, layers, p in (("s", 4, 1e7), ("m", 8, 5e7), ("l", 12, 3e8))}


def measured(truth, noise=0.0, seed=0):
    """Steps as long as `truth` says, with relative noise."""
    rng, points = np.random.default_rng(seed), []
    for name, dtype, num_tokens in product(SHAPES, truth.bandwidth, (1, 4, 8, 16, 32)):
        size = 4 if dtype == "float32" else 2
        shape = dataclasses.replace(SHAPES[name], weight_bytes=size * SHAPES[name].parameters)
        seconds = truth(shape, dtype, num_tokens, 128) * rng.normal(1, noise)
        points.append(Measured(name, shape, dtype, num_tokens, 128, seconds))
    return points


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["sum", "max"]), st.floats(1e-4, 3e-3), st.floats(5e9, 5e10), st.floats(2e11, 1e12))
def test_the_fit_finds_the_constants_that_made_the_points(form, overhead, bandwidth, rate):
    truth = StepTime(
        form, overhead, {"float32": bandwidth, "bfloat16": bandwidth * 0.8}, {"float32": rate / 4, "bfloat16": rate}
    )
    points = measured(truth)
    equation = fit(points, form)
    assert max(map(abs, errors(equation, points))) < 0.05 and r2(equation, points) > 0.999
    if form == "sum":  # under the maximum a term that is never the larger one can't be known
        assert equation.overhead == pytest.approx(overhead, rel=1e-3)
        assert equation.bandwidth["float32"] == pytest.approx(bandwidth, rel=1e-3)
        assert equation.rate["bfloat16"] == pytest.approx(rate, rel=1e-3)


def test_the_right_form_fits_better():
    truth = StepTime("max", 5e-4, {"float32": 2e10}, {"float32": 1.5e11})
    points = measured(truth, noise=0.02)
    worst = {form: max(map(abs, errors(fit(points, form), points))) for form in ("sum", "max")}
    assert worst["max"] < worst["sum"]


def test_a_shape_left_out_is_predicted():
    truth = StepTime("sum", 5e-4, {"float32": 2e10}, {"float32": 1.5e11})
    points = measured(truth, noise=0.02)
    equation = fit([p for p in points if p.name != "m"])
    held_out = [p for p in points if p.name == "m"]
    assert max(map(abs, errors(equation, held_out))) < 0.1


def test_a_wrong_term_shows():
    truth = StepTime("sum", 5e-4, {"float32": 2e10}, {"float32": 1.5e11})
    points = measured(truth)
    mistaken = [dataclasses.replace(p, num_tokens=33 - p.num_tokens) for p in points]  # the mistake: counted backwards
    assert max(map(abs, errors(fit(mistaken), mistaken))) > 0.1


def test_terms_add_up_and_answers_need_steps():
    equation = StepTime("sum", 1e-3, {"float32": 1e10}, {"float32": 1e11})
    shape = SHAPES["s"]
    terms = equation.terms(shape, "float32", num_tokens=4, context=100)
    assert sum(terms.values()) == pytest.approx(equation(shape, "float32", 4, 100))
    assert terms["weights"] == pytest.approx(4e-3) and terms["arithmetic"] == pytest.approx(8e-4)
    slow = equation.answer(shape, "float32", prompt=60, tokens=41)
    fast = equation.answer(shape, "float32", prompt=60, tokens=41, tokens_per_step=2)
    assert slow - fast == pytest.approx(20 * equation(shape, "float32", 1, 80), rel=1e-6)


def test_the_shape_of_a_model_leaves_out_a_table_that_is_only_looked_up():
    llama, qwen = tiny("llama"), tiny("qwen2")
    every = sum(p.numel() for p in qwen.parameters())
    assert Shape.of(qwen).parameters == every - 97 * 64
    assert Shape.of(tiny("falcon")).kv_bytes_per_token == 2 * 2 * 1 * 16 * 8  # one head for all
    assert Shape.of(llama).kv_bytes_per_token == 2 * 2 * 2 * 16 * 8
    assert Shape.of(llama).weight_bytes == 8 * Shape.of(llama).parameters


def test_bad_input_is_refused():
    with pytest.raises(CourseError, match="no form"):
        fit(measured(StepTime("sum", 1e-3, {"a": 1e10}, {"a": 1e11})), "mean")
    with pytest.raises(CourseError, match="unknowns"):
        fit([], "sum")
    truth = StepTime("sum", 1e-3, {"a": 1e10}, {"a": 1e11})
    with pytest.raises(CourseError, match="can't be told apart"):
        fit([p for p in measured(truth) * 2 if p.num_tokens == 1])


def test_the_balance_is_where_both_take_the_same_time():
    num_tokens = balance_tokens(2, 3e12, 990e12)
    assert num_tokens * 2 / 990e12 == 2 / 3e12
