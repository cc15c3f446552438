"""The report that `python -m helpers check` prints."""

import subprocess
import sys
from dataclasses import replace

import pytest

from helpers.course import check
from helpers.kernels import torch_compile
from helpers.measuring import machine
from helpers.measuring.machine import Machine

LAPTOP = Machine("A CPU", 4, 4, ("avx2",), 16.0, None, None)
CALM = machine._verdict(0.05, 0.3, 4)


def printed(**changes) -> str:
    return check.format_report(check.check_report(machine=replace(LAPTOP, **changes), calm=CALM))


def test_nothing_heavy_is_imported():
    code = "import sys, helpers.course.check; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_report_has_a_remedy_wherever_something_is_missing():
    for line in check.check_report(machine=LAPTOP, calm=CALM):
        assert line.status in ("ok", "missing", "note")
        assert line.status != "missing" or line.remedy
        assert not line.fatal


def test_what_is_left_out_or_simulated_is_named():
    text = printed()
    for words in ("gpu profile is left out", "gloo", "SageMaker is simulated", "[ok]"):
        assert words in text
    assert "GPU: H200, 140 GiB" in printed(accelerator="H200", accelerator_gib=139.8)


def test_without_vllm_the_course_runs(monkeypatch):
    have = machine.version_of
    monkeypatch.setattr(check, "version_of", lambda name: None if "vllm" in name else have(name))
    report = check.check_report(machine=LAPTOP, calm=CALM)
    assert check.can_run(report)
    (line,) = (line for line in report if line.text == "vLLM")
    assert line.status == "missing" and "left out" in line.remedy


@pytest.mark.parametrize("absent", ["transformers", "psutil"])
def test_a_missing_package_stops_the_course(monkeypatch, absent):
    have = machine.version_of
    monkeypatch.setattr(check, "version_of", lambda name: None if name == absent else have(name))
    report = check.check_report()
    assert not check.can_run(report)
    assert absent in check.format_report(report)


@pytest.mark.parametrize(("reported", "enough"), [(6.0, False), (7.3, False), (7.6, True), (8.0, True)])
def test_a_machine_of_8_gib_is_enough_and_a_smaller_one_stops_the_course(reported, enough):
    """It reports a little less: the system keeps some for itself."""
    report = check.check_report(machine=replace(LAPTOP, memory_gib=reported), calm=CALM)
    assert check.can_run(report) == enough
    assert ("the course needs 8 GiB or more" in check.format_report(report)) != enough


def test_a_full_memory_is_named(monkeypatch):
    monkeypatch.setattr(check, "available_gib", lambda: 5.0)
    assert "close other programs before the large notebooks" in printed()
    monkeypatch.setattr(check, "available_gib", lambda: 7.0)
    assert "close other programs before the large notebooks" not in printed()


def test_a_wrong_python_stops_the_course(monkeypatch):
    monkeypatch.setattr(check.sys, "version_info", (3, 9, 0))
    assert not check.can_run(check.check_report(machine=LAPTOP, calm=CALM))


def test_a_missing_compiler_and_a_full_disk_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(check.shutil, "which", lambda name: None)
    monkeypatch.setattr(check.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 29}))
    report = check.check_report(tmp_path, LAPTOP, CALM)
    text = check.format_report(report)
    assert (
        "torch.compile - it is left out: there is no C++ compiler" in text
        and "make room" in text
        and check.can_run(report)
    )


def test_torch_compile_is_left_out_where_the_cells_leave_it_out(monkeypatch):
    monkeypatch.setattr(torch_compile, "why_not", lambda: "its cache can't lie there: set TMPDIR to another")
    text = printed()
    assert "[missing] torch.compile - it is left out: its cache can't lie there: set TMPDIR to another" in text


def test_a_native_bfloat16_and_a_busy_machine_are_named():
    assert "bfloat16 is native" in printed(flags=("avx512_bf16",)) and "is native" not in printed(flags=("avx2",))
    report = check.check_report(machine=LAPTOP, calm=machine._verdict(1.9, 2.0, 2))
    assert report[-1].status == "note" and report[-1].remedy and check.can_run(report)
