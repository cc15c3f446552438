"""Which files of `helpers` a piece of code runs, found through its imports, and one hash of them all."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path


def code_of(path: Path) -> str:
    """The text of a .py file, or the sources of a notebook's cells: outputs and metadata are not code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    return re.sub(r"^(\s*)[%!]", r"\1# \g<0>", "\n".join(sources), flags=re.MULTILINE)


def imported_names(code: str, package: str = "") -> set[str]:
    """Dotted names under `helpers` that the code imports, at its top or inside a function.

    `package` is the package of the code's module, which its relative imports start from.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
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


def reached_files(
    start: Iterable[Path],
    root: Path,
    names_in: Callable[[str, str], set[str]] = imported_names,
    follows: Callable[[Path], bool] = lambda path: True,
) -> list[Path]:
    """`start` and every file of `helpers` that it reaches, directly or not, where `follows(file)` is true.

    `names_in(code, package)` gives the modules that a file names. Where code can't be parsed, all of `helpers` counts.
    """
    todo, reached = list(start), set()
    while todo:
        path = todo.pop()
        if path in reached:
            continue
        reached.add(path)
        inside = path.parent.relative_to(root).parts if path.is_relative_to(root / "helpers") else ()
        try:
            names = names_in(code_of(path), ".".join(inside))
        except SyntaxError:
            return sorted({*reached, *(root / "helpers").rglob("*.py")})
        files = {file for name in names for file in module_files(name, root)}
        todo += [file for file in files if follows(file)]
    return sorted(reached)


def hash_of_files(paths: Iterable[Path], root: Path) -> str:
    """A short hash of the files' code and places; the same on every machine and in every folder."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(root).as_posix()}\0{code_of(path)}\0".encode())
    return digest.hexdigest()[:16]
