"""The base model's folder appears whole or not at all, once, whoever asks for it and whatever is killed."""

import json
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from importlib import metadata

import pytest

from helpers.errors import CourseError
from helpers.models import package


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A folder to convert into, with a conversion that takes no time and notes in a log that it ran."""

    def convert(source, folder):
        (folder / "config.json").write_text("{}")
        with (tmp_path / "log").open("a") as log:
            log.write("converted\n")
        time.sleep(0.3)
        (folder / "card.json").write_text(json.dumps({"made_by": package._stamp()}))

    monkeypatch.setattr(package, "_convert", convert)
    monkeypatch.setattr(package, "gguf_file", lambda: tmp_path / "model.gguf")
    return tmp_path / "models" / "base"


def conversions(folder):
    return (folder.parents[1] / "log").read_text().count("converted")


def run(*functions, folder):
    """Call each in a process of its own, all at once; the exit codes."""
    fork = multiprocessing.get_context("fork")  # they inherit what the test has put in place
    processes = [fork.Process(target=function, args=(folder,)) for function in functions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def killed(folder):
    """Convert, and be killed when half of it is written."""

    def half(source, folder):
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    package._convert = half  # in the forked process alone
    package.package_folder(folder)


def test_a_folder_is_made_once_with_one_line(quick, capsys):
    assert package.package_folder(quick) == package.package_folder(quick) == quick
    assert conversions(quick) == 1
    assert capsys.readouterr().out.count("\n") == 1


def test_a_killed_conversion_leaves_no_folder(quick):
    assert run(killed, folder=quick) == [-signal.SIGKILL]
    assert not quick.exists()
    assert package.package_folder(quick) == quick and conversions(quick) == 1
    assert sorted(path.name for path in quick.parent.iterdir()) == [".base.lock", "base"]


def test_a_conversion_in_place_would_leave_half_a_folder(quick, monkeypatch):
    def in_place(folder, source):
        folder.mkdir(exist_ok=True)
        package._convert(source, folder)

    monkeypatch.setattr(package, "_replace", in_place)
    run(killed, folder=quick)
    assert quick.exists() and not package._is_current(quick)  # the card, which is written last, saves it even then


def test_two_processes_convert_once(quick):
    assert run(package.package_folder, package.package_folder, folder=quick) == [0, 0]
    assert conversions(quick) == 1


def test_two_processes_without_the_lock_are_seen(quick, monkeypatch):
    quick.parent.mkdir()
    monkeypatch.setattr(package, "_one_at_a_time", nullcontext)
    codes = run(package.package_folder, package.package_folder, folder=quick)
    assert codes != [0, 0] or conversions(quick) == 2


@pytest.mark.parametrize("changed", ["package", "transformers", "code"])
def test_a_folder_of_an_older_package_or_code_is_made_anew(quick, monkeypatch, changed):
    package.package_folder(quick)
    stamp = package._stamp()
    monkeypatch.setattr(package, "_stamp", lambda: stamp | {changed: "another"})
    package.package_folder(quick)
    assert conversions(quick) == 2


def test_without_package_and_folder_the_remedy_is_named(tmp_path, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(package.metadata, "distribution", missing)
    with pytest.raises(CourseError, match="`make setup` installs its package, and MODEL_ID=HuggingFaceTB/"):
        package.package_folder(tmp_path / "base")
    assert not any(tmp_path.iterdir())


def test_a_whole_folder_serves_without_the_package(quick, monkeypatch):
    package.package_folder(quick)
    versions = package.version_of
    monkeypatch.setattr(package, "version_of", lambda name: None if name == package.PACKAGE else versions(name))
    assert package.package_folder(quick) == quick and conversions(quick) == 1


def test_a_damaged_file_is_one_sentence_and_leaves_nothing(quick, monkeypatch):
    def fails(source, folder):
        raise ValueError("bad magic\nand more")

    monkeypatch.setattr(package, "_convert", fails)
    with pytest.raises(CourseError, match=r"\(bad magic\): make room for 0\.3 GB there, or .*FORCE=1`\.$"):
        package.package_folder(quick)
    assert [path.name for path in quick.parent.iterdir()] == [".base.lock"]
