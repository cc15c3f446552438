"""Codes are multiplied in C++ as the numbers that they stand for, by every format, for any number of tokens."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.kernels.fused_llama import Beside
from helpers.kernels.native import library, tiles
from helpers.kernels.native.matrices import EVEN_LEVELS, NF4_LEVELS, bias, matrix
from helpers.kernels.native.native_llama import NativeLlama
from helpers.kernels.native.tiles import Codes, Tiles
from helpers.kernels.quantized_step import native_nf4, native_step, native_w8a8, quantized_fused, rounding
from helpers.weights.quantization import nf4_codes
from helpers.weights.quantization.integer import install, to_dense
from helpers.weights.quantization.linear import replace_linears
from helpers.weights.quantization.nf4_codes import Nf4Linear
from helpers.weights.quantization.packed import token_codes
from helpers.weights.quantization.smoothquant import w8a8
from tests.kernels.test_native_llama import fresh
from tests.speculation.test_medusa import PROMPT, Foreseeing, emitted

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))
IDS = torch.tensor([PROMPT])
MAKES = native_step, lambda m: native_step(m, 4, 16), lambda m: native_nf4(m, 16), native_w8a8


def llama(seed=0, **changes):
    """A tiny model in bfloat16 whose heads the C++ takes; 80 = 2 tiles of 32 rows and a half."""
    torch.manual_seed(seed)
    sizes = dict(hidden_size=64, intermediate_size=80, num_attention_heads=4, num_key_value_heads=2, head_dim=32)
    config = LlamaConfig(vocab_size=97, num_hidden_layers=2, eos_token_id=None, bos_token_id=None, **sizes | changes)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data = (parameter + 0.1 * torch.randn_like(parameter)).detach()
    return model.bfloat16()


def random_codes(rows, columns, groups, kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(rows, groups, generator=generator) + 0.1
    if kind == "int8":
        return Codes(torch.randint(-127, 128, (rows, columns), generator=generator, dtype=torch.int8), scales)
    codes = torch.randint(16, (rows, columns), generator=generator, dtype=torch.uint8)
    return Codes(codes, scales.bfloat16(), EVEN_LEVELS) if kind == "int4" else Codes(codes, scales, NF4_LEVELS)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 100), st.integers(1, 5), st.integers(1, 30), st.integers(0, 99))
def test_bytes_times_bytes_are_exact(rows, columns, n, seed):
    """Against whole numbers in float64: one rounding a token and one a row's scale are all there is."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-127, 128, (rows, 32 * columns), generator=generator, dtype=torch.int8)
    scales = torch.rand(rows, 1, generator=generator) + 0.1
    x = torch.randn(n, 32 * columns, generator=generator).bfloat16()
    x_codes, x_scales = token_codes(x)
    wanted = (x_codes.double() @ codes.double().T) * x_scales.double() * scales.double().T
    found = tiles.product(x, Tiles.of(Codes(codes, scales, for_bytes=True)))
    torch.testing.assert_close(found.double(), wanted, rtol=2.0**-7, atol=1e-6)
    x[0] = 0
    assert not tiles.product(x, Tiles.of(Codes(codes, scales, for_bytes=True)))[0].any()


