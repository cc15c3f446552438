"""What notebook 00c prints and writes of ways to compute a step follows from what was measured."""

import matplotlib.pyplot as plt
import pytest
from torch import nn

from helpers.errors import CourseError
from helpers.kernels.fastest_step import ways
from helpers.kernels.native.library import PRODUCTS, why_not
from helpers.notebook.kernel_parts import draw_shares, named, note_gains, show_same_bits, show_ways
from helpers.notebook.source import lines_of
from helpers.profiling.same_bits import ALL_AT_ONCE, AS_GUESSES, Differences
from tests.notebook.test_start import steps_of
from tests.tiny_models import tiny

NOTEBOOK = "00c_kernels"

plt.switch_backend("Agg")
SAME, OTHER = Differences(0, 97, 0.0), Differences(5, 97, 0.25)


def by_way(*milliseconds, dtype="float32"):
    names = ("transformers", "packed", "fused", "native")
    return {name: steps_of(name, {1: ms, 8: 2 * ms}, dtype) for name, ms in zip(names, milliseconds)}


@pytest.mark.parametrize(("of_native", "holds", "count"), [(SAME, True, 4), (OTHER, False, 2)])
def test_the_same_bits_are_an_invariant_of_the_step_in_cpp(results, capsys, of_native, holds, count):
    library = {ALL_AT_ONCE: [OTHER, SAME], AS_GUESSES: [OTHER, OTHER]}
    show_same_bits(results, {"transformers": library, "native": {ALL_AT_ONCE: [SAME] * 2, AS_GUESSES: [of_native] * 2}})
    assert results.invariants == {"kernels.same_bits": {"holds": holds, "count": count, "of": 4}}
    out = capsys.readouterr().out
    assert "transformers: 1 of 4 readings have the same bits" in out and f"in C++: {count} of 4 readings" in out
    assert "5 of 194" in out and "10 of 194" in out and "0.25" in out and max(map(len, out.splitlines())) <= 92


def test_without_a_step_in_cpp_there_is_no_such_invariant(results):
    show_same_bits(results, {"transformers": {ALL_AT_ONCE: [OTHER]}})
    assert not results.invariants


def test_each_way_and_the_fastest_have_their_gains(results, capsys):
    assert note_gains(results, by_way(60, 40, 30, 10, dtype="bfloat16")).ratio == pytest.approx(6)
    gains = {key: row["value"] for key, row in results.metrics.items()}
    assert gains == pytest.approx(
        {
            "kernels.step_speedup.packed.bf16": 1.5,
            "kernels.step_speedup.fused.bf16": 2,
            "kernels.step_speedup.native.bf16": 6,
            "kernels.step_speedup.fastest.bf16": 6,
        }
    )
    assert "in C++" in capsys.readouterr().out
    assert note_gains(results, by_way(60, 40, 30)).ratio == results.metrics["kernels.step_speedup.fused"]["value"]


def test_what_is_missing_to_the_bandwidth_is_said_only_where_something_is(capsys):
    weights = by_way(1)["transformers"].shape.weight_bytes
    draw_shares({"float32": by_way(60, 40, 30, 20)}, weights / 0.019)
    assert "The best is in C++, float32: 95% of the bandwidth. Now only fewer bytes" in capsys.readouterr().out
    draw_shares({"float32": by_way(60, 40, 30), "bfloat16": by_way(60, 40, 28, dtype="bfloat16")}, weights / 0.01)
    assert "36% of the bandwidth. In the rest of the time memory waits." in " ".join(capsys.readouterr().out.split())
    plt.close("all")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_where_there_is_no_step_in_cpp_the_reason_is_printed(capsys):
    arms = ways(tiny().float(), turns=0)
    show_ways(arms)
    assert named(arms).keys() == {"transformers", "packed", "fused, in PyTorch", "in C++"}
    assert capsys.readouterr().out == "ways to compute a step here: transformers; packed; fused, in PyTorch; in C++\n"
    show_ways(ways(tiny(), turns=0))  # float64
    assert "The step in C++ can't be had: it is written for a CPU, in float32 and" in capsys.readouterr().out


def test_the_inner_loop_fits_a_cell():
    shown = lines_of(PRODUCTS, "void add_up(", "// add_up").splitlines()
    assert len(shown) <= 20 and max(map(len, shown)) <= 88 and "__builtin_prefetch(" in "\n".join(shown)
    assert sum("multiply_add" in line for line in shown) == 2
    for first, last in (("no such line", "use("), ("void add_up(", "no such line")):
        with pytest.raises(CourseError, match=r"Can't show products\.h from"):
            lines_of(PRODUCTS, first, last)


def test_a_label_is_for_ways_alone():
    assert named({"packed": nn.Identity, "native": nn.Linear}) == {"packed": nn.Identity, "in C++": nn.Linear}
