"""The record of the machine, and whether it is calm."""

import json
from dataclasses import asdict

import pytest

from helpers.measuring import machine
from helpers.measuring.machine import Machine


def test_this_machine_is_described():
    here = machine.describe_machine()
    assert here.cpu and here.cores >= 1 and here.memory_gib > 0.5
    assert json.loads(json.dumps(asdict(here)))["cores"] == here.cores


@pytest.mark.parametrize(
    "flags, native",
    [(("avx2",), False), (("avx512f",), False), (("avx512_bf16",), True), (("amx_bf16",), True), (("bf16",), True)],
)
def test_bf16_is_read_from_the_flags(flags, native):
    assert Machine("A CPU", 4, 4, flags, 16.0, None, None).bf16_is_native is native


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


def test_a_busy_machine_is_not_calm():
    calm, busy = machine._verdict(0.05, 0.3, 4), machine._verdict(1.9, 2.0, 2)
    assert calm.calm and "calm enough" in calm.verdict
    assert not busy.calm and "too busy" in busy.verdict


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
