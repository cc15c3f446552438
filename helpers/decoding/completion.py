"""What was generated, and the record of each step."""

from __future__ import annotations

from dataclasses import dataclass, field

from helpers.decoding.proposals import Proposal


@dataclass(frozen=True)
class Step:
    """One run of the model: what it read, what came of it, how long it took.

    `num_tokens` is how many tokens it read, `kv_length` how many the cache held before; `emitted` are the tokens it
    made certain (accepted guesses and one of the model's own), with their log-probabilities. The seconds include the
    guesses for the next step.
    """

    kind: str  # "prefill" or "decode"
    seconds: float
    num_tokens: int
    kv_length: int
    proposal: Proposal
    accepted: tuple[int, ...]  # indices into the proposal
    emitted: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass
class Completion:
    """What was generated; `finish_reason` is "eos", "stop" (a stop string) or "length"."""

    prompt_tokens: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    log_probs: list[float] = field(default_factory=list)
    finish_reason: str = "length"
    steps: list[Step] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """A further step, and the tokens that it made certain."""
        self.steps.append(step)
        self.token_ids += step.emitted
        self.log_probs += step.log_probs

    @property
    def seconds(self) -> float:
        """Time in the model and the loop, from prompt to last token."""
        return sum(step.seconds for step in self.steps)

    @property
    def seconds_to_first_token(self) -> float:
        return self.steps[0].seconds

    @property
    def tokens_per_step(self) -> float:
        """Tokens emitted by decode steps for each run of the model after prefill."""
        decode = [step for step in self.steps if step.kind == "decode"]
        return sum(len(step.emitted) for step in decode) / len(decode) if decode else 0.0
