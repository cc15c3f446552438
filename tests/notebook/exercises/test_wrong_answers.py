"""Every exercise: the reference passes, wrong answers are told what is wrong, the stub goes on, a line is named."""

import inspect
import pkgutil
import re
from importlib import import_module

import pytest

from helpers import files
from helpers.course.notebooks import source_files
from helpers.notebook import provenance
from helpers.notebook.exercises import EXERCISES, check
from helpers.notebook.exercises.compare import difference
from tests.notebook.exercises import wrong

WRONG = {
    exercise_id: answers
    for module in pkgutil.iter_modules(wrong.__path__)
    for exercise_id, answers in import_module(f"{wrong.__name__}.{module.name}").WRONG.items()
}
MISTAKES = [
    pytest.param(exercise_id, *answer, id=f"{exercise_id}-{n}-{answer[0].__name__}")
    for exercise_id, answers in sorted(WRONG.items())
    for n, answer in enumerate(answers, 1)
]
each = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))


def used_in(source):
    return re.findall(r'check\("(\d\d[a-z]?\.\d)"', source.read_text(encoding="utf-8"))


def test_the_notebooks_use_every_exercise_once_and_no_other():
    assert sorted(exercise_id for source in source_files() for exercise_id in used_in(source)) == sorted(EXERCISES)
    for source in source_files():
        assert {exercise_id.split(".")[0] for exercise_id in used_in(source)} <= {source.stem.split("_")[0]}


def test_every_exercise_has_three_wrong_answers_each_told_in_its_own_words():
    assert set(WRONG) == set(EXERCISES)
    for answers in WRONG.values():
        assert len({says for _, says in answers}) == len(answers) >= 3


@pytest.mark.parametrize(("exercise_id", "mistake", "says"), MISTAKES)
def test_a_wrong_answer_is_told_what_is_wrong(capsys, exercise_id, mistake, says):
    assert check(exercise_id, mistake) is EXERCISES[exercise_id].function()
    output = capsys.readouterr().out
    assert output.startswith("Not yet: ") and says in output and output.endswith(" Going on with the reference.\n")


@each
def test_the_reference_is_right(capsys, exercise):
    assert check(exercise.id, exercise.function()) is exercise.function()
    assert capsys.readouterr().out == f"Right, in all {len(exercise.cases())} cases.\n"


@each
def test_the_stub_goes_on(capsys, exercise):
    assert check(exercise.id, lambda *given: None) is exercise.function()
    assert capsys.readouterr().out == "not attempted - going on with the reference (it returns None)\n"


@each
def test_an_exception_is_told_with_its_line(capsys, exercise):
    def broken(*given):
        return given[len(given)]

    assert check(exercise.id, broken) is exercise.function()
    line, output = inspect.getsourcelines(broken)[1] + 1, capsys.readouterr().out
    assert f"IndexError: tuple index out of range, at line {line}: `return given[len(given)]`" in output


@each
def test_it_is_well_made(exercise):
    cases = exercise.cases()
    assert len(cases) >= 2 and difference(exercise.cases(), cases, 0) is None
    assert 1 <= len(exercise.hints) <= 3 and len(exercise.case_names) in (0, len(cases))
    assert f"def {exercise.function().__name__}(" in exercise.source()


@each
def test_a_result_goes_stale_with_the_reference_but_not_with_the_wording_of_a_verdict(exercise):
    notebook = next(source.stem for source in source_files() if exercise.id in used_in(source))
    code = provenance.code_files(notebook)
    assert files.ROOT.joinpath(*exercise.reference.split(":")[0].split(".")).with_suffix(".py") in code
    assert not any("exercises" in path.relative_to(files.ROOT).parts for path in code)
