"""Intervals of shares, perplexity, the distance of logits, paired counts."""

import math

import pytest
import torch
from scipy.stats import binomtest

from helpers.errors import CourseError
from helpers.measuring.quality import Paired, logits_of, paired, perplexity, wilson, worst_logit_error
from tests.tiny_models import tiny


@pytest.fixture(scope="module")
def model():
    return tiny().float()


def test_wilson_is_the_published_interval():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I, method 3
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_interval_stays_within_0_and_1():
    assert wilson(60, 60)[1] == pytest.approx(1.0) and 0.9 < wilson(60, 60)[0] < 1


def uniform(vocabulary):
    return lambda tokens: torch.zeros(len(tokens), vocabulary)


def all_knowing(tokens):
    """Gives all probability to the token that really comes next."""
    out = torch.full((len(tokens), 10), -100.0)
    for place in range(len(tokens) - 1):
        out[place, tokens[place + 1]] = 100.0
    return out


def test_perplexity_is_the_vocabulary_of_one_who_knows_nothing_and_1_of_one_who_knows():
    pairs = [([1, 2, 3], [4, 5]), ([1], [6])]
    assert perplexity(uniform(10), pairs) == pytest.approx(10)
    assert perplexity(all_knowing, pairs) == pytest.approx(1)


def test_perplexity_is_transformers_own_loss(model):
    pairs = [([5, 9, 13], [2, 40, 7]), ([8, 8], [1, 3])]
    total = 0.0
    for prompt, answer in pairs:
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        total += model(ids, labels=labels).loss.item() * len(answer)
    assert perplexity(logits_of(model), pairs) == pytest.approx(math.exp(total / 5), rel=1e-5)


def test_perplexity_leaves_the_prompt_out_and_looks_one_ahead():
    def wrong_in_the_prompt(tokens):
        out = all_knowing(tokens)
        out[:2] = 0
        return out

    pair = [([1, 2, 3], [4, 5])]
    assert perplexity(wrong_in_the_prompt, pair) == pytest.approx(1)  # rows 0 and 1 are about the prompt's own tokens
    late = lambda tokens: torch.roll(all_knowing(tokens), 1, 0)  # noqa: E731 - the planted mistake: off by one
    assert perplexity(late, pair) > 1e10
    with pytest.raises(CourseError, match="one token at least"):
        perplexity(uniform(10), [([], [1])])


def test_the_worst_logit_error_is_anywhere_and_nan_is_not_hidden():
    base = uniform(5)
    other = lambda tokens: base(tokens) + (0.25 if len(tokens) == 3 else 0.125)  # noqa: E731
    assert worst_logit_error(other, base, [[1], [1, 2, 3], [1, 2]]) == 0.25
    broken = lambda tokens: base(tokens) * (math.nan if len(tokens) == 1 else 1)  # noqa: E731
    for sequences in ([[1], [1, 2]], [[1, 2], [1]]):
        assert math.isnan(worst_logit_error(broken, base, sequences))


def test_paired_counts_both_ways():
    change = paired([True, True, False, False, True], [True, False, True, False, False])
    assert (change.fixed, change.broken, change.n) == (1, 2, 5) and str(change) == "1 fixed, 2 broken, of 5"
    with pytest.raises(CourseError, match="same questions"):
        paired([True], [True, False])


def test_nothing_to_judge_is_refused(model):
    for call in (
        lambda: wilson(0, 0),
        lambda: perplexity(logits_of(model), []),
        lambda: worst_logit_error(logits_of(model), logits_of(model), []),
    ):
        with pytest.raises(CourseError, match="at least one"):
            call()


@pytest.mark.parametrize(("fixed", "broken", "chance"), [(0, 0, 1.0), (0, 5, 0.0625), (5, 0, 0.0625), (3, 3, 1.0)])
def test_the_sign_test_is_that_of_scipy(fixed, broken, chance):
    assert Paired(fixed, broken, 20).chance == pytest.approx(chance)
    if fixed + broken:
        assert Paired(fixed, broken, 20).chance == pytest.approx(binomtest(fixed, fixed + broken).pvalue)


@pytest.mark.parametrize(
    ("fixed", "broken", "real"),
    [(0, 0, False), (0, 5, False), (0, 6, True), (3, 3, False), (10, 1, True), (8, 2, False)],
)
def test_few_changes_show_nothing(fixed, broken, real):
    assert Paired(fixed, broken, 40).real == real
