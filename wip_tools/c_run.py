"""Runs notebook 04's cells in this process; a cell that fails is printed and the next goes on."""
import os, sys, time, traceback
from pathlib import Path
sys.path.insert(0, "/tmp/wip17")
os.chdir("/tmp/wip17/notebooks")
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
from helpers.course.notebooks import from_source
profile = sys.argv[1]
notebook = from_source(Path("/tmp/wip17/notebooks/source/04_wanda_pruning.py"))
ns = {"__name__": "__main__"}
out = Path(f"/tmp/c_fig_{profile}"); out.mkdir(exist_ok=True)
bad = 0
total = time.perf_counter()
for n, cell in enumerate(notebook.cells, 1):
    if cell.cell_type != "code":
        print(f"\n--- {n} md: {cell.source.splitlines()[0][:80]}")
        continue
    text = cell.source
    if "parameters" in cell.metadata.get("tags", []):
        text = text.replace('PROFILE: str = "cpu"', f'PROFILE: str = "{profile}"')
    began = time.perf_counter()
    print(f"\n=== cell {n}", flush=True)
    try:
        exec(compile(text, f"cell{n}", "exec"), ns)
    except Exception:
        bad += 1
        traceback.print_exc(file=sys.stdout)
    for i in plt.get_fignums():
        plt.figure(i).savefig(out / f"cell{n:02}_{i}.png", dpi=70)
    plt.close("all")
    print(f"[{time.perf_counter() - began:.1f} s]", flush=True)
print("failed cells:", bad, f"total {time.perf_counter() - total:.0f} s")
