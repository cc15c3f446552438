"""The packed kernels multiply by what the codes stand for, few tokens and many; what they can't take is refused."""

import copy

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization import packed as module
from helpers.weights.quantization.integer import IntegerLinear, install, linear_bytes, to_dense
from helpers.weights.quantization.packed import (
    DynamicInt8,
    PackedInt4,
    PackedInt8,
    aligned,
    beside,
    pack,
    packed,
    rounded_for_kernels,
    token_codes,
    unpacked_int4,
)
from tests.tiny_models import tiny

KINDS = {
    "int8": dict(bits=8, group="channel"),
    "int8, one scale": dict(bits=8, group="tensor"),
    "int4": dict(bits=4, group=32),
    "int4, channels": dict(bits=4, group="channel"),
    "int4, zero points": dict(bits=4, group=64, symmetric=False),
    "int4, zero points of channels": dict(bits=4, group="channel", symmetric=False),
}


def linear(in_features=192, out_features=128, bias=False, seed=0):
    torch.manual_seed(seed)
    made = nn.Linear(in_features, out_features, bias=bias, dtype=torch.bfloat16)
    with torch.no_grad():
        made.weight.mul_(torch.logspace(-2, 2, out_features)[:, None])  # channels of very different size
    return made


def product(x, weight, bias=None):
    """In float64, of the numbers as they are."""
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def assert_rounded(y, exact, roundings=1):
    """Whether y is bfloat16's nearest to exact, but for so many roundings on the way and the order of the sum."""
    assert y.dtype == torch.bfloat16
    ulp = 2.0**-8 * exact.abs() * roundings
    assert ((y.double() - exact).abs() <= ulp + 1e-5 * exact.abs().amax()).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_tokens", [1, 2, 5, 63, 64, 100])
@torch.inference_mode()
def test_the_product_is_that_of_the_numbers_that_the_codes_stand_for(kind, num_tokens):
    layer = packed(IntegerLinear.of(linear(), **KINDS[kind]))
    x = torch.randn(num_tokens, 192).bfloat16()
    y, weight = layer(x), layer.dequantized()
    widened = num_tokens >= layer.widen_from
    if widened and isinstance(layer, PackedInt4):
        weight = weight.bfloat16()  # the widened weight is rounded, and not only the output
    assert_rounded(y, product(x, weight), roundings=3 if widened else 1)


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_it_multiplies_by_the_integer_layer_s_weight(kind):
    dense, options = linear(), KINDS[kind]
    layer = IntegerLinear.of(dense, **options)
    weight, wanted = packed(layer).dequantized(), layer.dequantized()
    # Scales of channels, and offsets, are rounded to bfloat16; scales of groups and symmetric ones of them are not.
    exact = isinstance(options["group"], int) and options.get("symmetric", True)
    size = wanted.abs().amax(1, keepdim=True)
    assert torch.equal(weight, wanted) if exact else ((weight - wanted).abs() <= 2.0**-7 * size).all()
    for_kernels = rounded_for_kernels(dense, **options)
    if options.get("symmetric", True):
        assert torch.equal(packed(for_kernels).dequantized(), for_kernels.dequantized())


@pytest.mark.parametrize("kind", ["int8", "int4"])
@torch.inference_mode()
def test_any_shape_and_dtype_of_input_goes_in_and_the_bias_is_added(kind):
    layer = packed(IntegerLinear.of(linear(bias=True), **KINDS[kind]))
    weight, bias = layer.dequantized(), layer.bias
    x = torch.randn(2, 3, 192)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        y = layer(x.to(dtype))
        assert y.dtype in (dtype, torch.promote_types(dtype, torch.float32)) and y.shape == (2, 3, 128)
        wanted = product(x.to(dtype), weight, bias)
        torch.testing.assert_close(y.double(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())
    assert layer(x[:, :0].bfloat16()).shape == (2, 0, 128)


@torch.inference_mode()
def test_rows_that_lie_anywhere_in_memory_are_multiplied():
    layer = packed(IntegerLinear.of(linear(), **KINDS["int8"]))
    store = torch.randn(7 * 192 + 5).bfloat16()
    x = store[5:].view(7, 192)  # no kernel can load 32 bytes from here
    assert x.data_ptr() % 32 and aligned(x).data_ptr() % 64 == 0
    assert torch.equal(layer(x), layer(x.clone())) and torch.equal(layer(x[::2]), layer(x[::2].clone()))
    assert torch.equal(layer(store[:1344].view(192, 7).T), layer(store[:1344].view(192, 7).T.contiguous()))


@torch.inference_mode()
def test_scales_that_belong_to_other_groups_are_caught():
    layer, x = packed(IntegerLinear.of(linear(), **KINDS["int4"])), torch.randn(3, 192).bfloat16()
    wanted = product(x, layer.dequantized())
    layer.scales = layer.scales.flip(0).contiguous()  # the mistake: the groups of a row in another order
    with pytest.raises(AssertionError):
        assert_rounded(layer(x), wanted)


@torch.inference_mode()
def test_an_offset_without_the_eight_is_caught():
    integer, x = IntegerLinear.of(linear(), **KINDS["int4, zero points"]), torch.randn(3, 192).bfloat16()
    layer = packed(integer)
    wanted = product(x, integer.dequantized())
    error = (layer(x).double() - wanted).norm() / wanted.norm()
    layer.scales[..., 1] -= 8 * layer.scales[..., 0]  # the mistake: the kernel's codes begin at -8
    assert error < 0.02 < 0.3 < (layer(x).double() - wanted).norm() / wanted.norm()


def test_the_order_in_memory_is_found_and_read_back():
    block, order = module.int4_layout()
    codes = torch.randint(16, (2 * block, 64), dtype=torch.int32)
    kept = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    read = unpacked_int4(kept, block, order).transpose(1, 2).reshape_as(codes)
    assert torch.equal(read.int(), codes)
    other = unpacked_int4(kept, block, "pairs" if order == "halves" else "halves")
    assert not torch.equal(other.transpose(1, 2).reshape_as(codes).int(), codes)


def test_an_order_that_nobody_knows_is_refused(monkeypatch):
    module.int4_layout.cache_clear()
    monkeypatch.setattr(torch, "_convert_weight_to_int4pack_for_cpu", lambda codes, _: codes[:, ::2].to(torch.uint8))
    with pytest.raises(CourseError, match="in an order that isn't known here"):
        module.int4_layout()
    module.int4_layout.cache_clear()


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((192, 128), dict(bits=8, group=64), "in groups of 64"),
        ((192, 128), dict(bits=8, group="channel", symmetric=False), "8 bits with zero points"),
        ((200, 128), dict(bits=8, group="channel"), "200 inputs"),
        ((192, 128), dict(bits=4, group=16), "groups of 16"),
        ((192, 72), dict(bits=4, group=32), "72 outputs"),
        ((192, 128), dict(bits=3, group=32), "3 bits"),
    ],
)
def test_what_the_kernels_cannot_take_is_refused(shape, options, words):
    with pytest.raises(CourseError, match=words):
        packed(IntegerLinear.of(linear(*shape), **options))
    if options["bits"] == 8:
        with pytest.raises(CourseError, match=words):
            DynamicInt8(IntegerLinear.of(linear(*shape), **options))


