"""A training's checkpoint: written whole or not at all, and taken up only by the run that wrote it."""

from __future__ import annotations

from pathlib import Path

import torch

from helpers.errors import CourseError

FILE = "checkpoint.pt"


def write(folder: Path, state: dict) -> None:
    """Replace the folder's checkpoint; a kill in between leaves the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "checkpoint.partial"
    torch.save(state, partial)
    partial.replace(folder / FILE)


def read(folder: Path, device: str) -> dict | None:
    """The folder's checkpoint; None without one."""
    path = folder / FILE
    return torch.load(path, map_location=device, weights_only=True) if path.exists() else None


def read_own(folder: Path, identity: dict, device: str) -> dict | None:
    """The checkpoint of the run that `identity` describes; CourseError where another run left it."""
    state = read(folder, device)
    if state is not None and state.get("identity") != identity:
        raise CourseError(
            f"The checkpoint in {folder} has other settings or models: repeat them, or give --output_dir."
        )
    return state
