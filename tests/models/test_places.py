"""Models by name, by path and by Hub id: what looks like a path is one, wherever a notebook runs."""

import os
import re
import shutil
from pathlib import Path

import pytest

from helpers import files, models
from helpers.errors import CourseError
from helpers.models import package, places


@pytest.mark.parametrize("name", places.MADE_BY)
def test_a_missing_model_says_how_to_make_it(folder, name):
    with pytest.raises(
        CourseError, match=f"data/models/{name} is not there: `{re.escape(places.MADE_BY[name])}` makes"
    ):
        models.load(name)


def test_the_base_comes_from_its_package(base, folder):
    assert models.folder_of("base") == str(base)
    shutil.copytree(base, folder / "base")
    assert models.folder_of("base") == str(base)  # and from nowhere else


def test_an_unknown_name_lists_the_known_ones(folder):
    for unknown in ("bas", "", "gpt2"):
        with pytest.raises(CourseError, match=f"There is no model {unknown}: take one of base, draft"):
            models.folder_of(unknown)


@pytest.mark.parametrize(
    "path", ["/nowhere", "./nowhere", "../nowhere", "~/nowhere", "a/b/c", "nowhere/", Path("no/where")]
)
def test_a_path_to_nothing_is_no_hub_id(path):
    with pytest.raises(CourseError, match=f"There is no folder {path}: "):
        models.folder_of(path)
    with pytest.raises(CourseError, match=f"There is no folder {path}: "):
        models.load(path)


def test_a_relative_path_counts_from_the_current_folder_and_then_from_the_repository(base, tmp_path, monkeypatch):
    repository, notebooks, home = (tmp_path / name for name in ("repository", "repository/notebooks", "home"))
    for place in (repository / "models" / "x", notebooks / "own", home / "mine"):
        shutil.copytree(base, place)
    monkeypatch.setattr(files, "ROOT", repository)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(notebooks)
    for path in ("models/x", "./models/x", "../models/x", Path("models/x"), f"{repository}/models/x"):
        assert models.folder_of(path) == str(repository / "models" / "x")
    assert models.folder_of("~/mine") == str(home / "mine")
    assert models.folder_of("own") == models.folder_of("./own/") == str(notebooks / "own")
    assert models.folder_of("owner/name") == "owner/name"
    shutil.copytree(base, notebooks / "models" / "x")
    assert models.folder_of("models/x") == str(notebooks / "models" / "x")
    monkeypatch.chdir(notebooks / "own")
    assert models.folder_of(".") == str(notebooks / "own") and models.load(".")[0].config.vocab_size > 100


def test_a_folder_without_a_model_hides_none_in_the_repository(base, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    shutil.copytree(base, repository / "models" / "x")
    (repository / "notebooks" / "models" / "x").mkdir(parents=True)
    monkeypatch.setattr(files, "ROOT", repository)
    monkeypatch.chdir(repository / "notebooks")
    assert models.folder_of("models/x") == str(repository / "models" / "x")
    with pytest.raises(CourseError, match="can't be read"):
        models.load(".")


def test_a_model_has_one_hash_however_it_is_named(made, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    base, draft = (shutil.copytree(made, repository / place) for place in ("build/models/base", "data/models/draft"))
    (repository / "notebooks").mkdir()
    monkeypatch.setattr(files, "ROOT", repository)
    monkeypatch.setattr(places, "FOLDER", repository / "data" / "models")
    monkeypatch.setattr(package, "package_folder", lambda: base)
    monkeypatch.chdir(repository / "notebooks")
    for name, place in (("base", base), ("draft", draft)):
        before = models.hash_of(name)
        assert models.hash_of(os.path.relpath(place)) == models.hash_of(place.relative_to(repository)) == before
        (place / "config.json").write_text("{}")
        assert models.hash_of(name) != before


def test_a_hash_changes_with_the_adapter_and_with_its_base(base, adapted):
    before = models.hash_of("tuned")
    file = base / "config.json"
    file.write_text(file.read_text() + " ")
    assert models.hash_of("tuned") != before


def test_a_helper_of_another_model_is_refused(folder, adapted):
    (folder / "tuned" / "card.json").write_text('{"target_hash": "of another"}')
    with pytest.raises(CourseError, match="tuned was made for another model than base"):
        models.check_made_for("tuned", "base")
    models.check_made_for("base", "tuned")  # it doesn't say whom it was made for


@pytest.mark.parametrize("ask", [models.load, models.tokenizer_of, models.config_at, models.check_is_model])
def test_the_course_s_heads_are_known_and_are_no_model(folder, ask):
    (folder / "medusa").mkdir()
    (folder / "medusa" / places.HEADS).touch()
    assert models.folder_of("medusa") == str(folder / "medusa") and list(models.shipped()) == ["medusa"]
    with pytest.raises(CourseError, match="medusa works beside a model and is none"):
        ask("medusa")
