"""Every variant is the same product; the choice is measured once and kept."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.decoding.generate import steps
from helpers.kernels import packed_linear
from helpers.kernels.packed_linear import NUM_TOKENS, VARIANTS, PackedLinear, fastest, install, measure_variants
from tests.tiny_models import greedy, tiny


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    monkeypatch.setattr(packed_linear, "_of_this_process", {})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_tokens", [1, 2, 7, 32, 64, 150])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_variant_is_the_same_product(variant, num_tokens, bias, dtype):
    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias).to(dtype)
    x = torch.randn(1, num_tokens, 48, dtype=dtype)
    with torch.no_grad():
        wanted, y = linear(x), PackedLinear(linear, [variant] * len(NUM_TOKENS))(x)
    assert y.shape == wanted.shape and y.dtype == dtype
    torch.testing.assert_close(y, wanted, atol=1e-6 if dtype == torch.float32 else 0.02, rtol=1e-2)


def test_no_tokens_give_no_outputs():
    assert PackedLinear(nn.Linear(8, 4), ["packed"] * len(NUM_TOKENS))(torch.zeros(2, 0, 8)).shape == (2, 0, 4)


@torch.inference_mode()
def test_a_packed_layer_can_be_copied_and_cast():
    linear, x = nn.Linear(48, 80), torch.randn(3, 48)
    layer = PackedLinear(linear, ["packed"] * len(NUM_TOKENS))
    wanted = layer(x)
    torch.testing.assert_close(copy.deepcopy(layer)(x), wanted)
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(half(x.bfloat16()).float(), wanted, atol=0.05, rtol=0.05)
    again = copy.deepcopy(layer)
    again(x)
    again.load_state_dict(nn.Linear(48, 80).state_dict())
    assert not torch.allclose(again(x), wanted)
    with torch.no_grad():
        linear.weight.zero_()
    assert layer(x).any()  # the copy is the copy: what the docstring warns of
    assert not copy.deepcopy(layer).float()(x).sub(linear.bias).any()


@pytest.mark.parametrize("variant", ["plain", "native"])
def test_a_dtype_that_a_variant_lacks_gets_the_plain_product(variant):
    linear, x = nn.Linear(5, 3), torch.randn(2, 5)
    layer = PackedLinear(linear, [variant] * len(NUM_TOKENS))
    with torch.no_grad():
        wanted = layer(x)
        half = layer.half()
        torch.testing.assert_close(half(x.half()).float(), wanted, atol=0.02, rtol=0.02)


def test_layers_of_odd_sizes_are_installed_with_what_all_of_them_take():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).bfloat16()
    with torch.no_grad():
        wanted, found = model(torch.ones(2, 4).bfloat16()), install(model, turns=1)(torch.ones(2, 4).bfloat16())
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_get_through_the_product_in_cpp(bias):
    linear, x = nn.Linear(48, 80, bias=bias), torch.randn(3, 48, requires_grad=True)
    PackedLinear(linear, ["native"] * len(NUM_TOKENS))(x).sum().backward()
    assert x.grad is not None and linear.weight.grad is not None


def test_a_wrong_variant_changes_the_tokens_of_a_model(monkeypatch):
    monkeypatch.setattr(packed_linear, "fastest", lambda times: "padded")
    monkeypatch.setitem(VARIANTS, "padded", lambda x, w, b: packed_linear.plain(x.roll(1, -1), w, b))  # the mistake
    model, prompt = tiny().float(), [5, 9, 2, 44]
    truth = greedy(model, prompt, 30)
    assert [t for s in steps(install(model), prompt, max_new_tokens=30) for t in s.emitted] != truth


def test_the_default_stays_where_the_difference_is_noise():
    assert fastest({"plain": 1.0, "swapped": 0.97}) == "plain" and fastest({"plain": 1.0, "swapped": 0.5}) == "swapped"


def test_a_busy_machine_s_choice_is_kept_for_this_process_only(monkeypatch, tmp_path):
    monkeypatch.setattr(packed_linear, "is_calm", lambda: SimpleNamespace(calm=False))
    first = packed_linear.variants_of(install(tiny().float()))
    assert not (tmp_path / "packed_linear.json").exists()
    monkeypatch.setattr(packed_linear, "measure_variants", None)  # a second measurement would fail
    assert packed_linear.variants_of(install(tiny().float())) == first


def test_installed_layers_give_the_same_tokens_and_are_measured_once(monkeypatch):
    monkeypatch.setattr(packed_linear, "is_calm", lambda: SimpleNamespace(calm=True))
    model, prompt = tiny().float(), [5, 9, 2, 44]
    truth = greedy(model, prompt, 30)
    before = {p.data_ptr() for p in model.parameters()}
    install(model)
    assert {p.data_ptr() for p in model.parameters()} == before  # shared, not copied
    assert [t for s in steps(model, prompt, max_new_tokens=30) for t in s.emitted] == truth
    assert packed_linear.variants_of(model)

    def again(*_):
        raise AssertionError("measured twice")

    monkeypatch.setattr(packed_linear, "measure_variants", again)
    install(tiny().float())


def test_what_an_older_version_kept_is_measured_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(packed_linear, "is_calm", lambda: SimpleNamespace(calm=True))
    install(tiny().float())
    kept = tmp_path / "packed_linear.json"
    choices = {
        entry: {shape: ["sorcery"] * 7 for shape in of_entry}
        for entry, of_entry in json.loads(kept.read_text()).items()
    }
    kept.write_text(json.dumps(choices))
    chosen = packed_linear.variants_of(install(tiny().float()))
    assert chosen and set().union(*chosen.values()) <= set(VARIANTS)


def test_every_variant_is_timed_for_every_shape():
    with torch.no_grad():
        measured = measure_variants([nn.Linear(16, 16), nn.Linear(16, 8)], (1, 3), turns=1)
    assert set(measured) == {1, 3}
    times = measured[3]
    assert set(times) == {(16, 16), (8, 16)}
    assert all(set(of_shape) == set(VARIANTS) and min(of_shape.values()) > 0 for of_shape in times.values())


def test_the_seconds_are_those_of_one_layer(monkeypatch):
    monkeypatch.setattr(packed_linear, "take_turns", lambda arms, turns, **options: {arm: [2.0, 3.0] for arm in arms})
    linears = [nn.Linear(16, 16, bias=False), nn.Linear(16, 8), nn.Linear(16, 16, bias=False)]
    with torch.no_grad():
        assert measure_variants(linears, (1,), turns=2)[1][16, 16] == dict.fromkeys(VARIANTS, 2.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_a_variant_that_the_machine_has_not_is_left_out(monkeypatch, dtype):
    def missing(x, weight, bias):
        raise RuntimeError("could not create a primitive descriptor")

    monkeypatch.setitem(packed_linear.VARIANTS, "missing", missing)
    linear = nn.Linear(16, 8, dtype=dtype)
    assert "missing" not in packed_linear.usable_variants(linear) and "plain" in packed_linear.usable_variants(linear)
    assert set(packed_linear.measure_variants([linear], (1,), turns=1)[1][8, 16]) == set(
        packed_linear.usable_variants(linear)
    )


def test_without_turns_nothing_is_measured_and_all_is_packed(monkeypatch):
    monkeypatch.setattr(packed_linear, "measure_variants", None)
    chosen = packed_linear.variants_of(install(tiny().float(), turns=0))
    assert chosen and {v for variants in chosen.values() for v in variants} <= {"packed", "plain"}
    assert not packed_linear._file().exists()
