"""What notebook 08 works on: the frozen model in two dtypes, its heads, and how much each profile takes of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from helpers import models
from helpers.decoding.completion import Completion
from helpers.decoding.generate import generate
from helpers.decoding.proposer import Proposer
from helpers.errors import CourseError
from helpers.files import build_root
from helpers.kernels import packed_linear
from helpers.kernels.fastest_step import fastest_drafter, fastest_step
from helpers.notebook.lesson import Lesson
from helpers.profiling.arms import training_answers
from helpers.speculation import recurrent_drafter
from helpers.speculation.drafted_tree import Drafter
from helpers.speculation.guessers import NAMES, guesser
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.plan import Plan
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.example import Example
from helpers.text_to_sql.prompts import prompt_for

FLOAT32, BFLOAT16 = "float32", "bfloat16"
SCRIPT = "helpers.training.train_medusa_heads"


@dataclass(frozen=True)
class MedusaSizes:
    """How much 08 takes: prompts whose answers must be identical in float32; prompts that are timed, and the processes
    that time them; validation answers on which trees are chosen; prompts for what guessing costs; handwritten
    questions; prompts in prose, and validation answers for them; prompts for vLLM; the longest answer, and the longest
    in prose; rounds of a step's timing, and turns for choosing the linears; the settings of the training."""

    identity: int
    timed: int
    runs: int
    validation: int
    tuning: int
    people: int
    prose: int
    prose_validation: int
    prose_runs: int
    vllm: int
    longest: int
    longest_prose: int
    rounds: int
    turns: int
    train: dict
    num_tokens: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 20, 24, 32, 48, 65)


SIZES = {
    "smoke": MedusaSizes(
        identity=2,
        timed=2,
        runs=1,
        validation=4,
        tuning=1,
        people=2,
        prose=2,
        prose_validation=2,
        prose_runs=1,
        vllm=0,
        longest=12,
        longest_prose=12,
        rounds=2,
        turns=0,
        train=dict(max_examples=6, eval_samples=2, epochs=1, max_new_tokens=12, batch_positions=64),
        num_tokens=(1, 8, 65),
    ),
    "cpu": MedusaSizes(
        identity=48,
        timed=16,
        runs=3,
        validation=60,
        tuning=4,
        people=8,
        prose=6,
        prose_validation=8,
        prose_runs=1,
        vllm=10,
        longest=128,
        longest_prose=64,
        rounds=7,
        turns=2,
        train=dict(max_examples=500, eval_samples=60),
    ),
    "full": MedusaSizes(
        identity=450,
        timed=450,
        runs=3,
        validation=450,
        tuning=12,
        people=120,
        prose=100,
        prose_validation=100,
        prose_runs=1,
        vllm=100,
        longest=256,
        longest_prose=256,
        rounds=20,
        turns=5,
        train=dict(eval_samples=450, epochs=6),
    ),
}
SIZES["gpu"] = SIZES["full"]


@dataclass
class MedusaBench:
    """The model as transformers has it (`models`), by its fastest step (`fast`), its heads, and the recurrent drafter
    where there is one for it, by dtype."""

    lesson: Lesson
    model_id: str
    heads_place: str
    sizes: MedusaSizes
    tokenizer: object = None
    models: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    fast: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    heads: dict[str, MedusaHeads] = field(default_factory=dict, repr=False)
    drafters: dict[str, Drafter] = field(default_factory=dict, repr=False)

    @property
    def guesser_names(self) -> list[str]:
        """The guessers that there are for this model."""
        return [name for name in NAMES if name != "drafter" or self.drafters]

    def ids(self, text: str) -> list[int]:
        """A prompt's token ids."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """The examples' prompts as token ids."""
        return [self.ids(prompt_for(self.tokenizer, example)) for example in examples]

    def split(self, name: str, count: int) -> tuple[list[Example], list[list[int]]]:
        """The first examples of a split, and their prompts."""
        examples = load_split(name, limit=count)
        return examples, self.prompts(examples)

    def answer(self, prompt: Sequence[int], proposer: Proposer | None = None, dtype: str = FLOAT32) -> Completion:
        """One answer with its steps, by the fastest step of this dtype."""
        options = dict(proposer=proposer, max_new_tokens=self.sizes.longest)
        return generate(self.fast[dtype], self.tokenizer, prompt, **options)

    def guessers(self, names: Sequence[str], dtype: str) -> list[Proposer]:
        """Guessers by their names, with nothing learned yet."""
        known = training_answers(self.tokenizer) if "suffix" in names else []
        return [guesser(name, self.heads[dtype], known, self.drafters.get(dtype)) for name in names]

    def planned(self, plan: Plan, dtype: str) -> Proposer:
        """The plan's tree, in this process."""
        return plan.tree(self.guessers(plan.guessers, dtype))

    def text(self, token_ids: Sequence[int]) -> str:
        """An answer's text."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    @property
    def folder(self) -> Path:
        """What this profile keeps for other processes."""
        return build_root() / "artifacts" / "medusa" / self.lesson.profile


def open_bench(
    lesson: Lesson, heads: str = "provided", own: Path | None = None, dtypes: Sequence[str] = (FLOAT32, BFLOAT16)
) -> MedusaBench:
    """The lesson's model with its heads; `heads` is "provided" (the course's), "own" (those trained in `own`), or a
    folder. Says how large they are."""
    place = {"provided": "medusa", "own": str(own and own / "heads")}.get(heads, heads)
    models.check_made_for(place, lesson.model_id)
    bench = MedusaBench(lesson, lesson.model_id, place, SIZES[lesson.profile])
    load_into(bench, dtypes)
    if place == "medusa":
        used = [place, "drafter"] if bench.drafters else [place]
        lesson.results.add_models([models.folder_of(each) for each in used])
    some, model = bench.heads[dtypes[0]], bench.models[dtypes[0]]
    trained = sum(p.numel() for p in some.trained()) / 1e6
    whole = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"{some.count} heads, {trained:.2f} million weights, beside the model's {whole:.1f} million.", end=" ")
    print(f"They guess among\n{some.num_guessable:,} of {model.config.vocab_size:,} tokens.", end=" ")
    print("All ways of decoding below run the model's fused step (00c).")
    return bench


def load_into(bench: MedusaBench, dtypes: Sequence[str]) -> None:
    """The model, its fastest step, its heads and the drafter that goes with the course's in each dtype."""
    device, turns = bench.lesson.device, bench.sizes.turns
    for dtype in dtypes:
        model, bench.tokenizer = models.load(bench.model_id, dtype=dtype, device=device)
        bench.models[dtype] = model
        bench.heads[dtype] = packed_linear.install(load(bench.heads_place, model), turns)
        if bench.heads_place == "medusa" and has_drafter(bench.model_id):
            bench.drafters[dtype] = fastest_drafter(recurrent_drafter.load("drafter", model), turns)
        bench.fast[dtype] = fastest_step(model, turns)


def has_drafter(model_id: str) -> bool:
    """Whether the course's recurrent drafter is there and was made for this model."""
    try:
        models.check_made_for("drafter", model_id)
    except CourseError:
        return False
    return True
