"""bitsandbytes through transformers: what it loads, and the traps that the module's docstring names."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models
from helpers.decoding.generate import generate
from helpers.errors import CourseError
from helpers.weights.quantization import bitsandbytes_models
from helpers.weights.quantization.bitsandbytes_models import load_quantized, merged_folder
from helpers.weights.quantization.integer import linear_bytes
from tests.tiny_tokenizer import tiny_tokenizer

IDS = torch.tensor([[5, 9, 13, 2, 40, 77]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("models") / "small", tiny_tokenizer()
    torch.manual_seed(0)
    shape = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "share", "largest"), [("llm_int8", 0.5, 0.05), ("nf4", 0.25, 0.25)])
@torch.inference_mode()
def test_it_loads_decodes_and_is_near_the_dense_model(folder, kind, share, largest):
    dense, tokenizer = models.load(folder, "bfloat16")
    model, _ = load_quantized(folder, kind)
    assert share < linear_bytes(model) / linear_bytes(dense) < share + 0.04
    assert not model.training and model.get_output_embeddings().weight.dtype == torch.bfloat16
    wanted, logits = dense(IDS).logits.float(), model(IDS).logits.float()
    assert 0 < (logits - wanted).norm() / wanted.norm() < largest
    assert generate(model, tokenizer, IDS[0].tolist(), max_new_tokens=8).token_ids


@torch.inference_mode()
def test_an_answer_of_llm_int8_depends_on_who_shares_the_batch(folder):
    """When this fails, the trap is gone from bitsandbytes: take it out of the docstring."""
    model, _ = load_quantized(folder, "llm_int8")
    layer = model.model.layers[0].mlp.up_proj
    alone = torch.randn(1, 128).bfloat16()
    other = torch.zeros(1, 128).bfloat16()
    other[0, :64] = 10.0  # above the threshold: these columns stay in 16 bits for everybody
    assert not torch.equal(layer(torch.cat([alone, other]))[:1], layer(alone))
    plain = load_quantized(folder, "llm_int8", threshold=0.0)[0].model.layers[0].mlp.up_proj
    assert torch.equal(plain(torch.cat([alone, other]))[:1], plain(alone))


@torch.inference_mode()
def test_inputs_beyond_float16_overflow(folder):
    """When this fails, the trap is gone from bitsandbytes: take it out of the docstring."""
    layer = load_quantized(folder, "llm_int8", threshold=0.0)[0].model.layers[0].mlp.up_proj
    x = torch.randn(1, 128).bfloat16()
    assert layer(x).isfinite().all() and layer(x * 1000).isfinite().all()
    x[0, 3] = 1e5
    assert not layer(x).isfinite().all()


def test_an_adapter_is_merged_into_a_folder_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    assert str(merged_folder(folder)) == str(folder) and not list(tmp_path.iterdir())
    monkeypatch.setattr(models, "parts_of", lambda name: ["adapter", "base"])
    monkeypatch.setattr(models, "hash_of", lambda name: "0123")
    loaded = []

    def load(name, dtype):
        loaded.append(dtype)
        return whole(folder, dtype)

    whole = models.load
    monkeypatch.setattr(models, "load", load)
    assert merged_folder("tuned") == merged_folder("tuned") == tmp_path / "artifacts" / "merged-0123"
    assert loaded == ["bfloat16"] and (tmp_path / "artifacts" / "merged-0123" / "model.safetensors").exists()


def test_another_kind_is_refused(folder):
    with pytest.raises(CourseError, match="no 'fp4' here; there are llm_int8, nf4"):
        load_quantized(folder, "fp4")
    assert bitsandbytes_models.THRESHOLD == 6.0  # the paper's
