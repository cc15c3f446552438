"""The fused step with packed integer layers is the quantized model; when layers are widened is measured once."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.kernels import packed_step as module
from helpers.kernels.fused_llama import Beside, FusedLlama
from helpers.kernels.packed_linear import PackedLinear
from helpers.kernels.packed_step import FEWEST, NEVER, crossing, packed_step, time_both_ways, widening
from helpers.weights.quantization.integer import IntegerLinear, install, to_dense
from helpers.weights.quantization.packed import DynamicInt8, Packed, PackedInt4, PackedInt8, pack, packed
from tests.speculation.test_medusa import PROMPT, Foreseeing, emitted
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2, 40, 77]])


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    monkeypatch.setattr(module, "_of_this_process", {})


def half(kind="llama"):
    return tiny(kind).bfloat16()


def error(logits, wanted):
    wanted = wanted.float()
    return ((logits.float() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("options", [dict(bits=8), dict(bits=4, group=32), dict(bits=4, group=32, symmetric=False)])
@torch.inference_mode()
def test_it_is_the_model_rounded_to_nearest(kind, options):
    model = half(kind)
    before = {name: p.clone() for name, p in model.named_parameters()}
    step = packed_step(model, **options, head_bits=None, turns=0)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    wanted = to_dense(install(copy.deepcopy(model), **{"group": "channel"} | options)).float()(IDS).logits
    assert error(step(IDS).logits, wanted) < 0.04
    layer, cls = step.layers[0], PackedInt8 if options["bits"] == 8 else PackedInt4
    assert all(isinstance(getattr(layer, name), cls) for name in module.JOINED)
    assert layer.qkv.out_features == 128 and isinstance(step.lm_head, PackedLinear)


@torch.inference_mode()
def test_codes_that_somebody_else_chose_are_kept():
    model = install(half(), 8)
    down = model.model.layers[1].mlp.down_proj
    down.stored.neg_()  # no rounding would choose these
    wanted = to_dense(copy.deepcopy(model)).float()(IDS).logits
    assert isinstance(FusedLlama(model).layers[0].qkv, Beside)
    step = packed_step(model, head_bits=None, turns=0)
    assert error(step(IDS).logits, wanted) < 0.04
    assert torch.equal(step.layers[1].down.codes, down.integer_codes())
    assert isinstance(model.model.layers[1].mlp.down_proj, IntegerLinear)  # the model stays as it is
    step.layers[0].qkv.codes = step.layers[0].qkv.codes.roll(32, 0)  # the mistake: joined in another order
    assert error(step(IDS).logits, wanted) > 0.3


@torch.inference_mode()
def test_the_output_layer_has_bits_of_its_own():
    model = half()
    wanted = packed_step(model, head_bits=None, turns=0)(IDS).logits
    step = packed_step(model, turns=0)
    assert isinstance(step.lm_head, PackedInt8) and 0 < error(step(IDS).logits, wanted) < 0.04
    assert step.embed.weight is model.get_input_embeddings().weight


@torch.inference_mode()
def test_inputs_of_eight_bits():
    step = packed_step(half(), dynamic=True, turns=0)
    assert all(isinstance(getattr(step.layers[0], name), DynamicInt8) for name in module.JOINED)
    assert error(step(IDS).logits, packed_step(half(), turns=0)(IDS).logits) < 0.1


@pytest.mark.parametrize("options", [dict(bits=8), dict(bits=4, group=32), dict(bits=8, dynamic=True)])
def test_it_decodes(options):
    step = packed_step(half(), **options, turns=0)
    assert len(emitted(steps(step, PROMPT, max_new_tokens=20))) == 20


@pytest.mark.parametrize("make", [packed, DynamicInt8])
def test_integer_layers_work_in_batches_and_under_speculation(make):
    step = FusedLlama(pack(install(tiny(), 8), make))  # in float64, where all layers are widened and nothing is rounded
    assert all(equals_recomputation(step, seed) for seed in range(5))
    truth = emitted(steps(step, PROMPT, max_new_tokens=20))
    assert emitted(steps(step, PROMPT, max_new_tokens=20, proposer=Foreseeing(truth, 2))) == truth
    step.layers[0].qkv.linears[1].scales[:16] *= 2  # a mistake would be seen
    assert emitted(steps(step, PROMPT, max_new_tokens=20)) != truth


def test_another_kind_of_model_is_copied_and_packed():
    model = half("mistral")  # its windows are none of the fused step's
    step = packed_step(model, turns=0)
    assert type(step) is type(model) and sum(isinstance(each, PackedInt8) for each in step.modules()) == 14
    assert step.get_input_embeddings().weight is model.get_input_embeddings().weight
    assert not any(isinstance(each, Packed) for each in model.modules())
    with torch.inference_mode():
        wanted = to_dense(install(copy.deepcopy(model), 8)).float()(IDS, use_cache=False).logits
        assert error(step(IDS, use_cache=False).logits, wanted) < 0.04


def test_what_can_not_be_packed_is_refused():
    with pytest.raises(CourseError, match='load the model with dtype="bfloat16"'):
        packed_step(tiny().float(), turns=0)
    with pytest.raises(CourseError, match="A PackedInt8 can't be packed"):
        packed_step(pack(install(half(), 8)), turns=0)


# ---- from how many tokens on


def test_where_two_straight_lines_cross():
    assert crossing({16: 16.0, 64: 64.0}, {16: 26.0, 64: 26.0 + 24}) == 36  # 16 + 10 / (1 - 0.5)
    assert crossing({16: 16.0, 64: 64.0}, {16: 8.0, 64: 8.0}) == 8
    assert crossing({16: 16.0, 64: 64.0}, {16: 1.0, 64: 1.0}) == FEWEST
    assert crossing({16: 1.0, 64: 2.0}, {16: 8.0, 64: 20.0}) == NEVER
    assert crossing({16: 9.0, 64: 9.0}, {16: 8.0, 64: 8.0}) == FEWEST


def test_both_ways_are_timed_for_every_shape():
    step = packed_step(half(), turns=0)
    layers = [each for each in step.modules() if isinstance(each, Packed)]
    times = time_both_ways(layers, 1)
    assert set(times) == {f"PackedInt8 {n}" for n in ("128x64", "64x64", "192x64", "64x96", "97x64")}
    assert all(set(way) == {16, 64} and min(way.values()) > 0 for ways in times.values() for way in ways)


def test_what_was_measured_is_kept_where_the_machine_was_calm(monkeypatch, tmp_path):
    calm = SimpleNamespace(calm=False)
    monkeypatch.setattr(module, "is_calm", lambda: calm)
    times = dict.fromkeys([f"PackedInt8 {n}" for n in ("128x64", "64x64", "192x64", "64x96", "97x64")])
    timed = {name: ({16: 16.0, 64: 64.0}, {16: 8.0, 64: 8.0}) for name in times}
    monkeypatch.setattr(module, "time_both_ways", lambda layers, turns: timed)
    assert set(widening(packed_step(half(), turns=1)).values()) == {8}
    assert not (tmp_path / "packed_step.json").exists()
    monkeypatch.setattr(module, "time_both_ways", None)  # a second measurement would fail
    assert set(widening(packed_step(half(), turns=1)).values()) == {8}
    assert set(widening(packed_step(half(), turns=0)).values()) == {64}
    monkeypatch.setattr(module, "_of_this_process", {})
    monkeypatch.setattr(module, "time_both_ways", lambda layers, turns: timed)
    calm.calm = True
    packed_step(half(), turns=1)
    [entry] = json.loads((tmp_path / "packed_step.json").read_text()).values()
    assert set(entry) == set(times)


@torch.inference_mode()
def test_widened_or_not_the_tokens_are_the_same_function():
    step = packed_step(half(), turns=0)
    few = step(IDS).logits
    for each in step.modules():
        if isinstance(each, Packed):
            each.widen_from = 0
    assert 0 < error(step(IDS).logits, few) < 0.03
