"""What check, hint and solution print, and that the notebook goes on with the right function."""

import functools
import linecache
import operator

import pytest
import torch

from helpers import files
from helpers.errors import CourseError
from helpers.measuring.cost_model import balance_tokens, least_milliseconds
from helpers.notebook import exercises
from helpers.notebook.exercises import check, hint, solution
from helpers.notebook.exercises.exercise import Exercise
from helpers.notebook.source import source_of

GOES_ON = "Going on with the reference.\n"
STUB = "not attempted - going on with the reference"


@pytest.fixture(autouse=True)
def no_hints_given(monkeypatch):
    monkeypatch.setattr(exercises, "_hints_given", {})


@pytest.fixture
def exercise(monkeypatch):
    """Registers an exercise of the test's own as 99.1."""

    def register(reference, *cases, **more):
        made = Exercise("99.1", reference, lambda: list(cases), ("Think.",), **more)
        monkeypatch.setitem(exercises.EXERCISES, "99.1", made)

    return register


def test_a_right_answer_is_kept(capsys):
    def mine(size, bandwidth):
        print("looking at", size)
        return 1000 * size / bandwidth

    assert check("00.2", mine) is mine
    output = capsys.readouterr().out
    assert output.startswith("looking at 40000000.0\n") and output.endswith("\nRight, in all 3 cases.\n")


def test_a_wrong_answer_is_told_with_its_case(capsys):
    assert check("00.2", lambda size, bandwidth: size / bandwidth) is least_milliseconds
    assert capsys.readouterr().out == (
        "Not yet: in case 1 (weight_bytes=4e+07, bandwidth=2e+10), it is 0.002, it should be 2 (yours is 0.001 times "
        f"that). {GOES_ON}"
    )


def test_long_arguments_are_told_by_the_name_of_the_case_or_not_at_all(capsys, exercise):
    exercise("builtins:sum", ([1],), ([1] * 99,), case_names=("one number", "many numbers"))
    assert check("99.1", lambda numbers: 1) is sum
    assert "in case 2 (many numbers), it is 1, it should be 99" in capsys.readouterr().out
    for long in (list(range(99)), torch.zeros(2, 2)):
        exercise("builtins:len", (long,))
        check("99.1", lambda obj: 0)
        assert "in case 1, it is 0" in capsys.readouterr().out


def not_implemented(size, bandwidth):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [lambda size, bandwidth: None, lambda size, bandwidth: ..., not_implemented])
def test_a_stub_goes_on_with_the_reference(capsys, stub):
    assert check("00.2", stub) is least_milliseconds
    assert capsys.readouterr().out.startswith(STUB)


def longest(words):
    return max(words, key=len, default=None)


def test_none_is_no_stub_where_it_is_right(capsys, exercise):
    exercise(f"{__name__}:longest", ([],), (["a", "bc"],))
    check("99.1", lambda words: max(words, key=len, default=None))
    check("99.1", lambda words: None)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "Right, in all 2 cases." and "in case 2 (words=['a', 'bc']), it is None" in wrong


def test_a_part_that_is_missing_only_later_is_no_stub(capsys, exercise):
    exercise("helpers.measuring.cost_model:balance_tokens", (4, 2e10, 1e11), (2, 3e12, 9e14), (0.5, 2e10, 1e11))

    def mine(bytes_per_weight, bandwidth, rate):
        if bytes_per_weight < 1:
            raise NotImplementedError("packed weights")
        return balance_tokens(bytes_per_weight, bandwidth, rate) if bytes_per_weight > 2 else None

    assert check("99.1", mine) is balance_tokens
    assert "in case 2 (bytes_per_weight=2, bandwidth=3e+12, rate=9e+14), it is None" in capsys.readouterr().out
    check("99.1", lambda *given: balance_tokens(*given) if given[0] > 2 else mine(0, *given[1:]))
    assert "in case 2 (" in (output := capsys.readouterr().out) and "NotImplementedError: packed weights" in output


def test_an_exception_names_the_line_of_the_learner_s_own_code(capsys):
    @torch.inference_mode()
    def broken(size, bandwidth):
        sizes = torch.tensor([size])
        return sizes.reshape(7, 7)

    assert check("00.2", broken) is least_milliseconds
    output, line = capsys.readouterr().out, broken.__wrapped__.__code__.co_firstlineno + 3
    assert "it raised RuntimeError: shape '[7, 7]' is invalid" in output
    assert f", at line {line}: `return sizes.reshape(7, 7)`. {GOES_ON}" in output


