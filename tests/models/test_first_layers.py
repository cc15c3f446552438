"""A draft of its target's first layers: on disk an adapter and a norm, loaded an ordinary model, and for no other."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, Qwen2ForCausalLM

from helpers import models
from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.models import first_layers
from tests.tiny_models import KINDS, VOCABULARY, greedy

CLASSES = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}
IDS = torch.tensor([[5, 9, 2, 44, 7]])
ADAPTER, NORM = "adapter_model.safetensors", "base_model.model.model.norm.weight"


def target_of(kind, **tokens):
    """A tiny model of four layers whose tokens are far apart, and whose norms aren't all ones."""
    cls, config, more = KINDS[kind]
    torch.manual_seed(0)
    shape = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4)
    tokens = dict(vocab_size=VOCABULARY, bos_token_id=None, eos_token_id=None, pad_token_id=0) | tokens
    model = cls(config(**shape | more | tokens)).eval()
    for p in model.parameters():
        p.data.mul_(6) if p.ndim == 2 else p.data.add_(torch.rand_like(p))
    return model


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def truncated_by_hand(target, layers):
    """The same model built anew from the target's own tensors, without those of later layers."""
    config = target.config.to_dict() | {"num_hidden_layers": len(layers)}
    config.pop("layer_types", None)
    model = type(target)(type(target.config).from_dict(config)).eval()
    tensors = target.state_dict()
    for new, old in enumerate(layers):
        own, its = f"model.layers.{new}.", f"model.layers.{old}."
        model.load_state_dict({n.replace(its, own): t for n, t in tensors.items() if n.startswith(its)}, strict=False)
    model.load_state_dict({n: t for n, t in tensors.items() if ".layers." not in n}, strict=False)
    return model


def change(file, **changes):
    """Rewrite the tensors of a safetensors file: a new one by its name, or None to leave one out."""
    tensors = load_file(file) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: t for name, t in tensors.items() if t is not None}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", CLASSES)
def test_all_layers_and_an_adapter_that_changes_nothing_are_the_target(kind):
    wanted = logits(target_of(kind))
    draft = first_layers.begin(target_of(kind), 4, rank=2, alpha=4)
    assert torch.equal(logits(draft), wanted)
    assert torch.equal(logits(draft.merge_and_unload()), wanted)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_first_layers_are_kept_and_nothing_else_changes(kind, num_layers):
    target = target_of(kind)
    kept = first_layers.keep(target_of(kind), num_layers)
    assert kept.config.num_hidden_layers == num_layers
    assert torch.equal(logits(kept), logits(truncated_by_hand(target, range(num_layers))))
    from_the_end = range(4 - num_layers, 4)  # the planted mistake
    assert not torch.allclose(logits(kept), logits(truncated_by_hand(target, from_the_end)), atol=1e-2)
    assert plain_greedy(kept, IDS[0].tolist(), 8) == greedy(kept, IDS[0].tolist(), 8)  # caches have as many layers


def test_the_kinds_of_layers_are_cut_with_them():
    config = target_of("qwen2").config
    config.layer_types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    first_layers.shorten(config, 2)
    assert config.layer_types == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize("num_layers", [0, 5])
def test_layers_that_the_target_doesn_t_have_are_refused(num_layers):
    with pytest.raises(CourseError, match=f"has 4 layers, a draft of it can't have {num_layers}: give fewer"):
        first_layers.keep(target_of("llama"), num_layers)


def test_a_model_that_is_built_otherwise_is_refused():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2))
    with pytest.raises(CourseError, match="needs a model built like Llama: distil it from another target"):
        first_layers.begin(model, 1, rank=2, alpha=4)


@pytest.fixture(params=CLASSES)
def drafted(request, folder):
    """A target by the name of `target`, and a draft of its first two layers that has learned something, in `small`."""
    tokenizer = models.tokenizer_of("base")
    ids = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    target_of(request.param, vocab_size=len(tokenizer), **ids).save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    draft = first_layers.begin(models.load("target")[0], 2, rank=2, alpha=4)
    for p in draft.parameters():
        if p.requires_grad:
            p.data = (p + 0.3 * torch.randn_like(p)).bfloat16().float()
    first_layers.save(draft, folder / "small", "target", models.hash_of("target"))
    (folder / "small" / "card.json").write_text(json.dumps({"target_hash": models.hash_of("target")}))
    return folder, draft.eval()


def test_a_draft_comes_back_from_its_folder_as_an_ordinary_model(drafted):
    folder, draft = drafted
    model, tokenizer = models.load("small")
    assert type(model) in CLASSES.values() and not model.training
    assert model.config.num_hidden_layers == models.config_at("small").num_hidden_layers == 2
    torch.testing.assert_close(logits(model), logits(draft), atol=1e-4, rtol=1e-4)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    half, _ = models.load(folder / "small", "bfloat16")
    assert half.dtype == torch.bfloat16 and half.model.rotary_emb.inv_freq.dtype == torch.float32
    assert plain_greedy(model, IDS[0].tolist(), 6) == greedy(model, IDS[0].tolist(), 6)
    model.save_pretrained(folder / "whole")
    tokenizer.save_pretrained(folder / "whole")
    assert torch.equal(logits(models.load(folder / "whole")[0]), logits(model))
    models.check_made_for("small", "target")


