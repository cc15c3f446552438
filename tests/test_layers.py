"""A folder knows what stands before it here and nothing after it; a file's room follows from its folder (DESIGN)."""

import ast

import pytest

from helpers.files import ROOT

FOLDERS = [
    "measuring",
    "text_to_sql",
    "models",
    "weights",
    "decoding",
    "speculation",
    "kernels",
    "profiling",
    "training",
    "engine",
    "parallel",
    "serving",
    "cloud",
    "notebook",
    "course",
]
FIRST, LAST = {"errors", "files", "source_code"}, {"__init__", "__main__", "recipes"}
MODULES = sorted((ROOT / "helpers").rglob("*.py"))


def place(dotted):
    """Where a module stands: those of FIRST come before every folder, the package's own two files after them all."""
    part = dotted.split(".")[1] if "." in dotted else "__init__"
    return -1 if part in FIRST else len(FOLDERS) if part in LAST else FOLDERS.index(part)


def imports(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            yield from (f"{node.module}.{a.name}" if node.module == "helpers" else node.module for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "helpers")


def upwards(dotted, text):
    return [other for other in imports(text) if place(other) > place(dotted)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_knows_a_later_folder(path):
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert not upwards(dotted, path.read_text(encoding="utf-8"))


def test_an_import_from_a_later_folder_is_caught():
    assert upwards("helpers.text_to_sql.prompts", "from helpers.decoding.generate import steps")
    assert upwards("helpers.measuring.timing", "from helpers import models")
    assert upwards("helpers.training.launch", "from helpers.notebook.results import Results")
    assert not upwards("helpers.training.fine_tune_llm", "from helpers import models")
    assert not upwards("helpers.notebook.exercises.start_here", "from helpers.decoding.completion import Step")
