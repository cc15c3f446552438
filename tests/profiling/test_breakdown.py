"""A step's time is shared out among forward, guessing and the rest, by a clock that only they turn on."""

import time

import pytest
import torch

from helpers.profiling.breakdown import Stopwatch, step_breakdown
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_confidence import ConfidentMedusa
from tests.speculation.test_medusa import PROMPT, TREE, heads_for
from tests.speculation.test_reduced_heads import TOKEN_IDS, reduced_from
from tests.tiny_models import tiny

FORWARD, HEADS = 1.0, 0.25  # what a call costs on the clock below


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, but for what `costing` adds."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def costing(module, seconds):
        called = module.forward

        def forward(*args, **kwargs):
            now[0] += seconds
            return called(*args, **kwargs)

        module.forward = forward
        return module

    return costing


def reduced(model):
    return reduced_from(heads_for(model), model.get_output_embeddings().weight, TOKEN_IDS)


@pytest.mark.parametrize("make", [heads_for, reduced], ids=["all tokens", "reduced"])
@pytest.mark.parametrize(
    "propose", [lambda h: Medusa(h, TREE), lambda h: ConfidentMedusa(h, 6, 3)], ids=["fixed", "sure"]
)
def test_heads_are_counted_once_whatever_their_kind(clock, make, propose):
    model = tiny()
    heads = make(model)
    clock(heads.first, HEADS)
    proposer = propose(heads)
    parts = step_breakdown(clock(model, FORWARD), proposer, [PROMPT, PROMPT[::-1]], max_new_tokens=20)
    # The last step of an answer asks nobody for guesses.
    assert parts.forward == pytest.approx(FORWARD) and parts.rest == pytest.approx(0)
    assert HEADS / 2 < parts.guessing < HEADS
    assert "propose" not in vars(proposer)


def test_a_watch_on_one_kind_of_heads_alone_would_miss_the_other(clock):
    """What the breakdown did before: it watched `best`, by which the heads that follow their sureness don't guess."""
    model = tiny()
    heads, watch = reduced(model), Stopwatch()
    clock(heads.first, HEADS)
    hidden = torch.randn(2, 64, dtype=torch.float64)
    with watch.on(heads, "best"):
        heads.most_likely(hidden, 2)
    assert watch.seconds == 0
    with watch.on(heads, "most_likely"):
        heads.most_likely(hidden, 2)
    assert watch.seconds == HEADS


def test_plain_decoding_has_parts_too_and_nothing_is_left_behind(clock):
    model = clock(tiny(), FORWARD)
    forward = model.forward
    parts = step_breakdown(model, None, [PROMPT], max_new_tokens=5)
    assert (parts.forward, parts.guessing, parts.rest) == pytest.approx((FORWARD, 0, 0))
    assert model.forward is forward
