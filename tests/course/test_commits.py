"""The commit of reference results is noted when they are kept, and named truly."""

import json
import subprocess

import pytest

from helpers.course.commits import COMMITS, commits_of, current_commit, note_commits


def git(root, *arguments):
    options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *options, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "a.py").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first", "--no-verify")
    return tmp_path


def test_a_commit_with_changed_code_is_marked(repository):
    clean = current_commit(repository)
    assert len(clean) == 10
    (repository / "README.md").write_text("no code")
    assert current_commit(repository) == clean
    (repository / "helpers" / "a.py").write_text("2")
    assert current_commit(repository) == f"{clean}+"


def test_without_a_repository_nothing_is_claimed(tmp_path):
    assert current_commit(tmp_path) is None


def kept(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.json").write_text("{}")


def test_only_results_of_this_code_get_this_commit(repository, tmp_path):
    folder = tmp_path / "results"
    kept(folder, "00_a", "01_b")
    note_commits(folder / COMMITS, {"00_a": True, "01_b": False}, repository)
    first = current_commit(repository)
    assert json.loads((folder / COMMITS).read_text()) == {"00_a": first, "01_b": None}
    assert commits_of(folder) == f"commit {first} (00), a commit that was not noted (01)"
    git(repository, "commit", "-q", "-m", "second", "--allow-empty", "--no-verify")
    second = current_commit(repository)
    note_commits(folder / COMMITS, {"01_b": True}, repository)  # the other's stays: it was not measured anew
    assert commits_of(folder) == f"commit {first} (00), commit {second} (01)"


def test_one_commit_is_named_once(tmp_path):
    folder = tmp_path / "full"
    kept(folder, "00_a", "01_b")
    assert commits_of(folder) == "a commit that was not noted"
    (folder / COMMITS).write_text(json.dumps({"00_a": "abc", "01_b": "abc"}))
    assert commits_of(folder) == "commit abc"
    (folder / COMMITS).write_text(json.dumps({"00_a": "abc+", "01_b": "abc+"}))
    assert commits_of(folder) == "commit abc with changes that were not committed"
