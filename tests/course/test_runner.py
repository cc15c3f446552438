"""The runner: refuses bad input, names the cell that failed, goes on with the rest, resumes, reports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from helpers import files
from helpers.course import report
from helpers.course.kernel import Watch, cell_seconds, describe_failure
from helpers.course.runner import Notebook, Run, State, find_notebooks, parse_parameters, run
from helpers.errors import CourseError

PARAMETERS = 'PROFILE: str = "cpu"  # how much\nN: int = 3  # how many'


def make(path: Path, *code: str, parameters: str = PARAMETERS) -> Path:
    """A notebook of code cells under a heading, the first tagged parameters."""
    cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}")]
    cells += [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(text) for text in code]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


@pytest.fixture
def course(tmp_path):
    """Two notebooks in a folder with a space, the first of which fails when N is 3."""
    root = tmp_path / "a course"
    make(root / "notebooks" / "00_first.ipynb", "x = N", "# the cell at fault\n\nassert x != 3, 'three is\\ntoo many'")
    make(
        root / "notebooks" / "01_second.ipynb",
        "import os, sys, helpers.errors\nprint(PROFILE, N, os.environ['HF_HUB_OFFLINE'], sys.executable)",
        parameters=PARAMETERS + "\nSEED: int = 0  # of everything",
    )
    return root


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"profile": "fast"}, "smoke, cpu, full, gpu"),
        ({"only": ["07"]}, "00, 01"),
        ({"parameters": {"SEEDS": 1}}, "PROFILE, N, SEED"),
        ({"parameters": {"N": "many"}}, "type int"),
        ({"parameters": {"N": True}}, "type int"),
        ({"only": ["00"], "parameters": {"SEED": 1}}, "PROFILE, N"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(course, tmp_path, asked, words):
    printed = []
    with pytest.raises(CourseError, match=words) as refused:
        run(root=course, output_root=tmp_path / "build", say=printed.append, **asked)
    assert "\n" not in str(refused.value)
    assert not printed and not (tmp_path / "build").exists()


def test_no_notebooks_says_what_to_do(tmp_path):
    with pytest.raises(CourseError, match="make notebooks"):
        find_notebooks(tmp_path)


def test_order_is_the_course_then_the_extras(course):
    make(course / "notebooks" / "extras" / "00_deeper.ipynb")
    assert [notebook.name for notebook in find_notebooks(course)] == ["00_first", "01_second", "00_deeper"]
    assert [notebook.name for notebook in find_notebooks(course, ["01_second"])] == ["01_second"]
    assert [notebook.name for notebook in find_notebooks(course, ["00"])] == ["00_first", "00_deeper"]


def test_parameters_of_the_command_line():
    parameters = parse_parameters(["N=3", "MODEL_ID=data/models/base", "RATE=1e-3", "ON=True", "EMPTY=", "EQ=a=b"])
    assert parameters == {"N": 3, "MODEL_ID": "data/models/base", "RATE": 1e-3, "ON": True, "EMPTY": "", "EQ": "a=b"}
    with pytest.raises(CourseError, match="SEED=3"):
        parse_parameters(["SEED"])


def test_estimates_come_from_the_last_run_then_the_committed_notebook_then_the_budget(course, tmp_path):
    this = Run("cpu", course, tmp_path, State(tmp_path / "run-cpu.json"), print)
    first, second = find_notebooks(course)
    for notebook, minutes in ((first, 12), (second, 5)):
        header = f"# ---\n# jupyter:\n#   course:\n#     minutes: {minutes}\n#     headline: so fast\n# ---\n"
        files.write_whole(course / "notebooks" / "source" / f"{notebook.name}.py", header)
    assert (this.minutes(first), this.minutes(second)) == (12, 5)
    notebook = nbformat.read(first.path, as_version=4)
    notebook.metadata["course"] = {"profile": "cpu", "seconds": 120}
    nbformat.write(notebook, first.path)
    assert this.minutes(first) == 2
    this.state.note("00_first", status="ok", minutes=3.5)
    this.state.note("00_first", status="running")
    assert State(tmp_path / "run-cpu.json").notebooks["00_first"]["minutes"] == 3.5
    assert this.minutes(first) == 3.5 and this.budget(first) == 12


@pytest.mark.parametrize(("profile", "minutes"), [("smoke", 1.5), ("full", 10.0)])
def test_other_profiles_have_one_budget_for_all_or_none(course, tmp_path, profile, minutes):
    this = Run(profile, course, tmp_path, State(tmp_path / "run.json"), print)
    assert {this.minutes(notebook) for notebook in find_notebooks(course)} == {minutes}
    assert this.budget(find_notebooks(course)[0]) == (minutes if profile == "smoke" else None)


def test_damaged_state_is_no_state(tmp_path):
    (tmp_path / "run.json").write_text('{"notebooks": {"00')
    assert State(tmp_path / "run.json").notebooks == {}


def test_a_dead_kernel_and_a_timeout_are_said_in_words():
    watch = Watch("00_x", 0.0, 1.0, number=4, source="\n\nwhile True:\n    pass")
    for name, words in (("CellTimeoutError", "longer than"), ("DeadKernelError", "memory")):
        failure = describe_failure(type(name, (Exception,), {})("a page\nof text"), watch)
        assert failure["cell"] == "in cell 4" and failure["line"] == "while True:" and words in failure["error"]


@pytest.mark.papermill
def test_a_failure_is_named_the_rest_runs_and_resume_skips_what_is_done(course, tmp_path, monkeypatch):
    out, printed = tmp_path / "build", []
    monkeypatch.chdir(tmp_path)  # from any folder
    reports = []
    write = report.write_report
    monkeypatch.setattr(report, "write_report", lambda *a: reports.append(write(*a).read_text()))

    assert run("smoke", root=course, output_root=out, say=printed.append) == 1
    state = json.loads((out / "run-smoke.json").read_text())["notebooks"]
    failure = state["00_first"]["failure"]
    assert failure["cell"] == "in cell 4 (In [4])" and failure["line"] == "# the cell at fault"
    assert failure["error"] == "too many"
    assert any("FAILED in cell 4" in line for line in printed)
    assert state["01_second"]["status"] == "ok" and state["01_second"]["cells"]
    executed = nbformat.read(out / "notebooks" / "smoke" / "01_second.ipynb", as_version=4)
    shown = "".join(output.text for cell in executed.cells for output in cell.get("outputs", []))
    assert shown.strip().split(" ", 3) == ["smoke", "3", "1", sys.executable]  # a path may hold spaces
    assert len(reports) == 2 and "00_first" in reports[0] and "01_second" not in reports[0]  # there after the first
    assert "too many" in reports[1] and (out / "report" / "smoke-01_second.html").exists()

    copy = out / "notebooks" / "smoke" / "01_second.ipynb"
    before, printed[:] = copy.stat().st_mtime_ns, []
    assert run("smoke", ["01"], True, None, out, course, printed.append) == 0
    assert copy.stat().st_mtime_ns == before and "Already done: 01_second." in printed
    assert run("smoke", None, True, {"N": 4}, out, course, printed.append) == 0  # another parameter: both run anew
    assert copy.stat().st_mtime_ns != before
    assert cell_seconds(copy) and "failure" not in State(out / "run-smoke.json").notebooks["00_first"]
    assert os.environ.get("COURSE_BUILD") is None


@pytest.mark.papermill
def test_a_polite_kill_keeps_what_finished_and_ends_the_kernel(course, tmp_path):
    pid_file = tmp_path / "pid"
    note_pid = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    make(course / "notebooks" / "02_long.ipynb", note_pid, "time.sleep(60)")
    code = "import sys, pathlib as p; from helpers.course.runner import run; r, o = map(p.Path, sys.argv[1:]);"
    code += "sys.exit(run('smoke', ['01', '02'], output_root=o, root=r))"
    command = [sys.executable, "-c", code, str(course), str(tmp_path / "build")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(files.ROOT), os.environ.get("PYTHONPATH", "")])}
    runner = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    _until(pid_file.exists, 60)
    time.sleep(0.5)
    runner.send_signal(signal.SIGTERM)
    printed, _ = runner.communicate(timeout=30)
    assert runner.returncode == 130 and "--resume goes on from here" in printed
    state = json.loads((tmp_path / "build" / "run-smoke.json").read_text())["notebooks"]
    assert (state["01_second"]["status"], state["02_long"]["status"]) == ("ok", "interrupted")
    _until(lambda: not _alive(int(pid_file.read_text())), 15)


def _until(happened, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_notebook_of_the_course_has_a_number_of_its_own():
    folder = files.ROOT / "notebooks"
    numbers = [Notebook(path).number for path in folder.glob("[0-9]*.ipynb")]
    assert len(numbers) == len(set(numbers))
