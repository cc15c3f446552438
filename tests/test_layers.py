"""A module knows what is to its left and nothing to its right: the way through the package (DESIGN)."""

import ast

import pytest

from helpers.hashes import ROOT

WAY = ["text_to_sql", "models", "weights", "decoding", "training", "engine", "parallel", "serving", "cloud"]
FREE = {  # take callables, numbers and records, and know no technique
    "errors", "estimate", "hashes", "machine", "machine_report", "measure", "plots", "quality", "results",
    "results_schema",
}  # fmt: skip
FRONT = {
    "__init__", "__main__", "ask", "execution", "exercises", "hygiene", "lesson", "notebooks", "pictures", "race",
    "readme", "report", "runner",
}  # fmt: skip
MODULES = sorted((ROOT / "helpers").rglob("*.py"))


def place(dotted):
    """Where a module stands on the way; what is free is left of all, what is in front right of all."""
    part = dotted.split(".")[1] if "." in dotted else "__init__"
    return -1 if part in FREE else len(WAY) if part in FRONT else WAY.index(part)


def imports(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            yield from (f"{node.module}.{a.name}" if node.module == "helpers" else node.module for a in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "helpers")


def to_the_right(dotted, text):
    return [other for other in imports(text) if place(other) > place(dotted)]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_module_knows_what_is_to_its_right(path):
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    assert not to_the_right(dotted, path.read_text(encoding="utf-8"))


def test_a_step_to_the_right_is_caught():
    assert to_the_right("helpers.text_to_sql.prompts", "from helpers.decoding.generate import steps")
    assert to_the_right("helpers.measure", "from helpers import models")
    assert to_the_right("helpers.measure", "from helpers.exercises.compare import difference")
    assert not to_the_right("helpers.training.pretrain", "from helpers import models")
    assert not to_the_right("helpers.exercises.start_here", "from helpers.decoding.generate import Step")
