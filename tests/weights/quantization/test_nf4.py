"""The four-bit base: its bytes, adapters on it, the merge into the unquantized base, and the trap beside it."""

import json

import bitsandbytes.functional as bnb
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers import models
from helpers.training.fine_tune_llm import Arguments, prepared
from helpers.weights.quantization import nf4

IDS = torch.tensor([[5, 9, 13, 2, 40, 77]])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a model large enough for blocks of 64."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    folder = tmp_path_factory.mktemp("models") / "small"
    torch.manual_seed(0)
    shape = dict(
        vocab_size=100,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        head_dim=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    config = LlamaConfig(eos_token_id=1, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {f"w{i}": i for i in range(98)} | {"<eos>": 98, "<pad>": 99}
    tokenizer = Tokenizer(WordLevel(words, "w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)
    return folder


def test_bytes_with_scales_are_under_three_tenths_of_fp16_s(base):
    four, dense = nf4.nf4(str(base)), models.load(base)[0]
    assert 0.25 < nf4.linear_bytes(four) / (2 * nf4.linear_numbers(dense)) < 0.30
    assert nf4.linear_bytes(dense) == 4 * nf4.linear_numbers(dense)


@torch.enable_grad()
def trained(base, folder, steps=3):
    """Adapters on the four-bit base after some steps, saved."""
    model = prepared(Arguments(model_id=str(base), method="qlora", lora_r=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.05)
    for _ in range(steps):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


def test_training_moves_the_adapter_alone(base):
    model = prepared(Arguments(model_id=str(base), method="qlora", lora_r=4))
    model(input_ids=IDS, labels=IDS).loss.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None}
    assert moved and all("lora_" in n for n in moved)


@torch.no_grad()
def test_the_merged_model_answers_as_base_plus_adapter(base, tmp_path):
    from peft import PeftModel

    trained(base, tmp_path / "adapter")
    dense = models.load(base)[0]
    apart = PeftModel.from_pretrained(models.load(base)[0], tmp_path / "adapter").eval()(input_ids=IDS).logits
    together = models.load(tmp_path / "adapter")[0](IDS).logits
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together, dense(IDS).logits, atol=0.1)  # the adapter has learned something
    named = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(base)


@torch.no_grad()
def test_after_a_forward_pass_in_eval_mode_the_four_bit_weights_can_t_be_read(base):
    """What bitsandbytes does on a CPU, and why nothing here merges into it; when this fails, the trap is gone."""
    model, dense = nf4.nf4(str(base), torch.bfloat16), models.load(base)[0]
    layer, truth = model.model.layers[0].mlp.up_proj, dense.model.layers[0].mlp.up_proj.weight

    def error():
        read = bnb.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
        return ((read - truth).norm() / truth.norm()).item() if read.shape == truth.shape else float("inf")

    assert error() < 0.15
    model.eval()(IDS)
    if not getattr(layer.weight.quant_state, "packing_format_for_cpu", False):
        pytest.skip("this CPU has no packed kernel: the weights stay as they are")
    assert error() > 0.5
