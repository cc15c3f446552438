"""What a result was made from: the hash of a notebook's code, and the hash of its models.

A notebook's code is its source and the modules of `helpers` that it reaches through imports, directly or not: a result
goes stale when one of those changes, and a change to a module that it never sees costs nobody an hour of running again.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from helpers.files import ROOT

# What makes and shows the course can't change what is measured; of what cells call, only these can.
SHOWN = ("course", "notebook", "__main__")
MEASURED = ("notebook.lesson", "notebook.profiles", "notebook.ask")


def notebook_file(name: str, root: Path = ROOT) -> Path | None:
    """What people edit (notebooks/source/**/NAME.py), or the notebook itself where there is no source, or None."""
    for pattern in (f"source/**/{name}.py", f"{name}.ipynb", f"extras/{name}.ipynb"):
        for path in sorted((root / "notebooks").glob(pattern)):
            return path
    return None


def code_of(path: Path) -> str:
    """The text of a .py file, or the sources of a notebook's cells: outputs and metadata are not code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    return re.sub(r"^(\s*)[%!]", r"\1# \g<0>", "\n".join(sources), flags=re.MULTILINE)


def imported_names(code: str, package: str = "") -> set[str]:
    """Dotted names under `helpers` that the code imports or spells out (`python -m helpers.training.pretrain`)."""
    names = set(re.findall(r"\bhelpers(?:\.\w+)*", code))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "helpers"}


def module_files(name: str, root: Path) -> Iterable[Path]:
    """Files that importing `helpers.a.b` runs: each package's __init__ on the way, and the module."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        folder = root.joinpath(*parts[:end])
        yield from (path for path in (folder / "__init__.py", folder.with_suffix(".py")) if path.is_file())


def _measured(path: Path, root: Path) -> bool:
    """Whether a file of `helpers` can change what a notebook measures."""
    dotted = ".".join(path.relative_to(root / "helpers").with_suffix("").parts)
    return dotted in MEASURED or dotted.split(".")[0] not in SHOWN


def code_files(name: str, root: Path = ROOT) -> list[Path]:
    """The notebook's source and every module of `helpers` that it reaches (all, where code can't be parsed)."""
    start = notebook_file(name, root)
    todo, found = [start] if start else [], set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        inside = path.parent.relative_to(root).parts if path.is_relative_to(root / "helpers") else ()
        try:
            names = imported_names(code_of(path), ".".join(inside))
        except SyntaxError:
            return sorted({*found, *(root / "helpers").rglob("*.py")})
        reached = {file for dotted in names for file in module_files(dotted, root)}
        todo += [file for file in reached if _measured(file, root)]
    return sorted(found)


def code_hash(name: str, root: Path = ROOT) -> str:
    """A short hash of the notebook's code; the same on every machine and in every folder."""
    digest = hashlib.sha256()
    for path in code_files(name, root):
        digest.update(f"{path.relative_to(root).as_posix()}\0{code_of(path)}\0".encode())
    return digest.hexdigest()[:16]
