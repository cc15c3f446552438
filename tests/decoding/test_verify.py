"""Speculative sampling leaves the target's distribution as it is: a test of goodness of fit that a mistake fails."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from helpers.decoding import verify
from helpers.decoding.proposals import chain
from helpers.decoding.sampling import Chooser, Sampling, draw
from helpers.decoding.verify import kept_path, longest_path, residual, sampled_path

VOCABULARY, LEVEL = 4, 1e-3
DRAWS = 50_000


def distributions(seed):
    """Target p(x), p(y | x) and draft q(x), q(y | x) over four tokens, rather unlike each other."""
    torch.manual_seed(seed)
    return [(2 * torch.randn(shape)).softmax(-1) for shape in ((4,), (4, 4), (4,), (4, 4))]


def pairs(seed, draws=DRAWS):
    """How often each pair of tokens came, drafted two at a time."""
    p1, p2, q1, q2 = distributions(seed)
    generator, counts = torch.Generator().manual_seed(seed), np.zeros((4, 4))
    firsts = torch.multinomial(q1, draws, replacement=True, generator=generator).tolist()
    for x in firsts:
        y = draw(q2[x], generator)
        proposal = chain([x, y], "draft", torch.stack([q1, q2[x]]))
        _, tokens, _ = sampled_path(proposal, torch.stack([p1, p2[x], p2[y]]), generator)
        if len(tokens) == 1:  # the first guess was rejected: the next step would begin after it
            tokens.append(draw(p2[tokens[0]], generator))
        counts[tokens[0], tokens[1]] += 1
    return counts


def fits(seed, draws=DRAWS):
    p1, p2, _, _ = distributions(seed)
    expected = (p1[:, None] * p2).double().flatten().numpy()
    return chisquare(pairs(seed, draws).flatten(), expected / expected.sum() * draws).pvalue > LEVEL


def test_the_target_s_distribution_is_kept():
    assert fits(0)


def unnormalised(p, q):
    """What is left of p, not made a distribution again: whatever is missing falls to the last token."""
    left = (p - q).clamp(min=0)
    left[-1] += 1 - left.sum()
    return left


@pytest.mark.parametrize("mistake", [unnormalised, lambda p, q: p, lambda p, q: q])
def test_a_wrong_residual_is_caught(monkeypatch, mistake):
    monkeypatch.setattr(verify, "residual", mistake)
    assert not fits(0, 10_000)


@given(st.integers(0, 999))
def test_what_is_left_is_a_distribution_and_both_parts_add_up_to_p(seed):
    p, _, q, _ = distributions(seed)
    left = residual(p, q)
    torch.testing.assert_close(left.sum(), torch.tensor(1.0))
    accepted = torch.minimum(p, q)
    torch.testing.assert_close(accepted + (1 - accepted.sum()) * left, p)


def test_a_draft_that_is_the_target_is_always_right():
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    generator = torch.Generator().manual_seed(0)
    for token in range(4):
        path, tokens, rows = sampled_path(chain([token], "draft", p[None]), torch.stack([p, p]), generator)
        assert path == [0] and tokens[0] == token and rows == [0, 1]


def test_greedy_verification_is_the_longest_path_whatever_the_guesses_came_from():
    logits = torch.eye(4)[[1, 2, 3]]
    drawn = chain([1, 2], "draft", torch.full((2, 4), 0.25))
    assert kept_path(drawn, logits, Chooser(Sampling())) == longest_path(drawn, logits, Chooser(Sampling()))
    assert kept_path(drawn, logits, Chooser(Sampling()))[1] == [1, 2, 3]
