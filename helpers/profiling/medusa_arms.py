"""Notebook 08's ways to answer, as arms.py writes them down: what validation chose is what every process runs.

{"make": "helpers.profiling.medusa_arms:fixed_tree", "heads": "medusa", "tree": [[0], [0, 0], [1]]}
{"make": "helpers.profiling.medusa_arms:planned", "heads": "medusa", "plan": "build/artifacts/medusa/plan.json"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from helpers.decoding.proposer import Proposer
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.kernels import packed_linear
from helpers.kernels.fastest_step import fastest_drafter
from helpers.profiling.arms import Arm, Bench, training_answers
from helpers.speculation import recurrent_drafter
from helpers.speculation.drafted_tree import Drafter
from helpers.speculation.guessers import guesser
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.plan import Plan

HERE = "helpers.profiling.medusa_arms"


def fixed_tree_arm(heads: str | Path, tree: Iterable[Sequence[int]]) -> Arm:
    """Heads in a folder (or "medusa"), and the tree of ranks that they fill."""
    return {"make": f"{HERE}:fixed_tree", "heads": str(heads), "tree": sorted(map(list, tree))}


def planned_arm(heads: str | Path, plan: str | Path) -> Arm:
    """All guessers of a plan that is kept in a file."""
    return {"make": f"{HERE}:planned", "heads": str(heads), "plan": str(plan)}


def fixed_tree(bench: Bench, heads: str, tree: Sequence[Sequence[int]]) -> Proposer:
    """Makes the first kind of arm."""
    return Medusa(heads_of(bench, heads), [tuple(path) for path in tree])


def planned(bench: Bench, heads: str, plan: str) -> Proposer:
    """Makes the second."""
    chosen = Plan.load(Path(plan))
    own = heads_of(bench, heads) if "heads" in chosen.guessers else None
    drafter = drafter_of(bench) if "drafter" in chosen.guessers else None
    known = training_answers(bench.tokenizer) if "suffix" in chosen.guessers else []
    return chosen.tree([guesser(name, own, known, drafter) for name in chosen.guessers])


def heads_of(bench: Bench, heads: str) -> MedusaHeads:
    """The heads with packed linears, for the bench's model."""
    return packed_linear.install(load(heads, bench.model), bench.turns)


def drafter_of(bench: Bench) -> Drafter:
    """The course's recurrent drafter by its fastest search, for the bench's model."""
    return fastest_drafter(recurrent_drafter.load("drafter", bench.model), bench.turns)


def keep_arms(profile: str, arms: Mapping[str, Arm]) -> Path:
    """Write the arms that 08 chose under a profile, for its extra 08b."""
    return write_whole(_kept(profile), json.dumps(arms) + "\n")


def kept_arms(profile: str) -> dict[str, Arm]:
    """The arms that 08 chose under this profile: "greedy", "heads" and "all guessers"."""
    try:
        return json.loads(_kept(profile).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remedy = f"run `python -m helpers run --profile {profile} --only 08`"
        raise CourseError(f"Notebook 08 has chosen nothing under the profile {profile} yet: {remedy}.") from None


def _kept(profile: str) -> Path:
    return build_root() / "artifacts" / "medusa" / profile / "arms.json"