def test_an_exception_in_a_helper_of_the_learner_s_names_the_helper_s_line(capsys):
    def helper(size):
        return size[0]

    check("00.2", lambda size, bandwidth: helper(size))
    assert f"at line {helper.__code__.co_firstlineno + 1}: `return size[0]`" in capsys.readouterr().out


@pytest.mark.parametrize("kept", [True, False])
def test_an_exception_in_a_cell_names_the_cell_s_line(capsys, monkeypatch, kept):
    cell, file = "x = 1\ndef mine(size, bandwidth):\n    return nothing + 1\n", "/tmp/ipykernel_1/2.py"
    if kept:  # as IPython keeps the text of its cells
        monkeypatch.setitem(linecache.cache, file, (len(cell), None, cell.splitlines(keepends=True), file))
    names = {}
    exec(compile(cell, file, "exec"), names)
    assert check("00.2", names["mine"]) is least_milliseconds
    line = "at line 3: `return nothing + 1`. " if kept else "at line 3. "
    assert f"NameError: name 'nothing' is not defined, {line}{GOES_ON}" in capsys.readouterr().out


def test_an_exception_without_words_or_lines_is_told_too(capsys):
    def silent(size, bandwidth):
        raise ValueError

    check("00.2", silent)
    assert "it raised ValueError, at line" in capsys.readouterr().out
    check("00.2", functools.partial(operator.getitem))
    assert f"it raised TypeError: 'float' object is not subscriptable. {GOES_ON}" in capsys.readouterr().out


def test_a_function_that_takes_other_arguments_is_told_which_it_should_take(capsys):
    assert check("00.2", lambda size: 1.0) is least_milliseconds
    assert capsys.readouterr().out == (f"Not yet: it takes (size), it should take (weight_bytes, bandwidth). {GOES_ON}")


@pytest.mark.parametrize(("value", "says"), [(2.0, "This is a number"), (None, "This is None"), ([], "This is a list")])
def test_what_is_no_function_is_refused(capsys, value, says):
    assert check("00.2", value) is least_milliseconds
    output = capsys.readouterr().out
    assert output.startswith(says) and 'write check("00.2", your_function), with no brackets' in output


def test_an_interrupt_passes():
    def endless(size, bandwidth):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("00.2", endless)


def sorted_copy(values):
    return sorted(values)


def sorted_there(values):
    values.sort()
    return values


def test_who_changes_the_arguments_spoils_nothing_and_is_told(capsys, exercise):
    cases = ([3, 1, 2],), ([2, 1],)
    exercise(f"{__name__}:sorted_copy", *cases)
    assert check("99.1", sorted_there) is sorted_there
    assert capsys.readouterr().out.startswith("Right, in all 2 cases. But it changes what it is given")
    assert cases == (([3, 1, 2],), ([2, 1],))
    exercise(f"{__name__}:sorted_there", *cases)  # here it is what is asked for
    assert check("99.1", sorted_there) is sorted_there
    assert capsys.readouterr().out == "Right, in all 2 cases.\n"


def test_a_tolerance_of_its_own(capsys, exercise):
    exercise("helpers.measuring.cost_model:least_milliseconds", (1.0, 1.0), tolerance=0.2)
    check("99.1", lambda *_: 1100.0)
    assert "Right" in capsys.readouterr().out


def test_hints_come_one_after_the_other(capsys):
    output = []
    for _ in range(3):
        hint("00.2")
        output.append(capsys.readouterr().out)
    assert output[0].startswith("hint 1 of 2: ") and output[1].startswith("hint 2 of 2: ") and output[2] == output[0]
    assert output[1].endswith('solution("00.2") shows the course\'s own.\n') and "solution" not in output[0]
    hint("00.1")
    assert capsys.readouterr().out.startswith("hint 1 of 3: ")


def test_a_solution_is_the_tested_source(capsys):
    solution("00.2")
    source = source_of("helpers.measuring.cost_model", "least_milliseconds", files.ROOT)
    assert capsys.readouterr().out == f"# helpers/measuring/cost_model.py\n{source}\n"


@pytest.mark.parametrize("use", [lambda e: check(e, len), hint, solution])
def test_an_unknown_exercise_names_those_that_are_there(use):
    for unknown in ("00.9", len):
        with pytest.raises(CourseError, match=r"take one of 00\.1, 00\.2, 00b\.1, "):
            use(unknown)
