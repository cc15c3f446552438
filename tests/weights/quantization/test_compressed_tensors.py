"""Checkpoints of our codes: compressed-tensors' own functions read them, and so does transformers."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from helpers.errors import CourseError
from helpers.weights.quantization.compressed_tensors import (
    as_served,
    checkpoint_tensors,
    int4_tensors,
    packed_to_int32,
    save_compressed,
)
from helpers.weights.quantization.integer import IntegerLinear, install, to_dense
from helpers.weights.quantization.packed import DynamicInt8, PackedInt4
from tests.tiny_tokenizer import tiny_tokenizer

OPTIONS = {"w8a8": dict(bits=8), "w4a16": dict(bits=4, group=32)}
IDS = torch.tensor([[5, 9, 13, 2, 40, 77]])


def small(**changes):
    torch.manual_seed(0)
    shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(vocab_size=600, **shape | dict(tie_word_embeddings=True) | changes)
    return LlamaForCausalLM(config).bfloat16().eval()


def saved(folder, kind, **changes):
    model = install(small(**changes), **OPTIONS[kind])
    return model, save_compressed(model, tiny_tokenizer(), folder / "made", kind)


def test_eight_codes_lie_in_an_int32_as_the_library_has_them():
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    codes = torch.randint(-8, 8, (6, 64), dtype=torch.int8)
    kept = packed_to_int32(codes)
    assert torch.equal(kept, helpers.pack_to_int32(codes, 4))
    assert torch.equal(helpers.unpack_from_int32(kept, 4, codes.shape), codes)
    assert packed_to_int32(torch.tensor([[-8] * 7 + [-7]]).to(torch.int8)).item() == 1 << 28


@pytest.mark.parametrize("kind", OPTIONS)
def test_the_files_say_what_they_hold(tmp_path, kind):
    model, folder = saved(tmp_path, kind)
    assert folder == tmp_path / "made" and [p.name for p in tmp_path.iterdir()] == ["made"]
    said = json.loads((folder / "config.json").read_text())
    assert said["dtype"] == "bfloat16" and said["architectures"] == ["LlamaForCausalLM"]
    quantization = said["quantization_config"]
    assert quantization["quant_method"] == "compressed-tensors" and quantization["ignore"] == ["lm_head"]
    assert quantization["format"] == {"w8a8": "int-quantized", "w4a16": "pack-quantized"}[kind]
    [group] = quantization["config_groups"].values()
    assert group["weights"]["num_bits"] == OPTIONS[kind]["bits"] and group["targets"] == ["Linear"]
    tensors, layer = load_file(folder / "model.safetensors"), model.model.layers[1].mlp.down_proj
    name = "model.layers.1.mlp.down_proj"
    if kind == "w8a8":
        assert group["input_activations"]["dynamic"] and group["input_activations"]["strategy"] == "token"
        assert torch.equal(tensors[f"{name}.weight"], layer.integer_codes())
        assert torch.equal(tensors[f"{name}.weight_scale"], layer.scales)
    else:
        assert group["input_activations"] is None and group["weights"]["group_size"] == 32
        assert tensors[f"{name}.weight_packed"].shape == (64, 16) and tensors[f"{name}.weight_scale"].shape == (64, 4)
        assert tensors[f"{name}.weight_shape"].tolist() == [64, 128]
    assert "lm_head.weight" not in tensors and tensors["model.embed_tokens.weight"].dtype == torch.bfloat16
    assert not any("stored" in key or key.endswith((".scales", ".zero_points")) for key in tensors)
    assert (folder / "tokenizer.json").exists() and (folder / "generation_config.json").exists()


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("changes", [{}, dict(tie_word_embeddings=False, attention_bias=True)])
@torch.inference_mode()
def test_transformers_loads_the_same_weights(tmp_path, kind, changes):
    pytest.importorskip("compressed_tensors")
    model, folder = saved(tmp_path, kind, **changes)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    theirs(IDS)  # the first call decompresses
    ours = to_dense(model)
    for name, module in ours.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            read = theirs.get_submodule(name).weight.float()
            # In bfloat16, and so are scales of channels: transformers holds them in the model's dtype.
            torch.testing.assert_close(read, module.weight.float(), rtol=2**-7, atol=0)
    assert torch.equal(theirs.lm_head.weight, model.lm_head.weight)
    assert (theirs.lm_head.weight is theirs.model.embed_tokens.weight) != bool(changes)
    if changes:
        assert torch.equal(theirs.model.layers[0].self_attn.q_proj.bias, ours.model.layers[0].self_attn.q_proj.bias)


def test_codes_in_another_order_are_caught(tmp_path):
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    layer = IntegerLinear.of(nn.Linear(64, 32), 4, 32)
    tensors = int4_tensors(layer)
    read = helpers.unpack_from_int32(tensors["weight_packed"], 4, tensors["weight_shape"])
    assert torch.equal(read, layer.integer_codes())
    swapped = packed_to_int32(layer.integer_codes().flip(1))  # the mistake: the first code in the highest bits
    assert not torch.equal(helpers.unpack_from_int32(swapped, 4, tensors["weight_shape"]), layer.integer_codes())


def test_layers_that_stay_dense_are_named(tmp_path):
    model = small()
    kept = model.model.layers[0].mlp.down_proj
    install(model, 8)
    model.model.layers[0].mlp.down_proj = kept
    folder = save_compressed(model, tiny_tokenizer(), tmp_path / "made", "w8a8")
    ignored = json.loads((folder / "config.json").read_text())["quantization_config"]["ignore"]
    assert ignored == ["model.layers.0.mlp.down_proj", "lm_head"]
    assert load_file(folder / "model.safetensors")["model.layers.0.mlp.down_proj.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("w8a8", dict(bits=4, group=32), "other codes than w8a8 holds"),
        ("w8a8", dict(bits=8, symmetric=False), "other codes than w8a8 holds"),
        ("w4a16", dict(bits=4, group="channel"), "a group of 32 or 64"),
        ("w4a16", dict(bits=4, group=32, symmetric=False), "in 4 bits, symmetric"),
        ("w2a16", dict(bits=4, group=32), "no kind 'w2a16'"),
    ],
)
def test_what_a_kind_cannot_hold_is_refused(tmp_path, kind, options, words):
    model = install(small(), **options)
    with pytest.raises(CourseError, match=words):
        save_compressed(model, tiny_tokenizer(), tmp_path / "made", kind)
    assert not list(tmp_path.iterdir())


def test_sizes_that_vllm_cannot_multiply_and_models_without_codes_are_refused(tmp_path):
    model = install(small(intermediate_size=112), 4, 16)
    with pytest.raises(CourseError, match=r"112 outputs.*multiples of 32"):
        as_served(model, "w4a16")
    with pytest.raises(CourseError, match="no integer layers to write"):
        save_compressed(small(), tiny_tokenizer(), tmp_path / "made", "w8a8")
    model = install(small(tie_word_embeddings=False), 8)
    model.lm_head = IntegerLinear.of(model.lm_head, 8)
    with pytest.raises(CourseError, match="output layer stays in 16 bits"):
        save_compressed(model, tiny_tokenizer(), tmp_path / "made", "w8a8")


@pytest.mark.parametrize(("kind", "cls"), [("w8a8", DynamicInt8), ("w4a16", PackedInt4)])
def test_the_model_as_it_is_served(kind, cls):
    model = as_served(install(small(), **OPTIONS[kind]), kind)
    assert sum(isinstance(each, cls) for each in model.modules()) == 14


def test_the_tensors_are_no_views_of_the_model():
    model = install(small(), 8)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, IntegerLinear)}
    tensors = checkpoint_tensors(model, layers, "w8a8")
    tensors["model.layers.0.mlp.up_proj.weight"].zero_()
    assert model.model.layers[0].mlp.up_proj.stored.any()
