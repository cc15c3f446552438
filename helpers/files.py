"""Places, files written whole or not at all, and the hash of a model's files."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the repository, wherever it was put


def model_hash(models: Iterable[str | Path], root: Path = ROOT) -> str:
    """A short hash of model folders (every file in them), and of the names of models that are not in a folder here."""
    digest = hashlib.sha256()
    for model in models:
        digest.update(f"{model}\0".encode())
        folder = root / model
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        files = [path for path in files if path.name not in ("README.md", "card.json")]  # they tell of the model
        for path in files:
            digest.update(path.relative_to(folder).as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def build_root() -> Path:
    """The folder for everything that is made: $COURSE_BUILD, which the runner sets, or build/ in the repository."""
    return Path(os.environ.get("COURSE_BUILD") or ROOT / "build")


def write_whole(path: Path, text: str) -> Path:
    """Write a file that readers see either as it was or complete, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(draft, 0o644)  # mkstemp's own mode would hide the file from everybody else
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path
