"""Observers see what layers read, once, over all prompts; block after block they see what changed blocks give."""

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.text_to_sql.dataset import load_split
from helpers.weights.precision.ranges import blocks_of
from helpers.weights.quantization import calibration
from helpers.weights.quantization.calibration import (
    Hessian,
    InputSizes,
    answer_pairs,
    calibration_prompts,
    layer_by_layer,
    observe,
    observed_linears,
)
from tests.tiny_models import KINDS, tiny
from tests.tiny_tokenizer import tiny_tokenizer

PROMPTS = [list(range(20)), [5, 9, 13], list(range(90, 60, -1))]  # longer than a Mistral's window
FIELDS = ("absmax", "mean_abs", "squares", "matrix")


@torch.no_grad()
def inputs(model, prompts=PROMPTS):
    """All that each layer of the blocks reads, kept: (tokens, in) by its name."""
    read = {name: [] for name in observed_linears(model)}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(lambda m, given, xs=xs: xs.append(given[0][0].float()))
        for name, xs in read.items()
    ]
    for ids in prompts:
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(xs) for name, xs in read.items()}


def differences(observers, read):
    """Names of layers whose observer isn't what the kept inputs say."""
    wrong = []
    for name, x in read.items():
        seen = observers[name]
        there = (x.abs().amax(0), x.abs().mean(0), x.square().sum(0), x.T @ x)
        same = [torch.allclose(getattr(seen, field), t, rtol=1e-3, atol=1e-3) for field, t in zip(FIELDS, there)]
        if seen.count != len(x) or not all(same):
            wrong.append(name)
    return wrong


