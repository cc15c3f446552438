"""LLaMA-Adapter is PEFT's to the number, forward and backward, and begins as the model itself."""

import copy

import pytest
import torch
from peft import AdaptionPromptConfig, get_peft_model

from helpers.errors import CourseError
from helpers.weights.adapters.llama_adapter import PromptedAttention, install
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2], [7, 1, 1, 40]])


def pair(kind):
    """Ours and PEFT's, with the same prompts and gates that are open."""
    model = tiny(kind).float()
    ours = install(copy.deepcopy(model), count=3)
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    theirs = get_peft_model(copy.deepcopy(model), config)
    adapted = [m for m in theirs.modules() if hasattr(m, "adaption_prompt")]
    mine = [m for m in ours.modules() if isinstance(m, PromptedAttention)]
    torch.manual_seed(1)
    for one, other in zip(mine, adapted, strict=True):
        one.gate.data.fill_(0.7)
        other.adaption_gate.data.copy_(one.gate.data)
        other.adaption_prompt.data.copy_(one.prompts.data)
    return ours, theirs, mine, adapted


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_outputs_and_gradients_are_peft_s(kind):
    ours, theirs, mine, adapted = pair(kind)
    torch.testing.assert_close(ours(IDS, use_cache=False).logits, theirs(input_ids=IDS, use_cache=False).logits)
    for model in (ours, theirs):
        model(input_ids=IDS, use_cache=False).logits.square().sum().backward()
    for one, other in zip(mine, adapted, strict=True):
        for a, b in ((one.gate.grad, other.adaption_gate.grad), (one.prompts.grad, other.adaption_prompt.grad)):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * b.abs().max().item())


def test_it_begins_as_the_model_itself_and_little_is_trained():
    model = tiny().float()
    before = model(IDS).logits
    assert torch.equal(install(model, count=3)(IDS).logits, before)
    assert {n.split(".")[-1] for n, p in model.named_parameters() if p.requires_grad} == {"prompts", "gate"}


def test_an_open_gate_changes_the_answer():
    ours, *_ = pair("llama")
    assert not torch.allclose(ours(IDS).logits, tiny().float()(IDS).logits)


@pytest.mark.parametrize(("kind", "options"), [("falcon", {}), ("llama", {"count": 0}), ("llama", {"layers": 3})])
def test_a_model_that_it_does_not_fit_gets_one_sentence(kind, options):
    with pytest.raises(CourseError, match=r"needs a model|at least one prompt"):
        install(tiny(kind).float(), **options)