# ---- eight-bit inputs


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_integers_times_integers(bias):
    integer = IntegerLinear.of(linear(bias=bias), **KINDS["int8"])
    layer, x = DynamicInt8(integer), torch.randn(2, 9, 192).bfloat16()
    x[0, 0, 7] = 300  # an outlier takes the range of its own token
    x[1, 1] = 0
    scales = x.float().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    codes = (x.float() / scales).round()
    before = x.float()
    token_codes(before)
    assert torch.equal(before, x.float())  # the input stays as it is
    assert codes.abs().max() == 127 and codes[0, 0].abs().sort().values[-2] < 3
    assert_rounded(layer(x), product(codes * scales.double(), integer.dequantized(), integer.bias), roundings=2)


@torch.inference_mode()
def test_a_token_does_not_depend_on_the_others():
    layer, x = DynamicInt8(IntegerLinear.of(linear(), **KINDS["int8"])), torch.randn(5, 192).bfloat16()
    x[3] *= 1000
    assert torch.equal(layer(x)[:1], layer(x[:1]))
    shared = x.float().abs().max() / 127  # the mistake: one scale for all
    assert not torch.equal((x.float() / shared).round(), token_codes(x)[0])


@torch.inference_mode()
def test_layers_can_be_copied_and_keep_their_bytes():
    x = torch.randn(3, 192).bfloat16()
    for kind, make in (("int8", packed), ("int4", packed), ("int8", DynamicInt8)):
        layer = make(IntegerLinear.of(linear(bias=True), **KINDS[kind]))
        wanted, again = layer(x), copy.deepcopy(layer)
        assert torch.equal(again(x), wanted) and again.bias is not layer.bias
        again.to(torch.bfloat16).half()
        assert torch.equal(copy.deepcopy(again).bfloat16()(x), wanted)


# ---- whole models


def test_layers_beside_each_other_are_one():
    layers = [IntegerLinear.of(linear(out_features=n, seed=n), 4, 32, symmetric=False) for n in (64, 32, 32)]
    one = beside(layers)
    assert torch.equal(one.dequantized(), torch.cat([each.dequantized() for each in layers]))
    with_bias = [IntegerLinear.of(linear(out_features=n, bias=True), 8) for n in (64, 32)]
    assert torch.equal(beside(with_bias).bias, torch.cat([each.bias for each in with_bias]))
    for unlike in (IntegerLinear.of(linear(), 8), IntegerLinear.of(linear(), 4, 64, False)):
        with pytest.raises(CourseError, match="same bits and groups"):
            beside([layers[0], unlike])


@torch.inference_mode()
def test_a_packed_model_is_the_quantized_model():
    ids = torch.tensor([[5, 9, 13, 2, 40, 77]])
    model = install(tiny().bfloat16(), 8)
    held = linear_bytes(model)
    dense = to_dense(copy.deepcopy(model)).float()
    wanted = dense(ids, use_cache=False).logits
    logits = pack(model)(ids, use_cache=False).logits
    assert (logits - wanted).norm() / wanted.norm() < 0.03
    assert 0.9 * held < linear_bytes(model) <= held  # the scales are half as long
    assert not any(isinstance(each, IntegerLinear) for each in model.modules())
    assert sum(isinstance(each, PackedInt8) for each in model.modules()) == 14
    with pytest.raises(CourseError, match="no integer layers to pack"):
        pack(model)
