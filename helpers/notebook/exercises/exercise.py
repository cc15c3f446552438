"""What an exercise is: a reference in the package, cases to compare on, and hints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter

from helpers.notebook.source import source_of


@dataclass(frozen=True)
class Exercise:
    """An exercise of a notebook, `id` being "00.1" for the first one of notebook 00, "00b.1" for its extra.

    `reference` names the course's own function, "helpers.module:function"; it is imported only when it is called.
    `cases` makes a list of argument tuples, the same ones each time; `case_names` say what is special about each, where
    the arguments are too long to be shown. `hints` are 1 to 3, each giving away more. `tolerance` is relative, in a
    tensor to its largest value; 0 means exactly.
    """

    id: str
    reference: str
    cases: Callable[[], Sequence[tuple]]
    hints: tuple[str, ...]
    tolerance: float = 1e-6
    case_names: tuple[str, ...] = ()

    def function(self) -> Callable:
        """The reference itself."""
        module, name = self.reference.split(":")
        return attrgetter(name)(import_module(module))

    def source(self) -> str:
        """The reference's source, under a comment that says where it lives."""
        module, name = self.reference.split(":")
        return f"# {module.replace('.', '/')}.py\n{source_of(module, name)}"
