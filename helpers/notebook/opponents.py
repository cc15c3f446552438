"""What notebook 08b asks of everybody, and what everybody answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch

from helpers import models
from helpers.errors import CourseError
from helpers.measuring import probes
from helpers.measuring.cost_model import Shape
from helpers.measuring.timing import Comparison, Timed, speedup_over_runs
from helpers.models.to_gguf import weight_bytes
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.profiling import llama_cpp_baseline
from helpers.profiling.against_generate import our_greedy
from helpers.profiling.agreement import margin
from helpers.profiling.arms import Answer, Arm, Bench
from helpers.profiling.opponents import (
    DTYPE,
    FUSED,
    GUESSES,
    LONG,
    ONE,
    SIZES,
    Contender,
    Key,
    Sizes,
    guessing_arm,
    heads_for,
    measured_runs,
    teams,
    workloads,
    written_files,
)
from helpers.profiling.own_process import Answers, Workload
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for

NEAR_TIE = 0.1  # nats between two tokens: what rounding can turn round


@dataclass(frozen=True)
class Field:
    """What is asked of everybody: the model in bfloat16 (`bench`), its `heads` (None: there are none for it) and the
    `arms` of the course's own, the examples behind the single requests, the workloads made of them."""

    lesson: Lesson
    sizes: Sizes
    bench: Bench
    heads: str | None
    arms: Mapping[str, Arm]
    examples: Sequence[Example]
    loads: Mapping[str, Workload]


def open_field(lesson: Lesson) -> Field:
    """The model, and the prompts: the test split's first ones, in batches too, long ones made of many tables, and
    validation questions for the warm-up."""
    sizes = SIZES[lesson.profile]
    bench = Bench(lesson.model_id, DTYPE, lesson.device, max_new_tokens=sizes.longest, turns=0)
    test, heads = load_split("test"), heads_for(lesson.model_id)
    if heads:
        lesson.results.add_models([models.folder_of(heads)])
    arms = {FUSED: {"make": "greedy"}, GUESSES: guessing_arm(lesson.profile, heads)}

    def ids(examples: Sequence[Example]) -> list[list[int]]:
        return [bench.ids(prompt_for(bench.tokenizer, example)) for example in examples]

    long = [with_more_tables(bench, test, place, sizes.long_tokens) for place in range(sizes.long)]
    asked = ids(test[: max(sizes.prompts, sizes.batched)])
    loads = workloads(sizes, asked, ids(long), ids(load_split("validation", limit=sizes.warmup)))
    lengths = [len(prompt) for prompt in loads[ONE].prompts], [len(prompt) for prompt in loads[LONG].prompts]
    print(f"{sizes.prompts} prompts of {median(lengths[0]):.0f} tokens (median), one after the other;", end=" ")
    print(f"{sizes.batched} of them, {sizes.batch_size} at a time;")
    print(f"{sizes.long} prompts of {median(lengths[1]):.0f} tokens. {DTYPE}, answers of at most", end=" ")
    print(f"{sizes.longest} tokens, {torch.get_num_threads()} threads each.")
    return Field(lesson, sizes, bench, heads, arms, test[: sizes.prompts], loads)


def with_more_tables(bench: Bench, examples: Sequence[Example], place: int, num_tokens: int) -> Example:
    """An example whose own tables come after so many others' that the prompt has `num_tokens` tokens or a few more."""
    example, contexts = examples[place], []
    for other in [*examples[place + 1 :], *examples[:place]]:
        long = replace(example, context="\n\n".join([*contexts, example.context]))
        if len(bench.ids(prompt_for(bench.tokenizer, long))) >= num_tokens:
            break
        contexts.append(other.context)
    return long


def write_files(field: Field) -> dict[str, Path]:
    """The model as llama.cpp's files, with the bytes that a step reads; none where llama.cpp is missing or can't take
    this model, with the reason."""
    if not field.sizes.files or not llama_cpp_baseline.installed():
        print("llama.cpp is left out:", "it computes on the CPU" if not field.sizes.files else "it is not installed")
        return {}
    try:
        paths = written_files(field.bench.model, field.bench.model_id, field.sizes.files)
    except CourseError as reason:
        print("llama.cpp is left out:", reason)
        return {}
    whole = Shape.of(field.bench.model).weight_bytes
    print(f"{'in the course':14}{whole / 1e6:8.0f} MB a step, 16 bits a weight")
    for kind, path in paths.items():
        size = weight_bytes(path)
        bits = 16 * size / whole
        print(f"{kind + '.gguf':14}{size / 1e6:8.0f} MB a step, {bits:.1f} bits a weight")
    return paths