def numbers(weight):
    """What the codes stand for (rows, in), in float64."""
    codes = weight.codes.double() if weight.levels is None else weight.levels.double()[weight.codes.int()]
    scales = weight.scales.double().repeat_interleave(weight.codes.shape[1] // weight.scales.shape[1], 1)
    return codes * scales


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 100),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(["int8", "int4", "nf4"]),
    st.integers(1, 30),
)
def test_products_are_those_of_the_numbers(rows, pairs, groups, kind, n):
    weight = random_codes(rows, 2 * pairs * groups, groups, kind, seed=n)
    x = torch.randn(n, 2 * pairs * groups).bfloat16()
    found = tiles.product(x, Tiles.of(weight)).double()
    wanted = x.double() @ numbers(weight).T
    size = x.double().abs() @ numbers(weight).abs().T
    assert ((found - wanted).abs() <= size * 2.0**-16 + wanted.abs() * 2.0**-8).all()  # sums; the rounding of y


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
def test_every_code_is_its_number(kind):
    """One column at a time: y is a code's own number, to the bit."""
    if kind == "int8":
        weight = Codes(torch.arange(-127, 128, dtype=torch.int8)[:, None].expand(-1, 2), torch.ones(255, 1))
        x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).bfloat16()
    else:
        levels = EVEN_LEVELS if kind == "int4" else NF4_LEVELS
        weight = Codes(torch.arange(16, dtype=torch.uint8)[:, None].expand(-1, 2), torch.ones(16, 1).bfloat16(), levels)
        x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).bfloat16()
    y = tiles.product(x, Tiles.of(weight))
    assert torch.equal(y.double(), x.double() @ numbers(weight).T)


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4", "bytes"])
def test_a_token_has_the_same_bits_among_any_number(kind):
    if kind == "bytes":
        weight = Tiles.of(replace(random_codes(80, 192, 1, "int8"), for_bytes=True))
    else:
        weight = Tiles.of(random_codes(80, 192, 3, kind))
    x = torch.randn(40, 192).bfloat16()
    alone = torch.cat([tiles.product(one[None], weight) for one in x])
    for n in (2, 5, 11, 12, 13, 25, 40):
        assert torch.equal(tiles.product(x[:n], weight), alone[:n])


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_tile_in_another_order_is_seen(kind):
    weight = random_codes(64, 64, 2, kind)
    x = torch.randn(3, 64).bfloat16()
    made = Tiles.of(weight)
    wanted = tiles.product(x, made)
    of_group = made.kept[0].view(2, 2, -1)
    end = of_group.shape[2] - 32 * weight.scales.element_size()
    swapped = (
        of_group[:, :, :end].view(2, 2, -1, 16).flip(-1)
        if kind == "int8"
        else of_group[:, :, :end].view(2, 2, -1, 16) >> 4 | of_group[:, :, :end].view(2, 2, -1, 16) << 4
    )
    of_group[:, :, :end] = swapped.reshape(2, 2, -1)
    assert not torch.allclose(tiles.product(x, made), wanted, atol=1)


def error(found, wanted):
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


@pytest.mark.parametrize("options", [dict(bits=8), dict(bits=4, group=16), dict(bits=3, group=8), dict(bits=4)])
@torch.inference_mode()
def test_the_step_is_the_quantized_model(options):
    model = llama()
    before = {name: p.clone() for name, p in model.named_parameters()}
    options = {"group": "channel"} | options
    step = native_step(model, **options, head_bits=None)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    rounded = copy.deepcopy(model)
    replace_linears(rounded, rounding(**options), skip=[rounded.get_output_embeddings()])
    wanted = to_dense(rounded).float()(IDS).logits
    assert error(step(IDS).logits, wanted) < 0.03
    assert options["bits"] == 8 or error(model.float()(IDS).logits, wanted) > 0.03  # else it would show nothing


@torch.inference_mode()
def test_nf4_and_an_output_layer_in_eight_bits():
    model = llama()
    wanted = to_dense(nf4_codes.install(copy.deepcopy(model), 16)).float()(IDS).logits
    step = native_nf4(model, 16, head_bits=None)
    assert error(step(IDS).logits, wanted) < 0.03
    smaller = native_nf4(model, 16)
    assert 0 < error(smaller(IDS).logits, step(IDS).logits) < 0.03
    assert step.weight_bytes - smaller.weight_bytes == 128 * 64 - 128 * 4  # tiles hold 128 rows


@torch.inference_mode()
def test_codes_that_somebody_else_chose_are_kept():
    model = install(llama(), 4, 16)
    model.model.layers[1].mlp.down_proj.stored.bitwise_not_()  # no rounding would choose these
    wanted = to_dense(copy.deepcopy(model)).float()(IDS).logits
    assert error(NativeLlama(model)(IDS).logits, wanted) < 0.03  # also as it is, the output layer in bfloat16
    assert error(native_step(model, head_bits=None)(IDS).logits, wanted) < 0.03


@torch.inference_mode()
def test_weights_and_inputs_of_eight_bits_are_the_model_s():
    model = llama(intermediate_size=96)
    wanted = w8a8(copy.deepcopy(model)).float()(IDS).logits
    step = native_w8a8(model, head_bits=None)
    assert error(step(IDS).logits, wanted) < 0.03
    assert error(step(IDS).logits, native_step(model, head_bits=None)(IDS).logits) > 1e-3  # inputs are rounded, too


