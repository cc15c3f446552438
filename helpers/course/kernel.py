"""One notebook under papermill: this interpreter's kernel, the cell it is at, and what to say when it fails."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helpers import files
from helpers.files import write_whole

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass
class Watch:
    """Follows papermill from cell to cell: for the progress line, and to name the cell where it stopped."""

    name: str
    began: float
    minutes: float
    number: int = 0
    source: str = ""

    def cell(self, cells: Sequence, index: int) -> None:
        """The cell at `index` starts."""
        self.number, self.source = _number(cells, index), cells[index].source
        if sys.stdout.isatty():  # one line that changes; a log file gets only the lines before and after
            left = max(self.minutes - (time.perf_counter() - self.began) / 60, 0)
            print(f"\r    cell {self.number} of {len(cells)}, about {clock(left)} left \033[K", end="\r", flush=True)


@contextmanager
def course_kernel(out: Path, offline: bool) -> Iterator[None]:
    """Make `python3` mean this interpreter, whatever kernels are installed, with the course's environment."""
    from ipykernel.kernelspec import get_kernel_dict

    ours = [str(files.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"PYTHONPATH": os.pathsep.join(ours), "COURSE_BUILD": str(out), **(OFFLINE if offline else {})}
    spec = get_kernel_dict()
    # The kernel's own log would put tracebacks of its shutdown on the terminal; cells' errors don't go that way.
    spec["argv"] = [sys.executable, *spec["argv"][1:], "--IPKernelApp.log_level=50"]
    write_whole(out / "jupyter" / "kernels" / "python3" / "kernel.json", json.dumps(spec))
    path = os.pathsep.join([str(out / "jupyter"), *filter(None, [os.environ.get("JUPYTER_PATH")])])
    changed = {**environment, "JUPYTER_PATH": path}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """A polite kill ends the kernel and keeps the state, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def execute(path: Path, copy: Path, parameters: dict, cell_timeout: int, watch: Watch) -> None:
    """Run the notebook at `path` in its own folder, writing the copy after each cell; raises what papermill raises."""
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    class WatchedEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, manager, kernel_name, **options):
            start = manager.cell_start

            def cell_start(cell, cell_index=None, **more):
                watch.cell(manager.nb.cells, cell_index)
                return start(cell, cell_index, **more)

            manager.cell_start = cell_start
            return super().execute_managed_notebook(manager, kernel_name, **options)

    papermill_engines.register("course", WatchedEngine)
    copy.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        path,
        copy,
        parameters,
        engine_name="course",
        kernel_name="python3",
        progress_bar=False,
        cwd=path.parent,
        start_timeout=120,
        execution_timeout=cell_timeout,
        coalesce_streams=True,  # a text that came piece by piece is one output
    )


def describe_failure(error: Exception, watch: Watch) -> dict[str, str]:
    """The cell (as counted in the notebook), its first line and the last line of the exception."""
    prompt = f" (In [{error.exec_count}])" if getattr(error, "exec_count", None) else ""
    lines = [line for line in watch.source.splitlines() if line.strip()]
    text = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else f"{type(error).__name__}: {error}"
    if type(error).__name__ == "CellTimeoutError":
        text = "it took longer than one cell may under this profile."
    if type(error).__name__ == "DeadKernelError":
        text = "its kernel died, most often for lack of memory: close other programs and resume."
    last = text.strip().splitlines()[-1]
    return {"cell": f"in cell {watch.number}{prompt}", "line": lines[0] if lines else "", "error": last}


def cell_seconds(path: Path) -> list[dict]:
    """Seconds of each code cell of an executed copy, as papermill timed them; empty where there is no copy."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError):
        return []
    timed = [(cell, cell["metadata"].get("papermill", {}).get("duration")) for cell in cells]
    return [{"id": cell.get("id"), "seconds": took} for cell, took in timed if took and cell["cell_type"] == "code"]


def _number(cells: Sequence, index: int) -> int:
    """The cell's number in the notebook as people see it: from 1, without the cell that papermill put in."""
    added = {"injected-parameters", "papermill-error-cell-tag"}
    return sum(1 for cell in cells[: index + 1] if not added & set(cell.metadata.get("tags", [])))


def clock(minutes: float) -> str:
    """Minutes as people say them."""
    return f"{60 * minutes:.0f} s" if minutes < 2 else f"{minutes:.0f} min"
