"""What a piece of code reaches: every way to write an import, and nothing that is only spelled out in a text."""

import pytest

from helpers.source_code import hash_of_files, imported_names, reached_files


@pytest.mark.parametrize(
    ("code", "package", "names"),
    [
        ("import helpers.files", "", {"helpers.files"}),
        ("import os, helpers.models.loading as l", "", {"helpers.models.loading"}),
        ("from helpers import models, files", "", {"helpers.models", "helpers.files"}),
        ("def f():\n    from helpers.training import script", "", {"helpers.training.script"}),
        ("from . import script", "helpers.training", {"helpers.training.script"}),
        ("from ..models.loading import load", "helpers.training", {"helpers.models.loading.load"}),
        ('MADE_BY = "python -m helpers.training.fine_tune_llm"', "", set()),
        ("from torch import nn", "", set()),
    ],
)
def test_imports_are_found_however_they_are_written(code, package, names):
    assert imported_names(code, package) == names


def test_the_hash_follows_what_is_reached_and_nothing_else(tmp_path):
    for name, code in {
        "helpers/start.py": "from helpers.deep import one",
        "helpers/deep/__init__.py": "",
        "helpers/deep/one.py": "import helpers.two",
        "helpers/two.py": "'helpers.unseen'",
        "helpers/unseen.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)

    def reached():
        return reached_files([tmp_path / "helpers/start.py"], tmp_path)

    names = [path.relative_to(tmp_path / "helpers").as_posix() for path in reached()]
    assert names == ["deep/__init__.py", "deep/one.py", "start.py", "two.py"]
    before = hash_of_files(reached(), tmp_path)
    (tmp_path / "helpers/unseen.py").write_text("x = 1")
    assert hash_of_files(reached(), tmp_path) == before
    (tmp_path / "helpers/two.py").write_text("x = 1")
    assert hash_of_files(reached(), tmp_path) != before
