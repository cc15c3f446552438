"""A course of one notebook that shows one method, for tests of what builds, checks and runs notebooks."""

import nbformat

from helpers.course.notebooks import write_notebook

SOURCE = """# ---
# jupyter:
#   course:
#     minutes: 3
#     headline: "{start.tokens_per_second:.1f} tokens a second"
# ---

# %% [markdown] tags=["card"]
# # 00 A notebook
# The question; about 1 for the machine.

# %% [markdown] tags=["predict"]
# How much?

# %% tags=["parameters"]
PROFILE: str = "cpu"  # smoke, cpu, full or gpu
GUESS: float = 2.0  # times faster, é

# %% tags=["build"]
# show: helpers.thing:Box.double

# %%
print(PROFILE)

# %% [markdown] tags=["library-none"]
# No library has this: it is only a sum.

# %% tags=["measure"]
print(1 + 1)

# %% [markdown] tags=["limits"]
# None.

# %% [markdown] tags=["decide"]
# Always.
"""

THING = '''class Box:
    """A box."""

    @staticmethod
    def double(x: int) -> int:
        """Twice x."""
        return 2 * x  # a comment stays


def after(): ...
'''


def execute(root, name="00_x", profile="cpu"):
    """What papermill would leave for the notebook: an injected cell, outputs, counts, its own metadata."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    injected = nbformat.v4.new_code_cell("PROFILE = 'cpu'", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(3, injected)
    count = 0
    for cell in notebook.cells:
        cell.metadata["papermill"] = {"duration": 0.1}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"out of {cell.source[-8:]}")]
    paths = {"input_path": f"/home/me/{name}.ipynb", "output_path": "/tmp/x.ipynb"}
    notebook.metadata["papermill"] = {"duration": 61.23, "end_time": "now", "exception": None, **paths}
    path = root / "build" / "notebooks" / profile / f"{name}.ipynb"
    write_notebook(path, notebook)
    return path
