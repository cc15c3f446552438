"""Whether torch.compile works on this machine, and what it needs where it would not by itself (notebook 08).

It writes C++ and calls the compiler with one line of text. The folders of headers are quoted in that line, those of
libraries and of its own cache are not, so that they must not hold a space or a quote. Nothing heavy is imported before
`prepare`: `python -m helpers check` asks here, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile

from helpers.errors import CourseError


def compiler() -> str | None:
    """The command of the C++ compiler that torch.compile calls, $CXX or the system's; None where there is none."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return name if shutil.which(name) else None


def is_one_word(path: str) -> bool:
    """Whether a path stands in a command line as it is."""
    try:
        return shlex.split(path) == [path]
    except ValueError:  # a quote that doesn't end
        return False


def why_not() -> str | None:
    """One sentence with its remedy where torch.compile can't work, else None."""
    if not compiler():
        return "there is no C++ compiler: `apt install g++` on Debian, `xcode-select --install` on macOS"
    caches = {"TMPDIR": tempfile.gettempdir(), "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")}
    for variable, folder in caches.items():
        if folder and not is_one_word(folder):
            return f"its cache can't lie in a folder with a space or a quote ({folder}): set {variable} to another"
    return None


def prepare() -> None:
    """Call this before torch.compile: folders of libraries are quoted from then on, wherever the checkout lies.

    Raises:
        CourseError: torch.compile can't work here.
    """
    if reason := why_not():
        raise CourseError(f"torch.compile can't work here: {reason}.")
    from torch._inductor.cpp_builder import BuildOptionsBase

    folders = BuildOptionsBase.get_libraries_dirs
    if folders is not _quoted_folders:
        _quoted_folders.unquoted = folders
        BuildOptionsBase.get_libraries_dirs = _quoted_folders


def _quoted_folders(options) -> list[str]:
    """In place of `BuildOptionsBase.get_libraries_dirs`, whose folders PyTorch 2.13 puts into the line as they are."""
    return [folder if is_one_word(folder) else shlex.quote(folder) for folder in _quoted_folders.unquoted(options)]
