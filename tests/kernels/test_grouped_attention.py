"""Own attention equals the library's, on every kind of heads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from helpers.decoding.generate import steps
from helpers.decoding.support import support_of
from helpers.errors import CourseError
from helpers.kernels import grouped_attention as module
from helpers.kernels.grouped_attention import grouped_attention, install
from tests.tiny_models import KINDS, greedy, tiny


def by_the_book(query, key, value, seen):
    """softmax(q k / sqrt(d)) v with every head's keys written out."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    return (scores.masked_fill(~seen, float("-inf")).softmax(-1) @ value).transpose(1, 2)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from([(4, 4), (4, 2), (6, 2), (4, 1)]),
    st.integers(1, 5),
    st.integers(0, 6),
    st.booleans(),
    st.integers(0, 99),
)
def test_it_is_attention_by_the_book(batch_size, heads, n, before, given_mask, seed):
    torch.manual_seed(seed)
    query = torch.randn(batch_size, heads[0], n, 8, dtype=torch.float64)
    key, value = (torch.randn(batch_size, heads[1], before + n, size, dtype=torch.float64) for size in (8, 6))
    causal = torch.ones(n, before + n, dtype=torch.bool).tril(before)
    if given_mask:
        mask = (
            causal & (torch.rand(batch_size, 1, n, before + n) < 0.7) | torch.eye(before + n, dtype=torch.bool)[before:]
        )
    elif n == 1 or before == 0:  # where transformers gives no mask
        mask = None
    else:
        mask = causal[None, None]
    output, weights = grouped_attention(torch.nn.Module(), query, key, value, mask)
    torch.testing.assert_close(output, by_the_book(query, key, value, causal if mask is None else mask))
    assert weights is None


def test_scores_that_a_model_changes_are_refused():
    x = torch.zeros(1, 2, 1, 4)
    with pytest.raises(CourseError, match="leave it the library's attention"):
        grouped_attention(torch.nn.Module(), x, x, x, softcap=30.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_says_the_same_with_it(kind):
    prompt = [5, 9, 2, 44]
    truth = greedy(tiny(kind), prompt, 40)
    model = install(tiny(kind))
    assert (model.config._attn_implementation == module.NAME) == (kind != "falcon")
    assert [t for step in steps(model, prompt, max_new_tokens=40) for t in step.emitted] == truth
    assert greedy(model, prompt, 40) == truth


def test_heads_put_together_in_the_wrong_order_are_caught(monkeypatch):
    """The mistake: query heads dealt out to the groups in turn (0, 2 | 1, 3) instead of in blocks (0, 1 | 2, 3)."""
    prompt, model = [5, 9, 2, 44], install(tiny())
    truth = greedy(tiny(), prompt, 20)
    real = F.scaled_dot_product_attention
    support_of(model)

    def dealt(query, key, value, **more):
        if query.shape[2] == 2:
            query = torch.stack([query[:, [0, 1], [0, 0]], query[:, [0, 1], [1, 1]]], dim=1)
        return real(query, key, value, **more)

    monkeypatch.setattr(module.F, "scaled_dot_product_attention", dealt)
    assert [t for step in steps(model, prompt, max_new_tokens=20) for t in step.emitted] != truth