@pytest.mark.parametrize("make", MAKES)
def test_it_works_in_batches_and_under_speculation_to_the_bit(make):
    step = make(llama(intermediate_size=96))
    assert all(equals_recomputation(step, seed) for seed in range(5))
    truth = emitted(steps(step, PROMPT, max_new_tokens=20))
    assert emitted(steps(step, PROMPT, max_new_tokens=20, proposer=Foreseeing(truth, 2))) == truth
    with torch.inference_mode():
        one_by_one = [step(IDS[:, : i + 1], logits_to_keep=1).logits[0, -1] for i in range(IDS.shape[1])]
        assert torch.equal(torch.stack(one_by_one), step(IDS).logits[0])


@torch.inference_mode()
def test_on_a_processor_without_look_ups_it_is_the_same_function(tmp_path, monkeypatch):
    if "avx2" not in library._flags():
        pytest.skip("needs an x86 processor")
    model = llama(intermediate_size=96)
    wanted = [make(model)(IDS).logits for make in MAKES]
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", tuple(f.replace("native", "haswell") for f in library.FLAGS))
    fresh()
    try:
        plain = [make(model)(IDS).logits for make in MAKES]
    finally:
        fresh()
    for a, b in zip(plain, wanted):
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


def test_layers_with_the_same_input_are_joined_with_their_biases():
    layers = [nn.Linear(32, n).bfloat16() for n in (48, 16)]
    for make in (rounding(8), rounding(4, 16), lambda linear: Nf4Linear(linear, 16)):
        both = Beside(tuple(make(each) for each in layers))
        weight = matrix(both)
        wanted = torch.cat([each.dequantized() for each in both.linears]).double()
        torch.testing.assert_close(numbers(weight), wanted, rtol=4e-3, atol=0)
        assert torch.equal(bias(both), torch.cat([each.bias for each in layers]))


def test_what_it_does_not_read_is_refused_in_a_sentence():
    model = llama()
    with pytest.raises(CourseError, match="symmetric integers"):
        native_step(install(copy.deepcopy(model), 4, 16, symmetric=False))
    with pytest.raises(CourseError, match="symmetric integers of 8 bits, or of up to 4"):
        native_step(model, 6)
    with pytest.raises(CourseError, match='load it in "bfloat16"'):
        native_step(copy.deepcopy(model).float())
    with pytest.raises(CourseError, match="quantized weights are read in bfloat16"):
        NativeLlama(install(copy.deepcopy(model).float(), 8))
    with pytest.raises(CourseError, match="a multiple of 16"):
        native_step(llama(intermediate_size=88))
    with pytest.raises(CourseError, match="can't be read in pairs"):
        Codes(torch.zeros(4, 6, dtype=torch.int8), torch.ones(4, 2))
    with pytest.raises(CourseError, match="Inputs of eight bits come in 32s"):
        native_w8a8(model)  # its inner size is 80
    with pytest.raises(CourseError, match="between -127 and 127"):
        Codes(torch.full((4, 4), -128, dtype=torch.int8), torch.ones(4, 1))
    with pytest.raises(CourseError, match="between 0 and 15"):
        Codes(torch.full((4, 4), 16, dtype=torch.uint8), torch.ones(4, 1), EVEN_LEVELS)
    with pytest.raises(CourseError, match="with the same settings"):
        matrix(Beside((rounding(8)(nn.Linear(32, 4)), rounding(4, 16)(nn.Linear(32, 4)))))
    with pytest.raises(CourseError, match="quantize all of them, or none"):
        matrix(Beside((rounding(8)(nn.Linear(32, 4)), nn.Linear(32, 4))))
    with pytest.raises(CourseError, match="blocks within a row"):
        matrix(Nf4Linear(nn.Linear(32, 4), 64))
    with pytest.raises(CourseError, match="can't be packed"):
        quantized_fused(_with_another_linear(model), rounding(8))


def _with_another_linear(model):
    class Other(nn.Linear):
        pass

    model.model.layers[0].mlp.down_proj = Other(80, 64, bias=False)
    return model