@dataclass(frozen=True)
class Findings:
    """Who answered in all runs, and what: a dict for each run; and how fast memory was meanwhile."""

    field: Field
    contenders: dict[str, Contender]
    runs: list[dict[Key, Answers]]
    bandwidth: float  # bytes per second, the median of what was read between the runs

    def timed(self) -> list[dict[str, Timed]]:
        """The single requests as fresh_runs.py has them."""
        return [
            {
                key: Timed(run[key, ONE].seconds, [Answer(ids) for ids in run[key, ONE].token_ids])
                for key in self.contenders
            }
            for run in self.runs
        ]

    def rate(self, key: str, load: str = ONE) -> Comparison:
        """Tokens per second over whole requests, with an interval over requests (and runs)."""
        runs = [run[key, load] for run in self.runs if (key, load) in run]
        size = self.field.loads[load].batch_size
        tokens = [
            [sum(map(len, one.token_ids[i : i + size])) for i in range(0, len(one.token_ids), size)] for one in runs
        ]
        return speedup_over_runs(tokens, [one.seconds for one in runs])

    def floor(self, key: str) -> float:
        """Tokens per second if each token cost one reading of the weights, and nothing else."""
        return self.bandwidth / self.contenders[key].weight_bytes

    def has(self, key: str, load: str) -> bool:
        return (key, load) in self.runs[0]


def answer_all(field: Field, paths: Mapping[str, Path]) -> Findings:
    """Everybody answers everything, each in a process of its own, as often as the profile says."""
    profile, threads = field.lesson.profile, torch.get_num_threads()
    every = teams(profile, field.bench, field.arms, field.heads, paths, field.loads, threads)
    runs, device = [], field.lesson.device
    read = [probes.bandwidth(device=device)]
    for run in measured_runs(every, field.loads, field.sizes.runs):
        runs.append(run)
        read.append(probes.bandwidth(device=device))
    there = {contender.key: contender for team in every for contender in team.contenders}
    whole = {key: one for key, one in there.items() if all((key, ONE) in run for run in runs)}
    return Findings(field, whole, runs, median(read))


def show_float32(results: Results, field: Field, paths: Mapping[str, Path]) -> None:
    """llama.cpp and the course's loop in float32, where hardly anything is decided by rounding: the same tokens, or two
    that score the same. Writes the invariant; left out where there is no llama.cpp or the profile has no prompts for
    it."""
    few = field.loads[ONE].prompts[: field.sizes.exact]
    if not few or not paths:
        print("left out under this profile, or without llama.cpp; a test does the same with a small model")
        return
    model, _ = models.load(field.bench.model_id, device=field.lesson.device)
    [path] = written_files(model, field.bench.model_id, ["F32"]).values()
    load = {ONE: Workload(few, max_new_tokens=field.sizes.longest)}
    options = dict(num_threads=torch.get_num_threads(), exact=True)
    theirs = llama_cpp_baseline.run(path, load, **options)[ONE].token_ids
    path.unlink()  # half a gigabyte that nobody needs again
    answer = our_greedy(model, field.sizes.longest)
    ours = [answer(prompt) for prompt in few]
    equal = [a == b for a, b in zip(ours, theirs)]
    rows = [row for row, same in zip(zip(few, ours, theirs), equal) if not same]
    gaps = [margin(model, *row) for row in rows]
    explained = sum(gap is not None and abs(gap) < NEAR_TIE for gap in gaps)
    print(f"float32: {sum(equal)} of {len(few)} answers the same, token for token", end="")
    print(f"; {explained} of the other {len(gaps)} part at a near tie." if gaps else ".")
    count = sum(equal) + explained
    results.invariant("opponents.same_function", count == len(few), count, len(few))


def record(results: Results, found: Findings) -> None:
    """A line for each prompt and contender in NN_name.prompts.jsonl, of the first run."""
    for key, one in found.contenders.items():
        answers = found.runs[0][key, ONE]
        texts = found.field.bench.tokenizer.batch_decode(answers.token_ids, skip_special_tokens=True)
        right = right_answers(found.field.examples, texts)
        for example, seconds, ids, text, good in zip(
            found.field.examples, answers.seconds, answers.token_ids, texts, right, strict=True
        ):
            results.prompt(example.id, key, one.precision, seconds, len(ids), text, good)
