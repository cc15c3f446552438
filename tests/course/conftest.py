import pytest

from helpers.course.notebooks import build_notebooks, refresh_outputs
from tests.course.small_course import SOURCE, THING, execute


@pytest.fixture
def root(tmp_path):
    """A course of one notebook that shows one method."""
    for name, text in {"notebooks/source/00_x.py": SOURCE, "helpers/thing.py": THING}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    build_notebooks(tmp_path)
    return tmp_path


@pytest.fixture
def finished(root):
    """The course, executed, its outputs taken over; returns the notebook's path."""
    execute(root)
    return refresh_outputs("cpu", out=root / "build", root=root)[0]
