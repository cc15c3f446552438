"""LoRA is PEFT's to the number, forward and backward; merged it is a plain model; adapters share a base and a batch."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model

from helpers.errors import CourseError
from helpers.weights.adapters import lora
from helpers.weights.adapters.lora import LoraLinear, install, layers, merge, trainable_share, use
from helpers.weights.adapters.peft_files import load_adapter, save_adapter
from tests.tiny_models import tiny

IDS = torch.tensor([[5, 9, 13, 2], [7, 1, 1, 40]])


def randomised(model, seed=0):
    """Adapters that have learned something."""
    torch.manual_seed(seed)
    for _, layer in layers(model):
        for b in layer.b.values():
            b.data.normal_(std=0.1)
    return model


def logits(model, ids=IDS):
    return model(ids).logits


@pytest.fixture
def model():
    return tiny().float()


def test_a_new_adapter_changes_nothing_and_little_is_trained(model):
    before = logits(model)
    assert torch.equal(logits(install(model, rank=2)), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all(".a." in name or ".b." in name for name in trained)
    assert trainable_share(model) < 0.2


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_outputs_and_gradients_are_peft_s(tmp_path, kind):
    model = tiny(kind).float()
    ours = randomised(install(copy.deepcopy(model), rank=4, alpha=8))
    save_adapter(ours, tmp_path)
    theirs = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path, is_trainable=True)
    torch.testing.assert_close(logits(ours), logits(theirs))
    logits(ours).square().sum().backward()
    logits(theirs).square().sum().backward()
    gradients = {n.replace(".default.weight", ""): p.grad for n, p in theirs.named_parameters() if "lora_" in n}
    for name, layer in layers(ours):
        for key, grads in (("A", layer.a), ("B", layer.b)):
            wanted = gradients[f"base_model.model.{name}.lora_{key}"]
            torch.testing.assert_close(grads["default"].grad, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_peft_s_adapter_is_ours(tmp_path, model):
    theirs = get_peft_model(copy.deepcopy(model), LoraConfig(r=3, lora_alpha=6, target_modules=list(lora.ATTENTION)))
    for name, p in theirs.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_adapter(model, tmp_path)), logits(theirs))


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8), st.floats(1, 64), st.integers(0, 99))
def test_merged_it_is_the_same_function_in_plain_layers(rank, alpha, seed):
    model = tiny().float()
    adapted = randomised(install(copy.deepcopy(model), rank=rank, alpha=alpha), seed)
    wanted = logits(adapted)
    plain = merge(adapted)
    assert {n for n, _ in plain.named_parameters()} == {n for n, _ in model.named_parameters()}
    torch.testing.assert_close(logits(plain), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_two_adapters_in_one_batch_answer_as_each_alone(model):
    install(model, "bare", rank=2)
    randomised(install(model, "explained", rank=4))
    alone = {name: logits(use(model, name)) for name in ("bare", "explained", None)}
    for pair in (("bare", "explained"), ("explained", None), (None, "bare"), ("bare", "bare")):
        both = logits(use(model, pair))
        for i, name in enumerate(pair):
            torch.testing.assert_close(both[i], alone[name][i])
    assert not torch.allclose(alone["bare"], alone["explained"])


def test_a_sequence_that_gets_another_s_adapter_is_caught(model, monkeypatch):
    install(model, "one", rank=2)
    randomised(install(model, "two", rank=2))
    wanted = logits(use(model, "one"))[0]
    real = LoraLinear.change
    monkeypatch.setattr(LoraLinear, "change", lambda self, name, x: real(self, "two", x))  # the mistake
    assert not torch.allclose(logits(use(model, ("one", "two")))[0], wanted)


def test_only_the_last_adapter_is_trained(model):
    install(model, "one", rank=2)
    install(model, "two", rank=2)
    logits(model).sum().backward()
    for _, layer in layers(model):
        assert layer.a["one"].grad is None and layer.a["two"].grad is not None


def test_it_learns_on_a_frozen_base(model):
    base = copy.deepcopy(model)
    install(model, rank=4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(logits(model)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    torch.testing.assert_close(logits(use(model, None)), logits(base))


def test_mistakes_get_a_sentence(tmp_path, model):
    with pytest.raises(CourseError, match="no layers called query"):
        install(model, targets=("query",))
    with pytest.raises(CourseError, match="rank of at least 1"):
        install(model, rank=0)
    with pytest.raises(CourseError, match="no whole adapter"):
        load_adapter(model, tmp_path)
    install(model, rank=2)
    with pytest.raises(CourseError, match="no adapter other; there are default"):
        use(model, "other")
    with pytest.raises(CourseError, match="3 adapters for a batch of 2: name one for each"):
        logits(use(model, ["default"] * 3))
    with pytest.raises(CourseError, match="no adapter 'other' to save"):
        save_adapter(model, tmp_path, "other")
    save_adapter(model, tmp_path)
    with pytest.raises(CourseError, match="is for another model"):
        load_adapter(tiny("qwen2").float().model.layers[0], tmp_path)


def test_adapters_on_different_layers_share_a_base(model):
    base = copy.deepcopy(model)
    randomised(install(install(model, "all", rank=2), "attention", rank=2, targets=lora.ATTENTION))
    apart = {name: logits(use(model, name)) for name in ("all", "attention")}
    mixed = logits(use(model, ["all", "attention"]))
    torch.testing.assert_close(mixed, torch.stack([apart["all"][0], apart["attention"][1]]))
    assert not torch.allclose(apart["attention"], logits(base))
    torch.testing.assert_close(logits(merge(model, "attention")), apart["attention"])


def test_rslora_is_scaled_by_the_root_of_the_rank_and_what_is_more_than_lora_is_refused(model, tmp_path):
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
    )
    theirs = get_peft_model(copy.deepcopy(model), config)
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_adapter(copy.deepcopy(model), tmp_path)), theirs(input_ids=IDS).logits)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace('"use_dora": false', '"use_dora": true'))
    with pytest.raises(CourseError, match=r"more than plain LoRA \(use_dora\): load it with PEFT"):
        load_adapter(model, tmp_path)
    assert not list(layers(model))  # nothing was changed
