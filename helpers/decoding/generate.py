"""The decode loop: prefill once, then step after step, each asking a proposer for guesses and keeping what the model
agrees with. Plain greedy decoding is the proposer that guesses nothing (notebook 00); the others come in 07 and 08.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from helpers.decoding.attention import additive, depths, rows_mask, tree_bias, tree_mask
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import NOTHING, Proposal, Proposer
from helpers.decoding.sampling import GREEDY, Chooser, Sampling
from helpers.decoding.verify import kept_path
from helpers.errors import CourseError


@dataclass
class Step:
    """One run of the model: what it was given, what came of it, how long it took.

    `rows` is how many tokens it read, `kv_length` what the cache held before; `emitted` are the tokens it made certain
    (accepted guesses and one of the model's own), with their log-probabilities.
    """

    kind: str  # "prefill" or "decode"
    seconds: float
    rows: int
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


@torch.inference_mode()
def plain_greedy(model, tokens: Sequence[int], most: int = 256) -> list[int]:
    """All there is to decoding, with nothing clever: the reference for everything that is (notebook 00)."""
    cache, written, feed = KVCache.for_model(model, len(tokens) + most), [], list(tokens)
    while len(written) < most:
        logits = model(input_ids=torch.tensor([feed], device=model.device), past_key_values=cache).logits
        written.append(int(logits[0, -1].argmax()))  # the best next token, after the last one read
        if written[-1] in eos_tokens(model):
            break
        feed = written[-1:]  # the cache remembers all before it
    return written


class Decoder:
    """One model and what its runs need: `step(tokens, ...)` reads tokens into the cache and gives logits and hidden."""

    def __init__(self, model, keep_hidden: bool = False):
        self.model, self.keep_hidden = model, keep_hidden
        self.device, self.dtype = model.device, model.dtype
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ())
        self.window = getattr(config, "sliding_window", None) if kinds != {"full_attention"} else None
        self.mixed = len(kinds) > 1

    def mask(self, seen: torch.Tensor) -> torch.Tensor:
        """The mask of what is seen, as this model takes it."""
        if self.mixed and self.window and seen.shape[-1] > self.window:
            mixes = f"This model mixes windows of {self.window} tokens with full attention"
            raise CourseError(f"{mixes}: past the window it takes no guesses and no batches.")
        return additive(seen, self.dtype).to(self.device)

    def step(self, tokens: Sequence[int], cache: KVCache, parents: Sequence[int] = (), last_only: bool = False):
        """Run the model on `tokens` (a chain, or one certain token and its tree of guesses).

        Returns:
            logits (n, vocabulary), in float32 at least, and hidden states (n, hidden) or None; n is 1 with `last_only`.
        """
        before = cache.length
        ids = torch.tensor([tokens], device=self.device)
        offsets = [0, *depths(parents)] if parents else range(len(tokens))
        positions = torch.tensor([[before + k for k in offsets]], device=self.device)
        if not parents:
            mask = None
        elif self.window:
            mask = self.mask(tree_mask(parents, before, self.window))
        else:
            mask = tree_bias(parents, before, self.dtype, self.device)
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True,
            logits_to_keep=1 if last_only else 0, output_hidden_states=self.keep_hidden,
        )  # fmt: skip
        hidden = out.hidden_states[-1][0, -len(out.logits[0]) :] if self.keep_hidden else None
        return out.logits[0].to(torch.promote_types(self.dtype, torch.float32)), hidden

    def batch(self, tokens: Sequence[Sequence[int]], cache: KVCache) -> list[torch.Tensor]:
        """Run the model on rows that may hold, and read, different numbers of tokens (each at least one).

        The cache needs room for the longest row plus the most tokens read.

        Returns:
            for each row its logits (tokens read, vocabulary).
        """
        before = cache.lengths or [0] * len(tokens)
        if len(before) != len(tokens):
            raise CourseError(f"The cache holds {len(before)} rows and {len(tokens)} were given: give tokens for each.")
        most = max(map(len, tokens))
        ids = torch.tensor([[*row, *[0] * (most - len(row))] for row in tokens], device=self.device)
        positions = torch.tensor(before, device=self.device)[:, None] + torch.arange(most, device=self.device)
        together = most == 1 and min(before) == max(before) and not self.window  # nothing to hide from anybody
        mask = None if together else self.mask(rows_mask(before, most, self.window))
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        for row, (held, read) in enumerate(zip(before, tokens, strict=True)):
            cache.cut(held + len(read), row)  # what filled up the shorter rows is forgotten
        return [logits[: len(read)] for logits, read in zip(out.logits, tokens, strict=True)]


@torch.inference_mode()
def steps(model, prompt_ids: Sequence[int], *, max_new_tokens: int = 256, sampling: Sampling = GREEDY,
          eos: Sequence[int] | None = None, proposer: Proposer | None = None) -> Iterator[Step]:  # fmt: skip
    """The loop itself: yields each step as it is done; ends after an end-of-sequence token or `max_new_tokens`."""
    if not prompt_ids:
        raise CourseError("The prompt is empty: give at least one token.")
    if max_new_tokens < 1:
        raise CourseError("max_new_tokens must be at least 1.")
    end = set(eos_tokens(model) if eos is None else eos)
    wants_hidden = getattr(proposer, "wants_hidden", proposer is not None)
    decoder, choose = Decoder(model, keep_hidden=wants_hidden), Chooser(sampling)
    cache = KVCache.for_model(model, len(prompt_ids) + max_new_tokens + MOST_GUESSES)
    known, made, proposal = list(prompt_ids), 0, NOTHING
    feed = known
    while True:
        began, before = time.perf_counter(), cache.length
        kind = "decode" if before else "prefill"
        logits, hidden = decoder.step(feed, cache, proposal.parents, last_only=kind == "prefill")
        path, tokens, rows = kept_path(proposal, logits, choose)
        if kind == "decode":
            cache.keep(before, [0, *(i + 1 for i in path)])
        tokens = tokens[: max_new_tokens - made]
        tokens = tokens[: next((i + 1 for i, t in enumerate(tokens) if t in end), len(tokens))]
        rows = rows[: len(tokens)]
        said = logits[: len(rows)] if rows[-1] == len(rows) - 1 else logits[rows]  # in one piece if they are the first
        picked = -F.cross_entropy(said, torch.tensor(tokens, device=logits.device), reduction="none")
        known, made = known + tokens, made + len(tokens)
        done = made >= max_new_tokens or tokens[-1] in end
        step = Step(kind, 0.0, len(feed), before, proposal, tuple(path[: len(tokens)]), tuple(tokens),
                    tuple(picked.tolist()))  # fmt: skip
        proposal = NOTHING
        if proposer and not done:
            proposal = proposer.propose(known, None if hidden is None else hidden[rows[-1]])
            if len(proposal.tokens) > MOST_GUESSES:
                raise CourseError(f"A proposer guessed {len(proposal.tokens)} tokens; {MOST_GUESSES} are the most.")
        feed = [known[-1], *proposal.tokens]
        step.seconds = time.perf_counter() - began
        yield step
        if done:
            return


MOST_GUESSES = 128  # room in the cache for guesses beside what is certain


def eos_tokens(model) -> list[int]:
    """The model's end-of-sequence tokens."""
    found = model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def stream(model, tokenizer, prompt: str | Sequence[int], *, stop: Sequence[str] = (),
           completion: Completion | None = None, **options) -> Iterator[str]:  # fmt: skip
    """Yields the answer's text piece by piece; a `completion` given to it is filled on the way.

    Text that might be the beginning of a stop string, or half a character, is held back until it is certain.
    """
    if isinstance(stop, str) or "" in stop:
        raise CourseError('Give stop strings as a list, none of them empty: stop=["```"].')
    ids = tokenizer(prompt, add_special_tokens=False).input_ids if isinstance(prompt, str) else list(prompt)
    completion = completion if completion is not None else Completion(0)
    completion.prompt_tokens = len(ids)
    end = set(eos_tokens(model) if options.get("eos") is None else options["eos"])
    shown = 0
    for step in steps(model, ids, **options):
        completion.steps.append(step)
        for used, (token, log_prob) in enumerate(zip(step.emitted, step.log_probs, strict=True), 1):
            completion.token_ids.append(token)
            completion.log_probs.append(log_prob)
            if token in end:
                completion.finish_reason = "eos"
                break
            if not stop:
                continue
            completion.text = tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            found = [at for s in stop if (at := completion.text.find(s)) >= 0]
            if found:
                completion.text, completion.finish_reason = completion.text[: min(found)], "stop"
                step.emitted, step.log_probs = step.emitted[:used], step.log_probs[:used]  # what the user got
                step.accepted = step.accepted[:used]
                break
        if not stop:  # once a step is enough: nothing in between is looked for
            known = completion.token_ids[: -1 if completion.finish_reason == "eos" else None]
            completion.text = tokenizer.decode(known, skip_special_tokens=True)
        certain = len(completion.text)
        if completion.finish_reason == "length":
            certain -= _uncertain(completion.text, stop)
        if certain > shown:
            yield completion.text[shown:certain]
            shown = certain
        if completion.finish_reason == "stop":
            return
    if len(completion.text) > shown:
        yield completion.text[shown:]


def _uncertain(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end might still change: half a character, or the beginning of a stop string."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    begun = max((n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
    return max(broken, begun)


def generate(model, tokenizer, prompt: str | Sequence[int], **options) -> Completion:
    """The whole answer at once; options as of `stream` and `steps`."""
    completion = Completion(0)
    for _ in stream(model, tokenizer, prompt, completion=completion, **options):
        pass
    return completion
