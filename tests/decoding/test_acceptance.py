"""Speculative sampling leaves the target's distribution as it is: a test of goodness of fit that a mistake fails."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.decoding.acceptance import accept, longest_path, residual, sampled_path, typical_path
from helpers.decoding.generate import steps
from helpers.decoding.proposals import Proposal, chain
from helpers.decoding.sampling import Sampler, Sampling
from helpers.errors import CourseError
from helpers.speculation.ngram import PromptLookup
from helpers.speculation.sampling_check import goodness_of_fit, pair_counts, tables, unnormalised

LEVEL = 1e-3


def test_the_target_s_distribution_is_kept():
    assert goodness_of_fit(pair_counts(50_000)) > LEVEL


@pytest.mark.parametrize("mistake", [unnormalised, lambda p, q: p, lambda p, q: q])
def test_a_wrong_residual_is_caught(mistake):
    assert goodness_of_fit(pair_counts(10_000, left=mistake)) < LEVEL


@given(st.integers(0, 999))
def test_what_is_left_is_a_distribution_and_both_parts_add_up_to_p(seed):
    p, _, q, _ = tables(seed)
    left = residual(p, q)
    torch.testing.assert_close(left.sum(), torch.tensor(1.0))
    accepted = torch.minimum(p, q)
    torch.testing.assert_close(accepted + (1 - accepted.sum()) * left, p)


def test_a_draft_that_is_the_target_is_always_right():
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    generator = torch.Generator().manual_seed(0)
    for token in range(4):
        accepted, _ = sampled_path(chain([token], "draft", p[None]), torch.stack([p, p]), generator)
        assert accepted == [0]


def test_a_bonus_token_drawn_after_the_wrong_guess_is_caught(monkeypatch):
    from helpers.decoding import acceptance
    from helpers.speculation import sampling_check

    def from_the_first(proposal, target, generator, left=residual):
        accepted, bonus = sampled_path(proposal, target, generator, left)
        if len(accepted) == len(proposal.tokens):
            bonus = acceptance.draw(target[0], generator)  # the mistake
        return accepted, bonus

    monkeypatch.setattr(sampling_check, "sampled_path", from_the_first)
    assert goodness_of_fit(pair_counts(10_000)) < LEVEL


def test_greedy_verification_is_the_longest_path_whatever_the_guesses_came_from():
    logits = torch.eye(4)[[1, 2, 3]]
    drawn = chain([1, 2], "draft", torch.full((2, 4), 0.25))
    assert accept(drawn, logits, Sampler(Sampling())) == longest_path(drawn, [1, 2, 3].__getitem__)
    assert accept(drawn, logits, Sampler(Sampling())) == ([0, 1], 3)


def test_typical_acceptance_keeps_the_longest_likely_path():
    proposal = Proposal([1, 2, 3, 4], [-1, -1, 1, 2], ["a"] * 4)
    probs = torch.tensor(
        [
            [0.1, 0.2, 0.7, 0.0, 0.0],
            [0.2] * 5,
            [0.0, 0.0, 0.0, 1.0, 0.0],
            [0.3, 0.3, 0.3, 0.05, 0.05],
            [1.0, 0.0, 0.0, 0.0, 0.0],
        ]
    )
    sampler = Sampler(Sampling(temperature=1.0, typical=0.3))
    assert typical_path(proposal, probs, sampler)[0] == [1, 2]  # 4 has .05: less than is asked even there
    assert typical_path(proposal, probs, Sampler(Sampling(temperature=1.0, typical=0.01))) == ([1, 2, 3], 0)
    assert typical_path(Proposal(), probs, sampler)[0] == []


def test_typical_acceptance_changes_nothing_that_is_greedy(model):
    truth = [token for step in steps(model, [5, 9, 2], max_new_tokens=12) for token in step.emitted]
    greedy_and_typical = steps(
        model, [5, 9, 2], max_new_tokens=12, sampling=Sampling(typical=0.09), proposer=PromptLookup()
    )
    assert [token for step in greedy_and_typical for token in step.emitted] == truth
    with pytest.raises(CourseError, match="from 0 to 1"):
        Sampling(typical=2.0)
