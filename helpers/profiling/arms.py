"""Ways to answer a prompt, each written down as JSON: what a notebook chose is what a fresh process runs (07 and 08).

    {"make": "greedy"}
    {"make": "prompt_lookup", "count": 5}
    {"make": "together", "parts": [{"make": "recycling", "size": 8}, {"make": "suffix", "count": 4}]}

`make` is a function of this module, or "module:function" of another one; it gets the bench and the other entries. It
returns a proposer (None: plain greedy decoding), or a function from a prompt's token ids to an `Answer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from torch import nn

from helpers import models
from helpers.decoding.generate import steps
from helpers.decoding.proposer import Proposer
from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.models.first_layers import DRAFT, for_guessing
from helpers.profiling.hf_speculation import hf_answer, on_our_step
from helpers.speculation.combine import FirstOf, Relay, Together
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.ngram import BigramTable, PromptLookup
from helpers.speculation.recycling import TokenRecycling, fixed_tree
from helpers.speculation.suffix import SuffixMatch
from helpers.text_to_sql.dataset import load_split

Arm = Mapping[str, object]


class Answer(NamedTuple):
    """Its token ids, and the runs of the model after the prefill; None where nobody counted them."""

    token_ids: list[int]
    num_steps: int | None = None


class Draft(NamedTuple):
    """A smaller model: as transformers has it, by its fastest step, and by that with the tokens alone that it guesses
    (the same one, if it guesses all)."""

    model: nn.Module
    fast: nn.Module
    guessing: nn.Module


@dataclass
class Bench:
    """The target that all arms share, in one dtype: as transformers has it and by its fastest step."""

    model_id: str
    dtype: str
    device: str = "cpu"
    max_new_tokens: int = 256
    turns: int = 2  # of packed_linear.install: how often each kind of linear layer is tried
    drafts: dict[str, Draft] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.model, self.tokenizer = models.load(self.model_id, self.dtype, self.device)
        self.fast = fastest_step(self.model, self.turns)

    def draft(self, name: str) -> Draft:
        """The draft of that name, loaded once."""
        if name not in self.drafts:
            models.check_made_for(name, self.model_id)
            model, _ = models.load(name, self.dtype, self.device)
            is_ours = (Path(models.folder_of(name)) / DRAFT).exists()
            fast, fewer = fastest_step(model, self.turns), for_guessing(model, name) if is_ours else model
            self.drafts[name] = Draft(model, fast, fast if fewer is model else fastest_step(fewer, self.turns))
        return self.drafts[name]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def made(self, arm: Arm) -> Proposer | Callable[[Sequence[int]], Answer] | None:
        """What the arm's `make` makes."""
        options = dict(arm)
        module, _, name = str(options.pop("make", "")).rpartition(":")
        make = getattr(import_module(module or __name__), name, None) if name else None
        if make is None:
            raise CourseError(f"Nothing makes the arm {dict(arm)}: name a function of helpers.profiling.arms.")
        return make(self, **options)

    def answers(self, arm: Arm) -> Callable[[Sequence[int]], Answer]:
        """The arm as a function from a prompt's token ids to its answer."""
        made = self.made(arm)
        return made if callable(made) else self.decoder(made)

    def decoder(self, proposer: Proposer | None) -> Callable[[Sequence[int]], Answer]:
        """The course's own loop with a proposer."""

        def answer(ids: Sequence[int]) -> Answer:
            done = list(steps(self.fast, ids, max_new_tokens=self.max_new_tokens, proposer=proposer))
            return Answer([token for step in done for token in step.emitted], len(done) - 1)

        return answer


def training_answers(tokenizer) -> list[list[int]]:
    """What a guesser may know beforehand: the training split's answers (token ids)."""
    answers = (tokenizer(e.answer, add_special_tokens=False).input_ids for e in load_split("train"))
    return [[*answer, tokenizer.eos_token_id] for answer in answers]


def greedy(bench: Bench) -> None:
    """Plain greedy decoding."""


def draft_model(bench: Bench, draft: str, count: int, min_probability: float = 0.0) -> Proposer:
    return DraftModel(bench.draft(draft).guessing, bench.fast, count=count, min_probability=min_probability)


def prompt_lookup(bench: Bench, count: int) -> Proposer:
    return PromptLookup(count=count)


def bigram(bench: Bench, count: int) -> Proposer:
    """A table of the training split's answers."""
    return BigramTable(training_answers(bench.tokenizer), count=count)


def recycling(bench: Bench, size: int) -> Proposer:
    return TokenRecycling(fixed_tree(size))


def suffix(bench: Bench, count: int, shortest: int = 1, warm: bool = False) -> Proposer:
    """Cold: prompt and answer alone. Warm: the training split's answers as well, and all that it has given."""
    return SuffixMatch(count, shortest, warm, training_answers(bench.tokenizer) if warm else ())


def together(bench: Bench, parts: Sequence[Arm]) -> Proposer:
    return Together(*map(bench.made, parts))


def first_of(bench: Bench, parts: Sequence[Arm]) -> Proposer:
    return FirstOf(*map(bench.made, parts))


def relay(bench: Bench, parts: Sequence[Arm], count: int) -> Proposer:
    return Relay(*map(bench.made, parts), count=count)


def hf_prompt_lookup(bench: Bench, num_tokens: int, same_step: bool = False) -> Callable[[Sequence[int]], Answer]:
    """transformers' prompt lookup; with `same_step` its loop runs on our step."""
    model = on_our_step(bench.model, bench.fast, bench.max_new_tokens) if same_step else bench.model
    answer = hf_answer(model, bench.max_new_tokens, prompt_lookup_num_tokens=num_tokens)
    return lambda ids: Answer(answer(ids))


def hf_assisted(
    bench: Bench, draft: str, num_tokens: int, min_probability: float, same_step: bool = False
) -> Callable[[Sequence[int]], Answer]:
    """transformers' assisted generation; with `same_step` its loop runs on our steps, the draft's too."""
    pairs = [(bench.model, bench.fast), bench.draft(draft)[:2]]
    target, small = [on_our_step(*pair, bench.max_new_tokens) if same_step else pair[0] for pair in pairs]
    settings = dict(num_assistant_tokens=num_tokens, assistant_confidence_threshold=min_probability)
    answer = hf_answer(target, bench.max_new_tokens, assistant=small, settings=settings)
    return lambda ids: Answer(answer(ids))
