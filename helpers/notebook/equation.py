"""The fitted equation, shown, recorded, and read by later notebooks (fitted_equation.py keeps it)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt

from helpers.errors import CourseError
from helpers.measuring import probes
from helpers.measuring.cost_model import Measured, StepTime
from helpers.measuring.fitted_equation import Fitted, load_equation, save_equation
from helpers.models import dtype_of
from helpers.notebook import plots
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results


def show_fit(fitted: Fitted, bandwidth: float, rates: Mapping[str, float]) -> None:
    """The form, the constants beside what was probed (bytes and operations per second), and how far off it is."""
    equation = fitted.equation
    ways = {"sum": "reading and computing add up", "max": "reading and computing overlap, so the larger one counts"}
    print(f"On this machine {ways[equation.form]} (form {equation.form!r}).")
    print(f"overhead: {equation.overhead * 1e6:.0f} µs a layer")
    for dtype, rate in rates.items():
        print(f"{dtype + ':':10}{_beside('reads', equation.bandwidth[dtype], bandwidth, 'GB/s')},", end=" ")
        print(_beside("computes", equation.rate[dtype], rate, "GFLOP/s"))
    print(f"{fitted.held_out} was left out of the fit: there the equation is at most {fitted.error:.0%} off.", end=" ")
    print("That is good enough to plan with." if fitted.error < 0.2 else "Take its predictions as rough.")
    print(f"R2 over all {fitted.num_points} steps: {fitted.r2:.3f} (1 would be perfect).")


def _beside(verb: str, fitted: float, probed: float, unit: str) -> str:
    if math.isinf(fitted):
        return f"{verb} too fast to be seen in these steps"
    return f"{verb} {fitted / 1e9:.0f} {unit} in steps ({fitted / probed:.0%} of the probe's)"


def record_equation(results: Results, fitted: Fitted) -> None:
    """Keep the equation for all later notebooks (build/results/<profile>/equation.json), and write its metrics."""
    save_equation(results.profile, fitted, results.folder)
    results.metric("start.equation_error", fitted.error, "share")
    results.metric("start.equation_r2", fitted.r2, "R2", n=fitted.num_points)
    results.metric("start.equation.overhead_us", fitted.equation.overhead * 1e6, "µs a layer")
    for name, unit in (("bandwidth", "GB/s"), ("rate", "GFLOP/s")):
        for dtype, value in getattr(fitted.equation, name).items():
            if math.isfinite(value):
                results.metric(f"start.equation.{name}.{dtype}", value / 1e9, unit)


def draw_fit(fitted: Fitted, points: Sequence[Measured], num_tokens: Sequence[int] = (1, 32)) -> None:
    """Measured and predicted step times over the bytes of weights, a panel for each number of tokens."""
    _, axes = plt.subplots(1, len(num_tokens), figsize=(10, 3.8))
    for ax, n in zip(axes, num_tokens):
        groups = {}
        for dtype in fitted.equation.bandwidth:
            here = [p for p in points if p.dtype == dtype and p.num_tokens == n]
            groups[dtype] = [(p.shape.weight_bytes / 1e6, p.seconds * 1e3) for p in here]
            predicted = [fitted.equation(p.shape, p.dtype, n, p.context) * 1e3 for p in here]
            groups[f"the equation, {dtype}"] = [(x, y) for (x, _), y in zip(groups[dtype], predicted)]
        plots.step_time_vs_bytes(groups, title=f"A step of {n} token{'s' * (n > 1)}", ax=ax)
        for place, drawn in enumerate(ax.lines):  # predictions are hollow, in their dtype's own marker
            dtype = place // 2
            drawn.set(color=plots.COLORS[dtype], marker=plots.MARKERS[dtype], markersize=6 + 5 * (place % 2))
            drawn.set_markerfacecolor("none" if place % 2 else plots.COLORS[dtype])
        ax.legend(fontsize=9)


def equation_here(lesson: Lesson) -> StepTime:
    """The equation that notebook 00 fitted on this machine under this profile. Where it has not run, a rough one from
    two probes; a sentence says which."""
    try:
        fitted = load_equation(lesson.profile, lesson.results.folder)
    except CourseError as reason:
        print(f"{reason} Until then: bandwidth and rate as probed, and no overhead. The predictions are floors.")
        dtypes, bandwidth = ("float32", "bfloat16"), probes.bandwidth(device=lesson.device)
        rates = {dtype: probes.matmul_rate(dtype_of(dtype), device=lesson.device) for dtype in dtypes}
        return StepTime("sum", 0.0, dict.fromkeys(dtypes, bandwidth), rates)
    print(f"The equation is the one that notebook 00 fitted here (form {fitted.equation.form!r},", end=" ")
    print(f"R2 {fitted.r2:.3f}, at most {fitted.error:.0%} off on a shape that it had not seen).")
    return fitted.equation
