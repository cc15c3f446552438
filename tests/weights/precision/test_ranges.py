"""What is recorded are the model's own numbers, and recording leaves no trace; outliers change no result."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.errors import CourseError
from helpers.weights.precision.formats import FORMATS
from helpers.weights.precision.ranges import blocks_of, magnitudes, recording, vanishing, with_outliers
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2]])


@pytest.fixture
def model():
    return tiny()


def test_activations_and_gradients_are_those_of_the_model(model):
    down = model.model.layers[1].mlp.down_proj
    with recording(model) as seen:
        out = model(IDS, output_hidden_states=True)
        out.logits.square().sum().backward()
    name = "model.layers.1.mlp.down_proj, in"
    x, grad = seen.activations[name], seen.gradients[name]
    mlp = model.model.layers[1].mlp
    torch.testing.assert_close(
        mlp.act_fn(mlp.gate_proj(seen.activations["model.layers.1.mlp.up_proj, in"]))
        * mlp.up_proj(seen.activations["model.layers.1.mlp.up_proj, in"]),
        x,
    )
    assert grad.shape == x.shape and grad.abs().sum() > 0 and down.weight.grad is not None
    torch.testing.assert_close(seen.activations["model.layers.0"], out.hidden_states[1])
    model.zero_grad()


def test_nothing_stays_behind(model):
    with recording(model) as seen:
        pass
    model(IDS)
    assert not seen.activations and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "falcon"])
def test_blocks_are_found_in_every_architecture(kind):
    assert len(blocks_of(tiny(kind))) == 2


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@torch.no_grad()
def test_outliers_change_no_bit_of_float32_and_break_float16(kind):
    model = tiny(kind).float()
    large = with_outliers(model, 2.0**20)
    assert torch.equal(model(IDS).logits, large(IDS).logits)
    assert model(IDS).logits.half().isfinite().all()
    assert not large.half()(IDS).logits.isfinite().all()
    assert not torch.equal(model(IDS).logits, with_outliers(model, 3.0)(IDS).logits)  # not a power of two


def test_a_model_without_gates_says_what_to_take():
    with pytest.raises(CourseError, match="Qwen2"):
        with_outliers(tiny("falcon"), 2.0)


def test_magnitudes_are_counted_by_power_of_two():
    powers, shares = magnitudes([torch.tensor([0.0, 1.0, -1.9, 2.0, 0.25]), torch.tensor([1e9, 1e-30])], -10, 10)
    share_of = dict(zip(powers, shares))
    assert share_of[0] == pytest.approx(2 / 6) and share_of[1] == share_of[-2] == pytest.approx(1 / 6)
    assert share_of[10] == share_of[-10] == pytest.approx(1 / 6) and sum(shares) == pytest.approx(1)


def test_a_scale_saves_what_would_vanish():
    fmt = FORMATS["float16"]
    tiny_gradients = [torch.tensor([0.0, fmt.smallest / 2, fmt.smallest / 4]), torch.tensor([fmt.smallest, 1.0])]
    assert vanishing(tiny_gradients, fmt) == pytest.approx(2 / 4)  # half of the smallest is a tie: it goes to 0
    assert vanishing(tiny_gradients, fmt, scale=8) == 0
    assert vanishing(tiny_gradients, fmt, scale=2**-30) == 1


@torch.no_grad()
def test_biases_grow_with_their_weights():
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        mlp_bias=True,
        num_attention_heads=2,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config).eval()
    for mlp in (layer.mlp for layer in model.model.layers):
        mlp.up_proj.bias.data.normal_()
    assert torch.equal(model(IDS).logits, with_outliers(model, 2.0**10)(IDS).logits)
