"""The same experiment on the untouched base, which answers in prose, with heads of its own (notebook 08)."""

from __future__ import annotations

from dataclasses import replace

from helpers import models
from helpers.notebook.lesson import Lesson
from helpers.notebook.medusa_bench import BFLOAT16, SIZES, MedusaBench, load_into

HEADS = "medusa-prose"
PROSE_SETS = (("heads",), ("lookup",), ("lookup", "recycling"), ("heads", "lookup"), ("heads", "lookup", "recycling"))


def prose_bench(lesson: Lesson) -> MedusaBench:
    """The base with the course's heads for its prose, in bfloat16; its sizes are those for prose."""
    sizes = SIZES[lesson.profile]
    models.check_made_for(HEADS, "base")
    sizes = replace(
        sizes,
        timed=sizes.prose,
        runs=sizes.prose_runs,
        validation=sizes.prose_validation,
        tuning=min(2, sizes.tuning),
        longest=sizes.longest_prose,
    )
    bench = MedusaBench(lesson, "base", HEADS, sizes)
    load_into(bench, [BFLOAT16])
    lesson.results.add_models([models.folder_of(HEADS)])
    return bench
