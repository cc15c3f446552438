"""LLaMA-Adapter is PEFT's to the number, forward and backward, and begins as the model itself."""

import copy

import pytest
import torch
from peft import AdaptionPromptConfig, get_peft_model

from helpers.errors import CourseError
from helpers.weights.adapters.llama_adapter import adapted_layers, install, load_from_peft, prompt_attention
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2], [7, 1, 1, 40]])


def pair(kind):
    """Ours and PEFT's, with the same prompts and gates that are open."""
    model = tiny(kind).float()
    ours = install(copy.deepcopy(model), count=3)
    config = AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    theirs = get_peft_model(copy.deepcopy(model), config)
    adapted = [m for m in theirs.modules() if hasattr(m, "adaption_prompt")]
    mine = adapted_layers(ours)
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


def test_heads_that_share_keys_take_the_right_ones_each_through_its_gate():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4, 8)
    gates = torch.linspace(-1, 1, 6)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True) * gates[:, None, None]
    torch.testing.assert_close(prompt_attention(q, k, v, gates), wanted)
    assert not torch.allclose(prompt_attention(q, k.roll(1, 1), v, gates), wanted, atol=1e-3)  # the mistake


def test_the_paper_s_gates_are_per_head_and_never_above_one():
    model = install(tiny().float(), count=3, layers=1, per_head=True)
    [attention] = adapted_layers(model)
    assert model.model.layers[1].self_attn is attention  # the topmost layer
    assert attention.gate.shape == (4,)
    shut = model(IDS).logits
    assert torch.equal(shut, tiny().float()(IDS).logits)
    attention.gate.data = torch.tensor([0.0, 50.0, 0.0, 0.0])
    torch.testing.assert_close(attention.gates(), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert not torch.allclose(model(IDS).logits, shut)


def test_what_peft_wrote_is_read(tmp_path):
    _, theirs, _, adapted = pair("llama")
    for number, one in enumerate(adapted):
        one.adaption_gate.data.fill_(0.3 + number)
    theirs.save_pretrained(tmp_path)
    read = load_from_peft(tiny().float(), tmp_path)
    torch.testing.assert_close(read(IDS).logits, theirs(input_ids=IDS, use_cache=False).logits)
    with pytest.raises(CourseError, match="no LLaMA-Adapter in"):
        load_from_peft(tiny().float(), tmp_path / "nowhere")
    shallow = tiny().float()
    shallow.model.layers = shallow.model.layers[:1]
    with pytest.raises(CourseError, match="at least one prompt, and 1 to 1 layers"):
        load_from_peft(shallow, tmp_path)
