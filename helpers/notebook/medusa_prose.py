"""The same experiment on the untouched base, which answers in prose: heads for it are trained here (notebook 08)."""

from __future__ import annotations

from dataclasses import replace

from helpers.notebook.lesson import Lesson
from helpers.notebook.medusa_bench import BFLOAT16, SCRIPT, SIZES, MedusaBench, load_into
from helpers.training.launch import launch

PROSE_SETS = (("heads",), ("lookup",), ("lookup", "recycling"), ("heads", "lookup"), ("heads", "lookup", "recycling"))


def prose_bench(lesson: Lesson) -> MedusaBench:
    """The base with heads trained on its own prose, in bfloat16; its sizes are those for prose."""
    sizes = SIZES[lesson.profile]
    settings = {"seed": lesson.seed} | sizes.train_prose
    trained = launch(SCRIPT, "base", settings, inside=lesson.profile == "smoke")
    sizes = replace(
        sizes,
        timed=sizes.prose,
        runs=sizes.prose_runs,
        validation=sizes.prose_validation,
        tuning=min(2, sizes.tuning),
        longest=sizes.longest_prose,
    )
    bench = MedusaBench(lesson, "base", str(trained / "heads"), sizes)
    load_into(bench, [BFLOAT16])
    return bench
