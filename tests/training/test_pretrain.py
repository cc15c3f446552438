"""A run resumes where it was killed, learns something, and leaves a model that loads."""

import copy
import json

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.training import pretrain
from helpers.training.muon import Muon, orthogonalize
from helpers.training.pretrain import (
    AheadHeads,
    HalfCopy,
    Run,
    Settings,
    bare_share,
    deepen,
    inherit,
    learning_rate,
    new_model,
    train,
)

TINY = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2)
SETTINGS = dict(steps=6, rows=1, length=256, eval_every=100, save_every=3, ahead=2, warmup=2)


@pytest.fixture
def small(tmp_path, monkeypatch):
    from helpers.text_to_sql.tokenizer import build_tokenizer, training_mix

    examples = training_mix(60)
    tokenizer = build_tokenizer(examples, [e.answer for e in examples], vocabulary=600)
    monkeypatch.setitem(pretrain.SHAPES, "base", TINY)
    monkeypatch.setattr(Run, "_tokenizer", lambda self: copy.deepcopy(tokenizer))
    return tmp_path


def weights(run):
    return torch.cat([p.flatten() for p in run.model.parameters()])


def test_a_killed_run_goes_on_as_if_nothing_had_happened(small, monkeypatch):
    whole = Run(Settings(**SETTINGS), small / "whole", "cpu")
    train(whole, compiled=False)
    killed = Run(Settings(**SETTINGS), small / "killed", "cpu")
    real = pretrain.make_batch

    def stop(tokenizer, seed, step, *rest):
        if step == 4:
            raise KeyboardInterrupt
        return real(tokenizer, seed, step, *rest)

    monkeypatch.setattr(pretrain, "make_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        train(killed, compiled=False)
    monkeypatch.setattr(pretrain, "make_batch", real)
    resumed = Run(Settings(**SETTINGS), small / "killed", "cpu")
    assert resumed.step == 3
    train(resumed, compiled=False)
    assert resumed.answers == whole.answers
    torch.testing.assert_close(weights(resumed), weights(whole))


def test_the_exported_model_loads_with_its_card(small, monkeypatch):
    run = Run(Settings(**SETTINGS | {"steps": 2, "eval_every": 1}), small / "run", "cpu")
    monkeypatch.setattr(pretrain, "evaluate", lambda *rest, **more: 0.5)
    train(run, compiled=False)
    run.tokenizer(["a", "longer"], padding=True)
    run.export(small / "base")
    assert json.loads((small / "base" / "tokenizer.json").read_text())["padding"] is None
    model, tokenizer = models.load(small / "base", "bfloat16")
    assert model.dtype == torch.bfloat16 and tokenizer.eos_token == "<|end|>"
    card = json.loads((small / "base" / "card.json").read_text())
    assert card["answers"] > 0 and [row["unseen"] for row in card["curve"]] == [0.5, 0.5]


def test_other_settings_on_resuming_are_refused(small):
    run = Run(Settings(**SETTINGS | {"steps": 1}), small / "run", "cpu")
    train(run, compiled=False)
    with pytest.raises(CourseError, match="steps 1 then and 6 now"):
        Run(Settings(**SETTINGS), small / "run", "cpu")


def test_training_goes_on_from_a_model(small):
    first = Run(Settings(**SETTINGS | {"steps": 1}), small / "run", "cpu")
    first.export(small / "base")
    second = Run(Settings(**SETTINGS, start_from=str(small / "base")), small / "more", "cpu")
    assert second.step == 0
    torch.testing.assert_close(weights(second), weights(first).bfloat16().float())


def test_a_draft_inherits_the_layers_that_lose_least(small):
    run = Run(Settings(**SETTINGS), small / "run", "cpu")
    base = new_model(TINY | {"num_hidden_layers": 3}, run.tokenizer).eval()
    draft = new_model(TINY, run.tokenizer)
    batch = pretrain.make_batch(run.tokenizer, 0, 0, 1, 256)
    taken = inherit(draft, base, batch)
    assert len(taken) == 2 and list(taken) == sorted(taken)
    for here, there in enumerate(taken):
        for name, value in draft.model.layers[here].state_dict().items():
            assert torch.equal(value, base.model.layers[there].state_dict()[name])
    assert torch.equal(draft.model.embed_tokens.weight, base.model.embed_tokens.weight)


def test_a_deeper_model_begins_as_the_same_function_and_its_new_layer_learns(small):
    run = Run(Settings(**SETTINGS), small / "run", "cpu")
    base = new_model(TINY | {"num_hidden_layers": 3}, run.tokenizer).eval()
    deeper = new_model(TINY | {"num_hidden_layers": 5}, run.tokenizer).eval()
    deepen(deeper, base)
    batch = pretrain.make_batch(run.tokenizer, 0, 0, 1, 256)
    out = [m(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits for m in (base, deeper)]
    torch.testing.assert_close(out[1], out[0])
    assert not torch.equal(deeper.model.layers[2].mlp.up_proj.weight, deeper.model.layers[4].mlp.up_proj.weight)
    torch.nn.functional.cross_entropy(out[1][0], batch.labels[0]).backward()
    assert all(layer.mlp.down_proj.weight.grad.abs().max() > 0 for layer in deeper.model.layers)
    deeper.model.layers[2].mlp.down_proj.weight.data.normal_()  # the mistake: a new layer that already speaks
    wrong = deeper(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits
    assert (wrong - out[0]).abs().max() > 1e-3


def test_schedules():
    s = Settings(steps=1000, warmup=10, decay_share=0.4, bare_from=0.8, bare_to=0.2)
    assert learning_rate(0, s) == 0.1 and learning_rate(500, s) == 1.0
    assert learning_rate(800, s) == pytest.approx(0.5) and learning_rate(999, s) < 0.01
    assert [bare_share(step, s) for step in (0, 500, 999)] == pytest.approx([0.8, 0.5, 0.2], abs=1e-9)


def test_orthogonalize_evens_out_the_singular_values():
    torch.manual_seed(0)
    for shape in ((32, 64), (64, 32)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.4 and values.max() < 1.4


def test_muon_goes_downhill():
    torch.manual_seed(0)
    goal, weight = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss = ((weight - goal) ** 2).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.4 * (goal**2).mean()


def test_a_head_is_judged_by_its_own_token_of_the_same_question(small):
    run = Run(Settings(**SETTINGS), small / "run", "cpu")
    batch = pretrain.make_batch(run.tokenizer, 0, 0, 1, 256)
    heads, hidden = AheadHeads(32, 2), torch.randn(1, 256, 32)
    wanted = 0.0
    for i, block in enumerate(heads.blocks, 1):
        torch.nn.init.normal_(block.weight)
        said = run.model.lm_head(hidden[0] + torch.nn.functional.silu(block(hidden[0]))).log_softmax(-1)
        costs = [
            -said[t, batch.labels[0, t + i]]
            for t in range(256 - i)
            if batch.weights[0, t] == 1
            and batch.labels[0, t + i] != -100
            and batch.positions[0, t + i] == batch.positions[0, t] + i
        ]
        wanted += sum(costs) / len(costs) / 2
    torch.testing.assert_close(heads.loss(hidden, run.model.lm_head, batch, keep=1.0), wanted)


def test_the_bf16_copy_gives_the_master_its_gradients_and_takes_its_weights(small):
    run = Run(Settings(**SETTINGS), small / "run", "cpu")
    batch = pretrain.make_batch(run.tokenizer, 0, 0, 1, 256)
    half = HalfCopy(run.model)

    def gradients(model, hand_over=lambda: None):
        run.model.zero_grad()
        logits = model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits.float()
        torch.nn.functional.cross_entropy(logits[0], batch.labels[0]).backward()
        hand_over()
        return torch.cat([p.grad.flatten() for p in run.model.parameters()])

    exact, rounded = gradients(run.model), gradients(half.copy, half.hand_over)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.999
    assert all(p.grad is None for p in half.copy.parameters())
    assert torch.equal(half.copy.model.rotary_emb.inv_freq, run.model.model.rotary_emb.inv_freq)
    with torch.no_grad():
        run.model.model.norm.weight.add_(1)
    half.refresh()
    assert torch.equal(half.copy.model.norm.weight.float(), run.model.model.norm.weight.bfloat16().float())


@pytest.mark.parametrize("bf16", [False, True])
def test_training_learns_in_either_precision(small, bf16):
    run = Run(Settings(**SETTINGS | {"steps": 12}), small / "run", "cpu")
    run.bf16 = bf16
    batch = pretrain.make_batch(run.tokenizer, 0, 0, 1, 256)

    def loss():
        with torch.no_grad():
            logits = run.model(batch.ids, attention_mask=batch.mask, position_ids=batch.positions).logits[0]
        return torch.nn.functional.cross_entropy(logits, batch.labels[0]).item()

    before = loss()
    train(run, compiled=False)
    assert loss() < before - 0.1


def test_training_goes_on_only_from_a_model_that_fits(small):
    tokenizer = Run(Settings(**SETTINGS), small / "run", "cpu").tokenizer
    for other in (TINY | {"num_hidden_layers": 3}, TINY | {"hidden_size": 64}):
        with pytest.raises(CourseError, match="same width and no more layers"):
            deepen(new_model(TINY, tokenizer), new_model(other, tokenizer))
