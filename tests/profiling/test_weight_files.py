"""Reading weights from the disk is timed for folders and files."""

import pytest

from helpers.errors import CourseError
from helpers.profiling.weight_files import read_seconds


def test_weights_are_read_wherever_they_lie(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"a" * 2**22)
    (tmp_path / "config.json").write_text("{}")
    assert read_seconds(tmp_path) > 0 and read_seconds(tmp_path / "model.safetensors", repeats=1) > 0


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(CourseError, match="no weights in"):
        read_seconds(tmp_path)