def close(one, other):
    return torch.allclose(one.matrix, other.matrix, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_observers_see_what_layers_read(kind):
    model = tiny(kind)
    assert differences(observe(model, PROMPTS, Hessian), inputs(model)) == []


@pytest.mark.parametrize(
    "mistake",
    [
        lambda self, x: (self.total.zero_(), self.squares.zero_(), add(self, x)),  # the last prompt alone
        lambda self, x: add(self, x[:, :-1]),  # not the last token
        lambda self, x: (add(self, x), add(self, x), add(self, x)),  # once for each of q, k and v
    ],
)
def test_an_observer_that_forgets_or_counts_twice_is_caught(monkeypatch, model, mistake):
    read = inputs(model)
    monkeypatch.setattr(Hessian, "add", mistake)
    assert len(differences(observe(model, PROMPTS, Hessian), read)) == len(read)


add = Hessian.add


def test_layers_that_read_the_same_share_an_observer():
    seen = observe(tiny("llama"), PROMPTS)
    layer = "model.layers.1.self_attn."
    assert seen[layer + "q_proj"] is seen[layer + "k_proj"] is seen[layer + "v_proj"]
    assert seen[layer + "q_proj"] is not seen[layer + "o_proj"]
    assert len({id(observer) for observer in seen.values()}) == 2 * 4
    seen = observe(tiny("falcon"), PROMPTS)  # its MLP stands beside attention, and reads the same norm
    assert seen["transformer.h.0.self_attention.query_key_value"] is seen["transformer.h.0.mlp.dense_h_to_4h"]


@pytest.mark.parametrize("kind", [*KINDS, "yarn", "longrope", "dynamic"])
def test_block_by_block_with_nothing_changed_is_the_whole_model(kind):
    model, seen = tiny(kind), {}
    names = {block: name for name, block in model.named_modules()}

    def look(block, observers):
        seen.update({f"{names[block]}.{local}": observer for local, observer in observers.items()})

    layer_by_layer(model, PROMPTS, look, Hessian)
    assert differences(seen, inputs(model)) == []
    assert not any("forward" in vars(block) for block in blocks_of(model))


def test_blocks_without_their_masks_are_caught(monkeypatch):
    """A Mistral's window is in its mask."""
    model, seen = tiny("mistral"), []
    first = calibration._first_inputs

    def forgetful(*given):
        states, arguments = first(*given)
        return states, [[(args, kwargs | {"attention_mask": None}) for args, kwargs in calls] for calls in arguments]

    monkeypatch.setattr(calibration, "_first_inputs", forgetful)
    layer_by_layer(model, PROMPTS, lambda block, observers: seen.append(observers), Hessian)
    there = observe(model, PROMPTS, Hessian)
    assert not close(seen[1]["mlp.down_proj"], there["model.layers.1.mlp.down_proj"])


def test_the_next_block_sees_what_the_changed_one_gives(model):
    model, seen = tiny(), []
    before = observe(model, PROMPTS, Hessian)["model.layers.1.mlp.down_proj"]

    @torch.no_grad()
    def halve(block, observers):
        seen.append(observers)
        for name in observers:
            block.get_submodule(name).weight.mul_(0.5)

    layer_by_layer(model, PROMPTS, halve, Hessian)
    model.model.layers[1].load_state_dict({k: 2 * v if "proj" in k else v for k, v in layer_state(model).items()})
    after = observe(model, PROMPTS, Hessian)["model.layers.1.mlp.down_proj"]  # the first block halved, the second not
    assert close(seen[1]["mlp.down_proj"], after) and not close(seen[1]["mlp.down_proj"], before)


def layer_state(model):
    return model.model.layers[1].state_dict()


def test_sums_are_float32_whatever_the_model():
    model = tiny().bfloat16()
    seen = observe(model, PROMPTS, Hessian)["model.layers.0.mlp.down_proj"]
    assert {getattr(seen, field).dtype for field in FIELDS} == {torch.float32}


@pytest.mark.parametrize("prompts", [[], [[1, 2], []]])
def test_no_prompts_are_refused(model, prompts):
    for run in (lambda: observe(model, prompts), lambda: layer_by_layer(model, prompts, lambda *_: None)):
        with pytest.raises(CourseError, match=r"take calibration_prompts"):
            run()


def test_a_layer_that_no_prompt_reaches_is_named(model):
    with pytest.raises(CourseError, match=r"No calibration prompt reached never"):
        observe(model, PROMPTS, modules={"never": nn.Linear(4, 4)})


def test_numbers_that_are_none_are_named():
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0] = float("nan")
    with pytest.raises(CourseError, match=r"model\.layers\.0\.mlp\.down_proj reads is NaN"):
        observe(model, PROMPTS)
    with pytest.raises(CourseError, match=r"mlp\.down_proj reads is NaN"):
        layer_by_layer(model, PROMPTS, lambda *_: None)


def test_a_quantized_model_has_nothing_to_calibrate():
    from helpers.weights.quantization.integer import install

    model = install(tiny().float())
    with pytest.raises(CourseError, match=r"no dense nn\.Linear"):
        observe(model, PROMPTS)


def test_prompts_are_whole_examples_of_the_training_split():
    tokenizer = tiny_tokenizer()
    prompts = calibration_prompts(tokenizer, 5)
    assert prompts == calibration_prompts(tokenizer, 5) != calibration_prompts(tokenizer, 5, seed=1)
    answers = {e.answer for e in load_split("train")}
    for ids in prompts:
        text = tokenizer.decode(ids)
        assert ids[-1] == tokenizer.eos_token_id and any(text.endswith(f"assistant\n{a}<|im_end|>") for a in answers)
    for count in (0, 10_000):
        with pytest.raises(CourseError, match=r"1 to 2100 prompts"):
            calibration_prompts(tokenizer, count)


def test_pairs_are_prompt_and_answer():
    tokenizer, examples = tiny_tokenizer(), load_split("test", limit=3)
    for (prompt, answer), example in zip(answer_pairs(tokenizer, examples), examples):
        assert tokenizer.decode(answer) == f"{example.answer}<|im_end|>"
        assert example.question in tokenizer.decode(prompt)


def test_no_tokens_add_nothing():
    seen = InputSizes(4)
    seen.add(torch.empty(0, 4))
    assert seen.count == 0 and not seen.absmax.any()
