"""Who answers the same prompts in notebook 08b, and the runs in which all of them do.

Every engine has processes of its own, asked one after the other in an order that turns round with each run. So a run's
ratios are as near to each other in time as engines allow that can't share a process; what drifts from run to run is in
the interval, which covers all runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers import files, models
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.kernels import torch_compile
from helpers.measuring.cost_model import Shape
from helpers.models.to_gguf import weight_bytes, write_gguf
from helpers.profiling import course_baseline, llama_cpp_baseline, vllm_baseline
from helpers.profiling.arms import Arm, Bench
from helpers.profiling.fresh_runs import fresh_runs
from helpers.profiling.medusa_arms import fixed_tree_arm, kept_arms
from helpers.profiling.own_process import Answers, Workload, timed
from helpers.source_code import hash_of_files
from helpers.speculation.medusa_files import load, save

DTYPE = "bfloat16"
ONE, BATCH, LONG = "one", "batch", "long"  # workloads: single requests, several at a time, a long prompt
FUSED, GUESSES, COMPILED = "fused", "all_guessers", "torch_compile"
STAND_IN = [[0], [1], [0, 0], [0, 1], [0, 0, 0]]  # a tree for the heads where 08 has chosen none

Key = tuple[str, str]  # (contender, workload)


@dataclass(frozen=True)
class Sizes:
    """How much 08b takes: prompts one by one, and the processes (`runs`) that answer them; prompts in batches, and the
    size of a batch; long prompts and their tokens; prompts of the warm-up; prompts that llama.cpp answers in float32;
    the longest answer; turns of packed_linear.install; the kinds of GGUF files; whether torch.compile and vLLM take
    part."""

    prompts: int
    runs: int
    batched: int
    batch_size: int
    long: int
    long_tokens: int
    warmup: int
    exact: int
    longest: int
    turns: int
    files: tuple[str, ...] = ("BF16", "Q8_0", "Q4_1")
    compiling: bool = True


SIZES = {
    "smoke": Sizes(2, 1, 4, 2, 2, 200, 1, 0, 12, 0, files=("BF16",), compiling=False),
    "cpu": Sizes(10, 1, 8, 4, 3, 1500, 2, 4, 128, 2),
    "full": Sizes(100, 3, 40, 4, 12, 1500, 4, 40, 256, 5),
    "gpu": Sizes(100, 3, 40, 4, 12, 1500, 4, 0, 256, 5, files=()),  # the wheel of llama.cpp computes on the CPU
}


@dataclass(frozen=True)
class Contender:
    """One way to answer: its name in the results (`key`) and in words, the precision of its weights, the bytes of them
    that a step reads, and whether it guesses."""

    key: str
    words: str
    precision: str
    weight_bytes: int
    guesses: bool = False

    @property
    def plain(self) -> bool:
        """Greedy decoding without guesses, in the precision of ours."""
        return not self.guesses and self.precision == DTYPE


@dataclass
class Team:
    """Contenders that come with one engine, and what makes it answer workloads."""

    name: str
    contenders: list[Contender]
    answer: Callable[[Mapping[str, Workload]], dict[Key, Answers]]


# ---- the course's own


def guessing_arm(profile: str, heads: str | None) -> Arm:
    """All guessers in the tree that notebook 08 chose under this profile. Where it has chosen nothing, lookup with a
    small tree of the heads stands in, except under `full`, which reports what was chosen; without heads for this model
    lookup alone."""
    lookup = {"make": "prompt_lookup", "count": 4}
    if heads is None:
        return lookup
    try:
        return kept_arms(profile)["all guessers"]
    except CourseError as reason:
        if profile == "full":
            raise
        print(reason, "Until then a tree of five guesses and prompt lookup stand in.")
    return {"make": "together", "parts": [fixed_tree_arm(heads, STAND_IN), lookup]}


def course_team(bench: Bench, arms: Mapping[str, Arm], sizes: Sizes, num_threads: int, inside: bool) -> Team:
    """The fused step, and all guessers on it, in turns; `inside` answers in this process, which saves the time in which
    another one loads."""
    bytes_read = Shape.of(bench.model).weight_bytes
    words = {FUSED: "ours, fused step", GUESSES: "ours, all guessers"}
    contenders = [Contender(key, words[key], DTYPE, bytes_read, key == GUESSES) for key in arms]

    def answer(loads: Mapping[str, Workload]) -> dict[Key, Answers]:
        if inside:
            return _inside(bench, arms, loads)
        answers = _single_requests(bench, arms, loads[ONE], sizes.turns)
        others = {name: load for name, load in loads.items() if name != ONE}
        options = dict(model_id=bench.model_id, dtype=DTYPE, device=bench.device, turns=sizes.turns)
        return answers | (course_baseline.run(arms, others, num_threads=num_threads, **options) if others else {})

    return Team("the course's own engine", contenders, answer)


def compiled_team(bench: Bench, capacity: int, sizes: Sizes) -> Team:
    """The library's step, compiled by torch.compile for a cache of `capacity` tokens: single requests alone, since
    batches and long prompts would be compiled anew."""
    contender = Contender(COMPILED, "torch.compile", DTYPE, Shape.of(bench.model).weight_bytes)
    arms = {COMPILED: course_baseline.compiled_arm(capacity)}
    return Team(contender.words, [contender], lambda loads: _single_requests(bench, arms, loads[ONE], sizes.turns))


def _single_requests(bench: Bench, arms: Mapping[str, Arm], load: Workload, turns: int) -> dict[Key, Answers]:
    options = dict(model_id=bench.model_id, dtype=DTYPE, device=bench.device, turns=turns, runs=1)
    [run] = fresh_runs(arms, load.prompts, warmup=load.warmup, max_new_tokens=load.max_new_tokens, **options)
    return {(key, ONE): Answers([a.token_ids for a in t.results], t.seconds) for key, t in run.items()}


def _inside(bench: Bench, arms: Mapping[str, Arm], loads: Mapping[str, Workload]) -> dict[Key, Answers]:
    engines = {key: course_baseline.CourseEngine(bench, arm) for key, arm in arms.items()}
    return {(key, name): timed(engine, load) for name, load in loads.items() for key, engine in engines.items()}


# ---- the others


def llama_cpp_team(path: Path, kind: str, num_threads: int) -> Team:
    """llama.cpp with one GGUF file."""
    key, precision = f"llama_cpp_{kind.lower()}", DTYPE if kind == "BF16" else kind
    contender = Contender(key, f"llama.cpp, {kind}", precision, weight_bytes(path))

    def answer(loads: Mapping[str, Workload]) -> dict[Key, Answers]:
        answers = llama_cpp_baseline.run(path, loads, num_threads=num_threads)
        return {(key, name): each for name, each in answers.items()}

    return Team(contender.words, [contender], answer)


def vllm_team(folder: Path, bytes_read: int, heads: Path | None, num_heads: int) -> Team:
    """vLLM, compiled, with heads or without."""
    key, words = ("vllm_heads", "vLLM, compiled, heads") if heads else ("vllm", "vLLM, compiled")
    contender = Contender(key, words, DTYPE, bytes_read, guesses=heads is not None)

    def answer(loads: Mapping[str, Workload]) -> dict[Key, Answers]:
        options = dict(dtype=DTYPE, heads=heads, num_guesses=num_heads, compiled=True)
        return {(key, name): each for name, each in vllm_baseline.run_workloads(folder, loads, **options).items()}

    return Team(contender.words, [contender], answer)


def written_files(model, model_id: str, kinds: Sequence[str]) -> dict[str, Path]:
    """The model as GGUF files, one a kind; each is written once for this model and this code."""
    code = hash_of_files([files.ROOT / "helpers" / "models" / "to_gguf.py"], files.ROOT)
    folder = build_root() / "artifacts" / f"gguf-{models.hash_of(model_id)}-{code}"
    paths = {kind: folder / f"{kind}.gguf" for kind in kinds}
    for kind, path in paths.items():
        if not path.exists():
            write_gguf(model, path, kind)
    return paths


def written_folder(model, tokenizer, model_id: str) -> Path:
    """The whole model with its tokenizer, adapters merged, as vLLM reads it."""
    folder = build_root() / "artifacts" / f"whole-{models.hash_of(model_id)}"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def folder_for_vllm(bench: Bench, heads: str | None) -> tuple[Path, Path | None, int]:
    """The model, and heads where there are some, as vLLM reads them; and how many heads."""
    folder = written_folder(bench.model, bench.tokenizer, bench.model_id)
    if heads is None:
        return folder, None, 0
    some, heads_folder = load(heads, bench.model), build_root() / "artifacts" / "heads_for_vllm"
    save(some, heads_folder, bench.model_id)
    return folder, heads_folder, some.count


def heads_for(model_id: str) -> str | None:
    """The course's heads where they were made for this model; None, with the reason, where they weren't."""
    try:
        models.folder_of("medusa")
        models.check_made_for("medusa", model_id)
    except CourseError as reason:
        print("Heads are left out:", reason)
        return None
    return "medusa"


def teams(
    profile: str,
    bench: Bench,
    arms: Mapping[str, Arm],
    heads: str | None,
    paths: Mapping[str, Path],
    loads: Mapping[str, Workload],
    num_threads: int,
) -> list[Team]:
    """All who take part on this machine, the course's own first; a sentence for each who doesn't."""
    sizes = SIZES[profile]
    every = [course_team(bench, arms, sizes, num_threads, inside=profile == "smoke")]
    every += [llama_cpp_team(path, kind, num_threads) for kind, path in paths.items()]
    reason = torch_compile.why_not() if sizes.compiling else "this profile compiles nothing"
    if reason:
        print("torch.compile and vLLM are left out:", reason)
        return every
    every.append(compiled_team(bench, loads[ONE].longest, sizes))
    if not vllm_baseline.installed():
        print("vLLM is left out: it is not installed here (README.md says where it can be had)")
        return every
    folder, heads_folder, num_heads = folder_for_vllm(bench, heads)
    bytes_read = Shape.of(bench.model).weight_bytes
    every.append(vllm_team(folder, bytes_read, None, 0))
    return every + ([vllm_team(folder, bytes_read, heads_folder, num_heads)] if heads_folder else [])


# ---- the runs


def workloads(sizes: Sizes, prompts: Sequence, long: Sequence, warmup: Sequence) -> dict[str, Workload]:
    """Single requests, batches and long prompts; the warm-up's prompts are none of them."""
    options = dict(max_new_tokens=sizes.longest)
    few = warmup[:1]
    return {
        ONE: Workload(prompts[: sizes.prompts], warmup=warmup, **options),
        BATCH: Workload(prompts[: sizes.batched], sizes.batch_size, warmup=few * sizes.batch_size, **options),
        LONG: Workload(long, warmup=few, **options),
    }


def measured_runs(every: Sequence[Team], loads: Mapping[str, Workload], runs: int) -> Iterator[dict[Key, Answers]]:
    """Yields each run's answers. The first run takes all workloads, the further ones the single requests alone. Who
    stops is left out from then on, with a sentence."""
    playing = list(every)
    for run in range(runs):
        asked = loads if run == 0 else {ONE: loads[ONE]}
        answers: dict[Key, Answers] = {}
        for team in playing if run % 2 == 0 else playing[::-1]:
            try:
                answers |= team.answer(asked)
            except CourseError as reason:
                if team is every[0]:
                    raise
                print(f"{team.name} is left out: {reason}")
                playing = [other for other in playing if other is not team]
            else:
                print(f"run {run + 1} of {runs}: {team.name} done", flush=True)
        yield answers
