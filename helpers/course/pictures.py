"""Smaller pictures in notebooks: charts have few colours, and a notebook has to stay small."""

from __future__ import annotations

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image

from helpers.course.notebooks import write_notebook


def shrink_pictures(path: Path) -> None:
    """Rewrite the notebook's PNG outputs in 256 colours, where that makes them smaller."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    write_notebook(path, notebook)


def smaller(png: str) -> str:
    """The same picture (base64) in 256 colours, if it is smaller so."""
    with Image.open(BytesIO(b64decode(png))) as picture:
        out = BytesIO()
        picture.convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return min(png, b64encode(out.getvalue()).decode(), key=len)
