"""A result knows the code and the models that it was made from."""

import pytest

from helpers import files
from helpers.course.notebooks import source_files
from helpers.notebook import provenance
from helpers.notebook.results import stale


def _course(root):
    """A small course: the notebook reaches a and b (through a), not c."""
    texts = {
        "notebooks/source/00_x.py": "# %%\nfrom helpers.deep import a\n# show: helpers.shown:f\n# %pip list\n",
        "helpers/__init__.py": "",
        "helpers/deep/__init__.py": "",
        "helpers/deep/a.py": "from .b import thing\n",
        "helpers/deep/b.py": "thing = 1\n",
        "helpers/shown.py": "def f(): pass\n",
        "helpers/unseen.py": "",
        "data/model/weights": "1",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("changed", "old"),
    [
        ("helpers/deep/b.py", ["code"]),
        ("helpers/shown.py", ["code"]),
        ("helpers/deep/__init__.py", ["code"]),
        ("notebooks/source/00_x.py", ["code"]),
        ("helpers/unseen.py", []),
        ("data/model/weights", ["model"]),
    ],
)
def test_results_go_stale_with_the_code_that_they_reach_and_the_model(tmp_path, changed, old):
    _course(tmp_path)
    document = {
        "notebook": "00_x",
        "models": ["data/model"],
        "code_hash": provenance.code_hash("00_x", tmp_path),
        "model_hash": files.model_hash(["data/model"], tmp_path),
    }
    assert stale(document, tmp_path) == []
    with (tmp_path / changed).open("a") as file:
        file.write("x = 2\n")
    assert stale(document, tmp_path) == old


def test_results_know_the_code_of_every_notebook():
    for source in source_files():
        assert source in provenance.code_files(source.stem)
