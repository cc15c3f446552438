"""A model of fewer tokens: the logits of these alone, everything else shared, the model itself as it was."""

import pytest
import torch

from helpers.errors import CourseError
from helpers.kernels.fused_llama import FusedLlama
from helpers.models.fewer_tokens import with_tokens
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 2, 30]])
TOKENS = torch.tensor([2, 5, 9, 30, 41])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
@torch.no_grad()
def test_its_logits_are_those_of_its_tokens(kind):
    model = tiny(kind)
    before = model(IDS).logits
    fewer = with_tokens(model, TOKENS)
    torch.testing.assert_close(fewer(IDS).logits, before[..., TOKENS])
    assert torch.equal(model(IDS).logits, before) and not hasattr(model, "token_ids")
    assert fewer.get_output_embeddings().weight.shape[0] == len(TOKENS)
    assert fewer.get_input_embeddings() is model.get_input_embeddings()
    shifted = with_tokens(model, TOKENS + 1)  # the planted mistake
    assert not torch.allclose(shifted(IDS).logits, before[..., TOKENS])


@torch.no_grad()
def test_the_fused_step_carries_its_tokens():
    fewer = with_tokens(tiny(), TOKENS)
    fused = FusedLlama(fewer)
    assert fused.token_ids is fewer.token_ids
    torch.testing.assert_close(fused(IDS).logits, fewer(IDS).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ids", [[], [3, 2], [2, 2], [-1, 3], [10**6], [[2, 3]]])
def test_ids_that_make_no_vocabulary_are_refused(ids):
    with pytest.raises(CourseError, match="needs sorted int64 token ids below"):
        with_tokens(tiny(), torch.tensor(ids, dtype=torch.int64))
    with pytest.raises(CourseError, match="needs sorted int64"):
        with_tokens(tiny(), TOKENS.float())
