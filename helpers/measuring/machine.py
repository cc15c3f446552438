"""The machine in front of the learner: what it is, and whether it is calm enough to measure.

`describe_machine()` is the record that stands in every result; `course.check` makes the report of it. Nothing heavy
is imported: torch is asked only where there may be a GPU.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3

FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "amx_fp16",
    "asimddp",
    "asimdhp",
    "i8mm",
    "bf16",
)

NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}

NATIVE_FP16 = {"avx512_fp16", "amx_fp16", "asimdhp"}


@dataclass(frozen=True)
class Machine:
    """What a machine is, as it stands in the results; `cores` are those that this process may use."""

    cpu: str
    cores: int
    physical_cores: int
    flags: tuple[str, ...]
    memory_gib: float
    accelerator: str | None
    accelerator_gib: float | None

    @property
    def bf16_is_native(self) -> bool:
        """Whether the CPU multiplies bfloat16 itself; elsewhere it widens to float32 first."""
        return bool(NATIVE_BF16 & set(self.flags))

    @property
    def fp16_is_native(self) -> bool:
        """Whether the CPU multiplies float16 itself."""
        return bool(NATIVE_FP16 & set(self.flags))


@dataclass(frozen=True)
class Calm:
    """How busy other processes keep the machine, in cores; `verdict` says it in a sentence."""

    busy_cores: float
    load: float
    calm: bool
    verdict: str


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _sysctl(name: str) -> str:
    """One value of macOS's system table; empty where there is none."""
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10).stdout.strip()
    except OSError:
        return ""


def _cpuinfo(text: str, *keys: str) -> str:
    """The first value of a key in the text of /proc/cpuinfo."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""


def _cpu() -> tuple[str, tuple[str, ...]]:
    """The CPU's name, and those of its flags that matter here, as the system reports them (a guest may see fewer)."""
    if sys.platform == "darwin":
        features = {"bf16": "FEAT_BF16", "i8mm": "FEAT_I8MM", "asimddp": "FEAT_DotProd", "asimdhp": "FEAT_FP16"}
        flags = [flag for flag, name in features.items() if _sysctl(f"hw.optional.arm.{name}") == "1"]
        return _sysctl("machdep.cpu.brand_string") or platform.machine(), tuple(flags)
    text = _read("/proc/cpuinfo")
    present = set(_cpuinfo(text, "flags", "Features").split())
    name = _cpuinfo(text, "model name", "Model") or platform.processor() or platform.machine()
    return name, tuple(flag for flag in FLAGS if flag in present)


def _cgroup_values(controller: str, new: str, old: str) -> list[str]:
    """A limit of this process's control group and of those above it; `new` is the file of version 2, `old` of 1."""
    values = []
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, file = (Path("/sys/fs/cgroup", controllers), old) if controllers else (Path("/sys/fs/cgroup"), new)
        folder = root / group.lstrip("/")
        places = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
        values += [_read(str(place / file)).strip() for place in places]
    return [value for value in values if value]


def _usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for value in _cgroup_values("cpu", "cpu.max", "cpu.cfs_quota_us"):
        parts = value.split()  # version 1 gives the quota alone, and its period is 100,000 unless somebody changed it
        if parts[0] not in ("max", "-1"):
            cores = min(cores, max(1, int(parts[0]) // int(parts[1] if len(parts) > 1 else 100_000)))
    return cores


def _memory_gib() -> float:
    """Memory that this process may use: the machine's, or a container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    values = _cgroup_values("memory", "memory.max", "memory.limit_in_bytes")
    limits = [int(value) for value in values if value.isdigit()]
    return min([total, *limits]) / GIB


def available_gib() -> float:
    """Memory that is free now, the caches that would make room included."""
    import psutil

    return min(psutil.virtual_memory().available / GIB, _memory_gib())


def _accelerator() -> tuple[str | None, float | None]:
    """Name and memory in GiB of the CUDA device; torch, slow to import, is asked only where there may be one."""
    if not (Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()):
        return None, None
    import torch

    if not torch.cuda.is_available():
        return None, None
    device = torch.cuda.get_device_properties(0)
    return device.name, round(device.total_memory / GIB, 1)


def describe_machine() -> Machine:
    """What this machine is."""
    import psutil

    cpu, flags = _cpu()
    cores = _usable_cores()
    physical = psutil.cpu_count(logical=False) or cores
    return Machine(cpu, cores, physical, flags, round(_memory_gib(), 1), *_accelerator())


def is_calm(seconds: float = 0.5) -> Calm:
    """Watch for `seconds` how busy everybody else is. Stolen time counts: a neighbour disturbs as a process does."""
    import psutil

    def reading() -> tuple[float, float, float]:
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        guest = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user already
        return time.perf_counter(), sum(times) - guest - idle, own.user + own.system

    before = reading()
    time.sleep(seconds)
    after = reading()
    elapsed, busy, own = (b - a for a, b in zip(before, after, strict=True))
    return _verdict(max(0.0, (busy - own) / elapsed), os.getloadavg()[0], os.cpu_count() or 1)


def _verdict(busy_cores: float, load: float, cores: int) -> Calm:
    """The reading with its verdict: a tenth of the cores, or a fifth of one, is what an idle desktop takes."""
    calm = busy_cores <= max(0.2, 0.1 * cores)
    words = f"other processes keep {busy_cores:.1f} of {cores} cores busy (load {load:.1f})"
    verdict = f"calm enough to measure: {words}" if calm else f"too busy to measure well: {words}"
    return Calm(busy_cores, load, calm, verdict)


def version_of(package: str) -> str | None:
    """A package's version by its metadata, without importing it; None where it isn't installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
