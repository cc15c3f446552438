"""Models load whole or not at all: what is missing, damaged or doesn't fit the rest is named."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from helpers import models
from helpers.errors import CourseError
from helpers.models.loading import load
from helpers.models.shapes import shape_only


def test_a_model_comes_by_name_and_by_folder_in_the_dtype_asked_for(base):
    for name in ("base", base):
        model, tokenizer = load(name, "bfloat16")
        assert model.dtype == torch.bfloat16 and not model.training and len(tokenizer) > 100


def test_a_damaged_model_says_how_to_get_it_back(base, folder):
    shutil.copytree(base, folder / "draft")
    for name, place, remedy in (
        ("base", base, "delete build/models/base, and it is made anew from its package"),
        ("draft", folder / "draft", "`git checkout data/models/draft` brings it back"),
    ):
        weights = place / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        with pytest.raises(CourseError, match=rf"The course's model {name} is damaged .*: {remedy}\.$"):
            load(name)


def test_a_pickle_is_never_read(base, tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    shutil.copytree(base, place, dirs_exist_ok=True)
    (place / "model.safetensors").unlink()
    torch.save(shape_only("llama-tiny").state_dict(), place / "pytorch_model.bin")
    with pytest.raises(CourseError, match=r"it needs config\.json, a tokenizer and safetensors"):
        load(place)


def test_a_hub_model_without_network_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CourseError, match="can't be had from the Hub"):
        load("nobody/nothing")


def test_a_dtype_that_is_none(base):
    with pytest.raises(CourseError, match="float32, bfloat16, float16"):
        load("base", "int3")


def test_a_device_that_is_none_leaves_the_model_out_of_it(base):
    with pytest.raises(CourseError, match="There is no device 'cuda:99'"):
        load("base", device="cuda:99")


def test_an_adapter_is_merged_into_its_base(base, folder, adapted):
    ids = torch.tensor([[5, 6, 7]])
    for name in ("tuned", folder / "tuned"):
        model, tokenizer = load(name)
        torch.testing.assert_close(model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
        assert not model.training and len(tokenizer) > 100
    half, _ = load("tuned", "bfloat16")
    assert half.dtype == torch.bfloat16 and half.model.rotary_emb.inv_freq.dtype == torch.float32
    assert models.parts_of("tuned") == [str(folder / "tuned"), str(base)]
    assert list(models.shipped()) == ["tuned"]


def test_a_damaged_adapter_says_so(folder, adapted):
    (folder / "tuned" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CourseError, match="tuned is damaged"):
        load("tuned")
    (folder / "tuned" / "adapter_config.json").unlink()
    with pytest.raises(CourseError, match="tuned is damaged"):
        load("tuned")


def change(file, **changes):
    """Rewrite the tensors of a safetensors file: a new one by its name, or None to leave one out."""
    tensors = load_file(file) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: t for name, t in tensors.items() if t is not None}, file, metadata={"format": "pt"})


def test_a_checkpoint_that_lacks_tensors_is_refused_by_their_names(base):
    change(base / "model.safetensors", model__layers__1__mlp__up_proj__weight=None)
    assert AutoModelForCausalLM.from_pretrained(base)  # with random weights there
    with pytest.raises(
        CourseError, match=r"\(missing model\.layers\.1\.mlp\.up_proj\.weight\): delete build/models/base"
    ):
        load("base", "bfloat16")


@pytest.mark.parametrize("layers, fault", [(1, "without a place"), (3, "missing")])
def test_a_config_with_other_layers_than_the_checkpoint_is_refused(base, layers, fault):
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": layers}))
    assert AutoModelForCausalLM.from_pretrained(base).config.num_hidden_layers == layers
    with pytest.raises(CourseError, match=rf"{fault} model\.layers\.{min(layers, 2)}\.input_layernorm.* and 6 more"):
        load("base")


def test_a_tensor_of_another_size_is_refused_by_its_name(base, tmp_path_factory):
    own = shutil.copytree(base, tmp_path_factory.mktemp("own") / "model")
    change(own / "model.safetensors", model__norm__weight=torch.ones(32))
    with pytest.raises(CourseError, match=r"of another size model\.norm\.weight\): export the model again"):
        load(own)


def test_tied_weights_and_buffers_are_no_faults(base):
    tokenizer = models.tokenizer_of("base")
    shape_only("llama-tiny", vocab_size=len(tokenizer)).save_pretrained(base)
    file = base / "model.safetensors"
    assert "lm_head.weight" not in load_file(file)
    change(file, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8))  # as older versions saved them
    model, _ = load("base")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(base)
    change(
        file, transformer__h__0__attn__bias=torch.ones(1, 1, 8, 8), transformer__h__0__attn__masked_bias=torch.ones(1)
    )
    assert load("base")[0].config.model_type == "gpt2"


def test_an_untied_head_that_is_missing_is_a_fault(base):
    change(base / "model.safetensors", lm_head__weight=None)
    with pytest.raises(CourseError, match=r"missing lm_head\.weight"):
        load("base")


A, B = (f"base_model__model__model__layers__0__self_attn__q_proj__lora_{matrix}__weight" for matrix in "AB")


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({A: None}, r"missing base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight\)"),
        ({A: torch.ones(3, 64)}, r"of another size .*q_proj\.lora_A"),
        ({A.replace("0", "7"): torch.ones(2, 64)}, r"without a place .*layers\.7\.self_attn\.q_proj\.lora_A"),
        ({A: None, B: None}, r"missing .*lora_A\.weight, .*lora_B\.weight"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_refused(folder, adapted, changes, fault):
    load("tuned")
    change(folder / "tuned" / "adapter_model.safetensors", **changes)
    with pytest.raises(CourseError, match="adapter tuned doesn't fit its base base.*" + fault):
        load("tuned")


def test_an_adapter_of_a_wider_or_deeper_model_is_refused(base, folder, adapted, tmp_path_factory):
    tokenizer, own = models.tokenizer_of("base"), tmp_path_factory.mktemp("own")
    shutil.copytree(folder / "tuned", own / "tuned")
    for changes, fault in ((dict(num_hidden_layers=1), "without a place"), (dict(hidden_size=32), "of another size")):
        shape_only("llama-tiny", vocab_size=len(tokenizer), **changes).save_pretrained(base)
        with pytest.raises(CourseError, match=rf"{fault} .*: name the model that it was trained on"):
            load(own / "tuned")


def test_embeddings_saved_beside_an_adapter_are_taken(folder, adapted):
    wanted = torch.full_like(load("base")[0].model.embed_tokens.weight, 0.5)
    change(folder / "tuned" / "adapter_model.safetensors", base_model__model__model__embed_tokens__weight=wanted)
    assert torch.equal(load("tuned")[0].model.embed_tokens.weight, wanted)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(base):
    size = len(models.tokenizer_of("base"))
    shape_only("llama-tiny", vocab_size=size - 1).save_pretrained(base)
    with pytest.raises(CourseError, match=rf"ids up to {size - 1}, and its model knows {size - 1} tokens"):
        load("base")
    shape_only("llama-tiny", vocab_size=size + 7).save_pretrained(base)  # rounded up, as many are
    load("base")


def test_an_added_token_past_the_vocabulary_counts_only_where_prompts_use_it(base):
    tokenizer = models.tokenizer_of("base")
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(base)
    load("base")
    tokenizer.chat_template = "<image>{{ messages[0].content }}"
    tokenizer.save_pretrained(base)
    with pytest.raises(CourseError, match="put the tokenizer beside it"):
        load("base")
    tokenizer.chat_template = None
    tokenizer.pad_token = "<image>"
    tokenizer.save_pretrained(base)
    with pytest.raises(CourseError, match="put the tokenizer beside it"):
        load("base")


def test_a_tokenizer_pads_with_its_end_of_text_token_and_needs_one(base):
    file = base / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    end = settings["eos_token"]
    file.write_text(json.dumps(settings | {"pad_token": None}))
    assert load("base")[1].pad_token == end
    file.write_text(json.dumps(settings | {"pad_token": None, "eos_token": None}))
    with pytest.raises(CourseError, match="no end-of-text token: set eos_token"):
        load("base")


def test_an_end_token_with_the_id_0_is_kept(base):
    file = base / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": 0}))
    assert load("base")[0].generation_config.eos_token_id == 0 != models.tokenizer_of("base").eos_token_id
