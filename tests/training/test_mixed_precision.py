"""Scaling saves small gradients and skips overflows; a scaler is torch's own; float32 weights take what halves miss."""

import copy

import pytest
import torch

from helpers.errors import CourseError
from helpers.models import shape_only
from helpers.text_to_sql.dataset import load_split
from helpers.training.completions import encode
from helpers.training.mixed_precision import LossScaler, batch_loss, largest_scale, swallowed, train
from helpers.training.packing import collate, tree_of

PIECES = 2**14


@pytest.fixture(scope="module")
def batches(tokenizer):
    examples = [encode(e, tokenizer) for e in load_split("train", limit=36)]  # three to a schema
    return [collate([[tree_of(examples[i : i + 3])]], tokenizer.pad_token_id) for i in range(0, 36, 3)]


@pytest.fixture
def model(tokenizer):
    return shape_only("llama-tiny", vocab_size=len(tokenizer), num_hidden_layers=1)


def trained(model, batches, **how):
    steps = train(model := copy.deepcopy(model), batches, lr=2e-3, **how)
    with torch.no_grad():
        return steps, sum(batch_loss(model, b).item() for b in batches) / len(batches)


def test_float16_loses_small_gradients_and_scaling_saves_them(model, batches):
    _, full = trained(model, batches)
    lost, without = trained(model, batches, emulate=torch.float16, pieces=PIECES)
    kept, scaled = trained(model, batches, emulate=torch.float16, pieces=PIECES, scaler=LossScaler(PIECES * 16.0))
    assert sum(s.zeros for s in lost) / len(lost) > 0.5 > 0.1 > sum(s.zeros for s in kept) / len(kept)
    assert abs(scaled - full) < 0.02 < without - full


def test_pieces_change_nothing_in_float32_and_little_in_bfloat16(model, batches):
    _, full = trained(model, batches)
    assert trained(model, batches, pieces=PIECES)[1] == pytest.approx(full, abs=2e-3)
    assert trained(model, batches, pieces=PIECES, autocast=torch.bfloat16)[1] == pytest.approx(full, abs=0.02)


def test_a_step_that_overflows_is_skipped_and_halves_the_scale(model, batches):
    before = copy.deepcopy(model.state_dict())
    steps = train(model, batches[:1], lr=1e-3, emulate=torch.float16, scaler=(scaler := LossScaler(2.0**40)))
    assert steps[0].skipped and scaler.scale == 2.0**39
    assert all(torch.equal(a, before[n]) for n, a in model.state_dict().items())


def test_the_optimizer_never_sees_pieces_or_scale(model, batches):
    """Gradients that stayed small would drown in Adam's epsilon."""
    one, scaled = (copy.deepcopy(model) for _ in range(2))
    train(one, batches[:2], lr=1e-3)
    train(scaled, batches[:2], lr=1e-3, scaler=LossScaler(2.0**-30), pieces=2**10)
    for a, b in zip(one.parameters(), scaled.parameters()):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_the_scaler_is_torch_s():
    theirs, ours = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3), LossScaler(2.0**10, patience=3)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for finite in [True, True, False, True, True, True, True, True, True, False, False, True] * 3:
        theirs.scale(weight.sum())
        weight.grad = torch.full((1,), 1.0 if finite else float("inf"))
        theirs.step(optimizer), theirs.update(), ours.update(finite)
        assert theirs.get_scale() == ours.scale


@pytest.mark.parametrize("gradient", [3e-5, 1.0, 500.0, 2.0**-20])
def test_the_largest_scale_just_fits(gradient):
    scale = largest_scale(gradient, 65504.0)
    assert gradient * scale <= 65504 < gradient * scale * 2


def test_halves_miss_small_updates():
    old = [torch.tensor([1.0, 1.0, 1.0, 0.0])]
    new = [torch.tensor([1.0 + 2**-10, 1.0 + 2**-7, 1.0, 2.0**-20])]  # bfloat16's step at 1 is 2^-7
    assert swallowed(old, new, torch.bfloat16) == pytest.approx(1 / 3)
    assert swallowed(old, new, torch.float16) == 0
    assert swallowed(old, old, torch.float16) == 0


def test_the_weights_gradients_are_kept_in_the_emulated_format(model, batches, monkeypatch):
    seen = []

    class Watched(torch.optim.AdamW):
        def step(self):
            seen.extend(p.grad.clone() for group in self.param_groups for p in group["params"])
            return super().step()

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    train(model, batches[:1], lr=1e-3, emulate=torch.float16)
    assert seen and all(torch.equal(grad, grad.half().float()) for grad in seen)


def test_the_loss_is_the_same_with_an_attention_that_adds_its_mask(model, batches):
    wanted = batch_loss(model, batches[0])
    model.set_attn_implementation("eager")
    torch.testing.assert_close(batch_loss(model, batches[0]), wanted)


def test_frozen_weights_stay(model, batches):
    frozen = model.model.layers[0].mlp.up_proj.weight.requires_grad_(False)
    before = frozen.clone()
    assert len(train(model, batches[:2], lr=1e-3)) == 2 and torch.equal(frozen, before)


def test_gradients_of_0_have_no_largest_scale():
    with pytest.raises(CourseError, match="gradients are 0"):
        largest_scale(0.0, 65504.0)
