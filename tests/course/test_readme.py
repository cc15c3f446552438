"""The README's table says what the notebooks and the reference results say."""

import json
import shutil

import pytest

from helpers import files
from helpers.course import readme
from helpers.course.notebooks import notebook_files, source_files
from helpers.errors import CourseError


def test_the_table_is_up_to_date():
    assert readme.table() in (files.ROOT / "README.md").read_text(encoding="utf-8")


def test_every_notebook_has_a_headline_and_a_result():
    for path in notebook_files():
        if path.parent.name != "extras":
            assert readme.headline(path.stem)


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "notebooks").mkdir()
    shutil.copy(notebook_files()[0], tmp_path / "notebooks")
    (tmp_path / "notebooks" / "source").mkdir()
    shutil.copy(source_files()[0], tmp_path / "notebooks" / "source")
    (tmp_path / "README.md").write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    shutil.copytree(files.ROOT / "data" / "reference_results", tmp_path / "data" / "reference_results")
    return tmp_path


def test_a_changed_result_changes_the_table(copy):
    assert readme.refresh(copy) and not readme.refresh(copy)
    text = (copy / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "start here" in text
    for path in (copy / "data" / "reference_results").glob("*/*/00_*.json"):
        document = json.loads(path.read_text())
        document["metrics"]["start.decode_vs_hf_generate"] |= {"value": 77.0, "low": 76.0, "high": 78.0}
        path.write_text(json.dumps(document))
    assert readme.refresh(copy) and "77.00 times" in (copy / "README.md").read_text()


def test_a_headline_of_a_number_that_is_not_there_is_refused(copy):
    source = copy / "notebooks" / "source" / "00_start_here.py"
    source.write_text(source.read_text().replace("{start.decode_vs_hf_generate:", "{start.decode_against_all:"))
    with pytest.raises(CourseError, match=r"00_start_here have no start\.decode_against_all: correct the headline"):
        readme.table(copy)
