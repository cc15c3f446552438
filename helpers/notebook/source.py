"""Source code as a notebook shows it: of a Python function, or some lines of another file."""

import ast
import textwrap
from pathlib import Path

from helpers import files
from helpers.errors import CourseError


def source_of(module: str, name: str, root: Path = files.ROOT) -> str:
    """The source of a function, class or method, read without importing it; CourseError where it isn't there."""
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    node: ast.AST | None = ast.parse(text)
    for part in name.split("."):
        named = (child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part)
        node = next((child for child in named if hasattr(child, "body")), None)
        if node is None:
            raise CourseError(f"Can't show {module}:{name}: there is no such function; correct the `# show:` line.")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def lines_of(path: Path, first: str, last: str) -> str:
    """The lines of a file from the one that holds `first` to the next one that holds `last`; CourseError where there
    are no such lines."""
    lines = path.read_text(encoding="utf-8").splitlines()
    begin = next((place for place, line in enumerate(lines) if first in line), len(lines))
    end = next((place for place in range(begin, len(lines)) if last in lines[place]), None)
    if end is None:
        raise CourseError(f"Can't show {path.name} from {first!r} to {last!r}: name lines that it has.")
    return "\n".join(lines[begin : end + 1])