def test_a_draft_comes_back_with_the_tokens_that_it_guesses(drafted):
    folder, draft = drafted
    whole = models.load("small")[0]
    assert first_layers.for_guessing(whole, "small") is whole  # it learned all tokens
    token_ids = torch.tensor([2, 5, 9, 44])
    first_layers.save(draft, folder / "small", "target", models.hash_of("target"), token_ids)
    model, _ = models.load("small")
    small = first_layers.for_guessing(model, "small")
    torch.testing.assert_close(logits(small), logits(model)[..., token_ids])
    assert small.token_ids.tolist() == token_ids.tolist() and not hasattr(model, "token_ids")


def test_only_what_was_trained_is_on_disk(drafted):
    tensors = load_file(drafted[0] / "small" / ADAPTER)
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert sorted(n for n in tensors if "lora" not in n) == [NORM]
    assert sorted({n.split(".layers.")[1][0] for n in tensors if "lora" in n}) == ["0", "1"]
    assert len(tensors) == 1 + 2 * 2 * 7
    files = {"adapter_config.json", ADAPTER, "card.json", "draft.json"}
    assert {f.name for f in (drafted[0] / "small").iterdir()} == files
    assert models.parts_of("small") == [str(drafted[0] / "small"), str(drafted[0] / "target")]


def test_the_target_s_norm_in_place_of_the_draft_s_is_caught(drafted):
    """The planted mistake: all but the norm is the draft's."""
    model, _ = models.load("small")
    right = logits(model)
    model.model.norm.weight.data = models.load("target")[0].model.norm.weight.data
    assert not torch.allclose(logits(model), right, atol=1e-2)
    torch.testing.assert_close(right, logits(drafted[1]), atol=1e-4, rtol=1e-4)


def test_a_draft_whose_target_has_changed_is_refused(drafted):
    folder, _ = drafted
    model, _ = models.load("target")
    model.model.norm.weight.data += 1
    model.save_pretrained(folder / "target")
    for ask in (models.load, models.config_at):
        with pytest.raises(CourseError, match=r"small was made for another model than target is now: .*distil_draft"):
            ask("small")
    with pytest.raises(CourseError, match="small was made for another model than target"):
        models.check_made_for("small", "target")


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({NORM.replace(".", "__"): None}, r"small is damaged \(KeyError: 'base_model\.model\.model\.norm\.weight'\)"),
        (
            {NORM.replace(".", "__"): torch.ones(32)},
            r"fit its base target \(of another size base_model\.model\.model\.norm\.weight",
        ),
        (
            {"base_model__model__model__layers__2__mlp__up_proj__lora_A__weight": torch.ones(2, 64)},
            r"fit its base target \(without a place .*layers\.2\.mlp\.up_proj\.lora_A",
        ),
        (
            {"base_model__model__model__layers__1__mlp__up_proj__lora_A__weight": None},
            r"fit its base target \(missing .*s\.1\.mlp",
        ),
    ],
)
def test_a_draft_with_other_tensors_than_its_own_is_refused(drafted, changes, fault):
    change(drafted[0] / "small" / ADAPTER, **changes)
    with pytest.raises(CourseError, match=f"{fault}.*git checkout"):
        models.load("small")


def test_a_norm_counts_even_if_the_adapter_s_config_forgets_it(drafted):
    right, file = logits(models.load("small")[0]), drafted[0] / "small" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"modules_to_save": None}))
    assert torch.equal(logits(models.load("small")[0]), right)


@pytest.mark.parametrize("num_layers, fault", [(1, "without a place"), (3, "missing"), (9, "4 layers, a draft of it")])
def test_another_number_of_layers_is_refused(drafted, num_layers, fault):
    file = drafted[0] / "small" / "draft.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_layers": num_layers}))
    with pytest.raises(CourseError, match=fault):
        models.load("small")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"num_layers": 2}', '{"num_layers": "x", "target_hash": "y"}'])
def test_a_damaged_file_of_the_draft_is_refused(drafted, text):
    (drafted[0] / "small" / "draft.json").write_text(text)
    for ask in (models.load, models.config_at):
        with pytest.raises(CourseError, match="The course's model small is damaged"):
            ask("small")


def test_an_adapter_that_is_cut_off_is_refused(drafted, tmp_path_factory):
    own = shutil.copytree(drafted[0] / "small", tmp_path_factory.mktemp("own") / "draft")
    (own / ADAPTER).write_bytes((own / ADAPTER).read_bytes()[:200])
    with pytest.raises(CourseError, match=r"The model in .* can't be read"):
        models.load(own)
