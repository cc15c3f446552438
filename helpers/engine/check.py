"""Does a request get the tokens that it gets alone, whatever happens beside it? Random schedules of everything.

Run in float64, where rounding decides nothing.
"""

from __future__ import annotations

import random

from helpers.decoding.generate import plain_greedy
from helpers.decoding.proposals import NOTHING, Proposal
from helpers.decoding.proposer import TokenProposer
from helpers.engine.engine import Engine


class Guessing(TokenProposer):
    """Trees of tokens at random, some of them right: what an answer's own tokens are, `answers` says."""

    def __init__(self, answers: list[list[int]], vocabulary: int, seed: int):
        self.answers, self.vocabulary, self.random = answers, vocabulary, random.Random(seed)

    def guess(self, tokens: list[int]) -> Proposal:
        known = [answer for answer in self.answers if answer[: len(tokens)] == tokens]
        size = self.random.randint(0, 5)
        if not size:
            return NOTHING
        parents = [self.random.randrange(-1, i) for i in range(size)]
        ahead = known[0][len(tokens) :] if known else []
        chosen, depth = [], []
        for parent in parents:
            depth.append(0 if parent < 0 else depth[parent] + 1)
            right = ahead[depth[-1] :][:1] if self.random.random() < 0.6 else []
            chosen += right or [self.random.randrange(self.vocabulary)]
        return Proposal(chosen, parents, ["random"] * size)


def same_as_alone(model, seed: int, requests: int = 6, guessing: bool = False) -> bool:
    """Requests of random lengths, many with a common beginning, come at random times into an engine with few blocks and
    small steps; some are cancelled. Whether each has, as far as it came, the tokens that it gets alone, and everything
    is given back in the end."""
    draw, vocabulary = random.Random(seed), model.config.vocab_size

    def tokens(count: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(count)]

    beginnings = [tokens(draw.randint(1, 12)) for _ in range(2)]
    asked = []
    for _ in range(requests):
        begin = draw.choice([[], *beginnings])
        asked.append((begin + tokens(draw.randint(0 if begin else 1, 8)), draw.randint(1, 10)))
    alone = [plain_greedy(model, prompt, count) for prompt, count in asked]
    block_size = draw.choice([1, 2, 4, 16])
    largest = max(-(-(len(prompt) + count) // block_size) for prompt, count in asked)
    options = dict(max_sequences=draw.randint(1, 4), share_prefixes=draw.random() < 0.8)
    proposer = None
    if guessing:
        known = [prompt + answer for (prompt, _), answer in zip(asked, alone)]
        proposer = Guessing(known, vocabulary, seed)
    engine = Engine(
        model,
        largest + draw.randint(0, largest),
        block_size=block_size,
        max_tokens=options["max_sequences"] + draw.randint(0, 12),
        proposer=proposer,
        **options,
    )
    coming, running = list(asked), []
    while coming or engine.busy:
        while coming and draw.random() < 0.5:
            prompt, count = coming.pop(0)
            running.append(engine.add(prompt, max_new_tokens=count))
        engine.step()
        if running and draw.random() < 0.03:
            engine.cancel(draw.choice(running))
    whole = all(len(r.written) == r.max_new_tokens for r in running if r.finish_reason == "length")
    same = all(r.written == answer[: len(r.written)] for r, answer in zip(running, alone, strict=True))
    empty = not engine.cache.lengths and len(engine.cache.pool.free) == engine.cache.num_blocks
    return whole and same and empty
