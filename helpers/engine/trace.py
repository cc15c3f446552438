"""The committed trace: who asks what, and when (data/traffic/trace.jsonl, notebook 05).

It names questions of the test split instead of tokens, so that any tokenizer can read it. A few prompts are long: they
give many solved questions before their own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers.engine.traffic import Request, answer_lengths, poisson
from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for

PATH = ROOT / "data" / "traffic" / "trace.jsonl"
COUNT, LONG_SHARE, SOLVED = 256, 0.04, (6, 12)  # requests; long prompts among them, and solved questions in one


@dataclass(frozen=True)
class Planned:
    """Seconds after the first arrival, at one request a second on average; questions of the test split, all but the
    last with their answers; tokens that are written."""

    arrival: float
    examples: list[str]
    num_tokens: int


def plan(count: int = COUNT, seed: int = 0) -> list[Planned]:
    """The trace itself, by a seed: what the committed file was made with."""
    draw, names = random.Random(seed), [example.id for example in load_split("test")]
    planned = []
    for arrival, num_tokens in zip(poisson(count, 1.0, draw), answer_lengths(count, draw), strict=True):
        solved = draw.randint(*SOLVED) if draw.random() < LONG_SHARE else 0
        planned.append(Planned(round(arrival, 3), draw.sample(names, solved + 1), num_tokens))
    return planned


def write(planned: Sequence[Planned], path: Path = PATH) -> None:
    """Lines of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(asdict(each))}\n" for each in planned), encoding="utf-8")


def read(path: Path = PATH) -> list[Planned]:
    """The committed trace."""
    return [Planned(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def requests(tokenizer, count: int, per_second: float, longest: int | None = None) -> list[Request]:
    """The first `count` requests of the trace, `per_second` of them on average (infinity: all at once), none to write
    more than `longest` tokens."""
    planned = read()
    if not 1 <= count <= len(planned):
        raise CourseError(f"The trace has {len(planned)} requests: take 1 to {len(planned)} of them, not {count}.")
    by_name = {example.id: example for example in load_split("test")}

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    made = []
    for each in planned[:count]:
        *solved, asked = (by_name[name] for name in each.examples)
        prompt = [token for example in solved for token in ids(prompt_for(tokenizer, example) + example.answer)]
        num_tokens = min(each.num_tokens, longest or each.num_tokens)
        made.append(Request(each.arrival / per_second, [*prompt, *ids(prompt_for(tokenizer, asked))], num_tokens))
    return made
