"""The record of the machine, and the report that `python -m helpers check` prints."""

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from helpers.course import check as machine_check
from helpers.measuring import machine
from helpers.measuring.machine import Machine

LAPTOP = Machine("A CPU", 4, 4, ("avx2",), 16.0, None, None)
CALM = machine._verdict(0.05, 0.3, 4)


def _lines(**changes) -> str:
    return machine_check.format_report(machine_check.check_report(machine=replace(LAPTOP, **changes), calm=CALM))


def test_this_machine_is_described():
    here = machine.describe_machine()
    assert here.cpu and here.cores >= 1 and here.memory_gib > 0.5
    assert json.loads(json.dumps(asdict(here)))["cores"] == here.cores


def test_nothing_heavy_is_imported():
    code = "import sys, helpers.course.check; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "flags, native",
    [(("avx2",), False), (("avx512f",), False), (("avx512_bf16",), True), (("amx_bf16",), True), (("bf16",), True)],
)
def test_bf16_is_read_from_the_flags(flags, native):
    here = replace(LAPTOP, flags=flags)
    assert here.bf16_is_native is native
    assert ("bfloat16 is native" in _lines(flags=flags)) is native


def test_cpuinfo_is_read_by_whole_keys():
    text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2\nvmx flags\t: x\n"
    assert machine._cpuinfo(text, "model name") == "A CPU"
    assert machine._cpuinfo(text, "flags", "Features") == "fpu avx2"
    assert machine._cpuinfo(text, "Hardware") == ""


def _with_files(monkeypatch, files: dict[str, str]) -> None:
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))


def test_a_containers_limits_count(monkeypatch):
    groups = {"/proc/self/cgroup": "0::/pod/box\n", "/sys/fs/cgroup/pod/memory.max": "3221225472\n"}
    _with_files(
        monkeypatch, groups | {"/sys/fs/cgroup/pod/box/memory.max": "max\n", "/sys/fs/cgroup/cpu.max": "100000 100000"}
    )
    assert machine._memory_gib() == pytest.approx(min(3.0, machine._memory_gib()))
    assert machine._memory_gib() <= 3.0
    assert machine._usable_cores() == 1


def test_the_older_control_groups_count(monkeypatch):
    files = {"/proc/self/cgroup": "4:memory:/box\n1:cpu:/box\n0::/\n"}
    files["/sys/fs/cgroup/memory/box/memory.limit_in_bytes"] = "2147483648"
    files["/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us"] = "-1"
    _with_files(monkeypatch, files)
    assert machine._memory_gib() <= 2.0
    assert machine._usable_cores() >= 1


def test_no_control_group_is_no_limit(monkeypatch):
    _with_files(monkeypatch, {})
    assert machine._memory_gib() > 0.5 and machine._usable_cores() >= 1


def test_a_busy_machine_is_told():
    assert CALM.calm and "calm enough" in CALM.verdict
    busy = machine._verdict(1.9, 2.0, 2)
    assert not busy.calm and "too busy" in busy.verdict
    report = machine_check.check_report(machine=LAPTOP, calm=busy)
    assert report[-1].status == "note" and machine_check.can_run(report)


def test_another_process_is_seen_and_this_one_is_not(monkeypatch):
    """The reading leaves this process out: with its own share planted as nobody's, a busy loop here would be told."""
    import threading

    stop = threading.Event()
    loop = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)], daemon=True)
    loop.start()
    alone = machine.is_calm(0.3).busy_cores
    import psutil

    own = psutil.Process().cpu_times()
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda self: own)
    with_own = machine.is_calm(0.3).busy_cores
    stop.set()
    loop.join()
    assert with_own > alone or with_own > 0.3


def test_the_report_has_a_remedy_wherever_something_is_missing():
    for check in machine_check.check_report(machine=LAPTOP, calm=CALM):
        assert check.status in ("ok", "missing", "note")
        assert check.status != "missing" or check.remedy
        assert not check.fatal


def test_what_is_left_out_or_simulated_is_told():
    told = _lines()
    for words in ("gpu profile is left out", "gloo", "SageMaker is simulated", "[ok]"):
        assert words in told
    assert "GPU: H200, 140 GiB" in _lines(accelerator="H200", accelerator_gib=139.8)


def test_without_vllm_the_course_runs(monkeypatch):
    have = machine.version_of
    monkeypatch.setattr(machine_check, "version_of", lambda name: None if "vllm" in name else have(name))
    report = machine_check.check_report(machine=LAPTOP, calm=CALM)
    assert machine_check.can_run(report)
    (check,) = (check for check in report if check.text == "vLLM")
    assert check.status == "missing" and "left out" in check.remedy


@pytest.mark.parametrize("absent", ["transformers", "psutil"])
def test_a_missing_package_stops_the_course(monkeypatch, absent):
    have = machine.version_of
    monkeypatch.setattr(machine_check, "version_of", lambda name: None if name == absent else have(name))
    report = machine_check.check_report()
    assert not machine_check.can_run(report)
    assert absent in machine_check.format_report(report)


def test_too_little_memory_and_a_wrong_python_stop_the_course(monkeypatch):
    assert not machine_check.can_run(machine_check.check_report(machine=replace(LAPTOP, memory_gib=4.0), calm=CALM))
    monkeypatch.setattr(machine_check.sys, "version_info", (3, 9, 0))
    assert not machine_check.can_run(machine_check.check_report(machine=LAPTOP, calm=CALM))


def test_a_missing_compiler_and_a_full_disk_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_check.shutil, "which", lambda name: None)
    monkeypatch.setattr(machine_check.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 29}))
    report = machine_check.check_report(tmp_path, LAPTOP, CALM)
    told = machine_check.format_report(report)
    assert "torch.compile is left out" in told and "make room" in told and machine_check.can_run(report)
