"""Two lanes for the race: plain greedy decoding and the tree of all guessers answer the same question (notebook 08)."""

from __future__ import annotations

from helpers.errors import CourseError
from helpers.notebook.medusa_bench import BFLOAT16, MedusaBench
from helpers.notebook.medusa_duel import ALL, GREEDY
from helpers.notebook.race import Race
from helpers.speculation.plan import Plan
from helpers.text_to_sql.example import Example


def run_race(bench: MedusaBench, plan: Plan, schema: str, question: str) -> Race:
    """Both answer in bfloat16, each with its steps recorded. Another question warms up: the guessers must not know this
    one's answer."""
    if "create table" not in schema.lower():
        raise CourseError("The schema has to be one or more CREATE TABLE statements, separated by semicolons.")
    [prompt] = bench.prompts([Example("asked", schema.strip(), question.strip(), "")])
    _, [other] = bench.split("validation", 1)
    answers = {}
    for name in (GREEDY, ALL):
        proposer = bench.planned(plan, BFLOAT16) if name == ALL else None
        bench.answer(other, proposer, BFLOAT16)
        answers[name] = bench.answer(prompt, proposer, BFLOAT16)
    return Race(answers, bench.tokenizer, schema)
