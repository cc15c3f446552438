"""One step in slow motion, and who guessed what: what notebook 08 shows of single answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch

from helpers.decoding.completion import Completion
from helpers.decoding.forward import Forward, eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.proposals import MAX_GUESSES, Proposal
from helpers.decoding.proposer import Proposer
from helpers.decoding.sequence import Sequence as DecodedSequence
from helpers.decoding.transcript import transcript
from helpers.notebook import diagrams, plots
from helpers.notebook.medusa_bench import BFLOAT16, FLOAT32, MedusaBench
from helpers.speculation.plan import Plan

SMALL_TREE = ((0,), (0, 0), (0, 0, 0), (0, 1), (1,), (1, 0))  # what a page has room for


@dataclass(frozen=True)
class OpenStep:
    """A step before its guesses are judged: the last certain token, the proposal, and the model's own token after the
    certain one and after each guess (one more than there are guesses)."""

    certain: int
    proposal: Proposal
    own: list[int]


@torch.inference_mode()
def open_step(
    bench: MedusaBench, prompt: Sequence[int], proposer: Proposer, dtype: str = FLOAT32, look_at: int = 10
) -> OpenStep:
    """Of the first steps of this answer the one in which the most guesses are right; the first, if none is."""
    model = bench.fast[dtype]
    forward, best = Forward(model), None
    sequence = DecodedSequence(prompt, max_new_tokens=bench.sizes.longest, eos=eos_tokens(model))
    cache = KVCache.for_model(model, sequence.max_length + MAX_GUESSES)
    for _ in range(look_at):
        feed, proposal, certain = sequence.feed(), sequence.proposal, sequence.known[-1]
        [reading] = forward([feed], cache)
        own = reading.logits.argmax(-1).tolist()
        verified = sequence.take(feed, *reading)
        cache.keep(sequence.id, sequence.cached - len(verified.accepted), verified.accepted)
        if proposal.tokens and (best is None or len(verified.accepted) > best[0]):
            best = len(verified.accepted), OpenStep(certain, proposal, own)
        if sequence.finish_reason:
            break
        sequence.propose(*proposer.propose([sequence], sequence.hidden[None]))
    proposer.release(sequence)
    return best[1] if best else OpenStep(certain, proposal, own)


def draw_step_tree(bench: MedusaBench, step: OpenStep) -> None:
    """The step's tree with its tokens named, and its mask."""
    if not step.proposal.tokens:
        print("This answer ended before anything was guessed.")
        return
    certain, *words = (_short(bench.tokenizer.decode([token])) for token in (step.certain, *step.proposal.tokens))
    diagrams.draw_token_tree(certain, words, step.proposal.parents)


def _short(text: str, length: int = 7) -> str:
    """As much of a token as the picture has room for."""
    return (text.strip() or text)[:length]


def show_judged(bench: MedusaBench, step: OpenStep, judge: Callable) -> None:
    """Every guess of the step, the model's own token before it, and whether `judge(proposal, own_token)` keeps it."""
    accepted, bonus = judge(step.proposal, step.own.__getitem__)
    name = [bench.tokenizer.decode([token]) for token in step.proposal.tokens]
    print(f"certain: {bench.tokenizer.decode([step.certain])!r}")
    for i, (text, parent) in enumerate(zip(name, step.proposal.parents)):
        before = repr(name[parent]) if parent >= 0 else "the certain token"
        own = bench.tokenizer.decode([step.own[parent + 1]])
        verdict = "kept" if i in accepted else "×"
        print(f"   {verdict:5} {text!r} after {before}: there the model itself says {own!r}")
    words = "".join(name[i] for i in accepted) + bench.tokenizer.decode([bonus])
    print(f"This step brings {len(accepted) + 1} token{'s' * (len(accepted) > 0)}: {words!r}.")


def show_first_steps(bench: MedusaBench, answer: Completion, limit: int = 8) -> None:
    """How many runs of the model an answer took, and its first steps: who guessed which token."""
    print(f"{len(answer.token_ids)} tokens in {len(answer.steps)} runs of the model, the prefill included")
    print(*transcript(answer, bench.tokenizer)[:limit], sep="\n")
    if len(answer.steps) > limit:
        print("...")
    print(answer.text)


def show_who_guessed(bench: MedusaBench, plan: Plan, prompts: Sequence[list[int]]) -> None:
    """Whose tokens the decode steps of these answers brought; what several guessed counts for the first of them."""
    credit, proposer = Counter(), bench.planned(plan, BFLOAT16)
    for prompt in prompts:
        for step in bench.answer(prompt, proposer, BFLOAT16).steps[1:]:
            credit.update(step.proposal.proposers[i] for i in step.accepted)
            credit["the model itself"] += len(step.emitted) - len(step.accepted)
    if not credit:
        print("These answers had no decode step.")
        return
    shares = {who: n / credit.total() for who, n in credit.most_common()}
    _, ax = plt.subplots(figsize=(7, 0.5 + 0.35 * len(shares)))
    ax.barh(list(shares), list(shares.values()), color=plots.COLORS[0])
    ax.invert_yaxis()
    ax.set(title="Whose tokens they were", xlabel="tokens of decode steps (share)")
    copied = sum(shares.get(who, 0.0) for who in ("lookup", "suffix", "earlier answer", "recycling"))
    itself = shares["the model itself"]
    learned = 1 - copied - itself
    print(f"Guessers that learned brought {learned:.0%} of the tokens, those that copy {copied:.0%};", end=" ")
    print(f"{itself:.0%} the model had to write itself.")
