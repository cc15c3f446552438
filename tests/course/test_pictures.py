"""Charts get smaller and look the same."""

from base64 import b64decode, b64encode
from io import BytesIO

import matplotlib.pyplot as plt
import nbformat
import numpy as np
from PIL import Image

from helpers.course.pictures import shrink_pictures, smaller


def chart():
    fig, ax = plt.subplots()
    ax.plot([1, 2, 3], [3, 1, 2], marker="o")
    out = BytesIO()
    fig.savefig(out, dpi=120)
    plt.close(fig)
    return b64encode(out.getvalue()).decode()


def pixels(png):
    return np.asarray(Image.open(BytesIO(b64decode(png))).convert("RGB")).astype(int)


def test_a_chart_gets_smaller_and_looks_the_same():
    before = chart()
    after = smaller(before)
    assert len(after) < 0.8 * len(before) and np.abs(pixels(after) - pixels(before)).mean() < 1
    assert len(smaller(after)) <= len(after)


def test_only_pictures_change(tmp_path):
    outputs = [
        nbformat.v4.new_output("display_data", data={"image/png": chart(), "text/plain": "a chart"}),
        nbformat.v4.new_output("stream", text="words"),
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("draw()", outputs=outputs), nbformat.v4.new_markdown_cell("prose")]
    )
    path = tmp_path / "one.ipynb"
    nbformat.write(notebook, path)
    shrink_pictures(path)
    after = nbformat.read(path, as_version=4)
    assert len(after.cells[0].outputs[0].data["image/png"]) < len(outputs[0].data["image/png"])
    after.cells[0].outputs[0].data["image/png"] = outputs[0].data["image/png"]
    assert after == notebook
