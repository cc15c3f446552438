"""Sampling draws from the distribution that it names."""

import pytest
import torch

from helpers.decoding.sampling import Sampler, Sampling, probabilities
from helpers.errors import CourseError

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def test_greedy_is_the_best_token():
    assert probabilities(LOGITS, Sampling()).tolist() == [1, 0, 0, 0] and Sampler(Sampling())(LOGITS) == 0


def test_temperature_top_k_and_top_p():
    plain = LOGITS.softmax(-1)
    torch.testing.assert_close(probabilities(LOGITS, Sampling(1.0)), plain)
    torch.testing.assert_close(probabilities(LOGITS, Sampling(2.0)), (LOGITS / 2).softmax(-1))
    torch.testing.assert_close(probabilities(LOGITS, Sampling(1.0, top_k=2))[:2], LOGITS[:2].softmax(-1))
    assert (probabilities(LOGITS, Sampling(1.0, top_p=0.7)) > 0).tolist() == [True, True, False, False]
    assert (probabilities(LOGITS, Sampling(1.0, top_p=0.01)) > 0).sum() == 1


def test_transformers_own_filters_agree():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    wanted = TemperatureLogitsWarper(0.7)(None, logits)
    wanted = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(12)(None, wanted)).softmax(-1)
    torch.testing.assert_close(probabilities(logits, Sampling(0.7, 12, 0.8)), wanted)


def test_draws_follow_the_probabilities():
    sampler = Sampler(Sampling(1.0, top_k=3, seed=5))
    counts = torch.bincount(torch.tensor([sampler(LOGITS) for _ in range(4000)]), minlength=4)
    wanted = probabilities(LOGITS, Sampling(1.0, top_k=3)) * 4000
    chi = ((counts[:3] - wanted[:3]) ** 2 / wanted[:3]).sum()
    assert counts[3] == 0 and chi < 13.8  # p = .001 with two degrees of freedom


@pytest.mark.parametrize("bad", [dict(temperature=-1), dict(top_k=-1), dict(top_p=0), dict(top_p=1.5)])
def test_bad_settings_are_refused(bad):
    with pytest.raises(CourseError):
        Sampling(**bad)
