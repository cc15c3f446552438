"""In half precision a model is judged as in float32: its rounding is excused, and nothing else is."""

import pytest
import torch

from helpers import models
from helpers.decoding import trials
from helpers.decoding.trials import Support, tried
from helpers.weights.precision.autocast import under_autocast
from tests.decoding.test_support import built
from tests.tiny_models import tiny

EXACT = Support("", "", "")
NAMES = ["Llama", "Mistral", "Gemma2", "GPTJ", "Mpt", "Bloom", "Bart", "BlenderbotSmall", "RecurrentGemma"]


def verdicts(support):
    return [not trouble for trouble in vars(support).values()]


def noisy(dtype, amount, only_cached=False):
    """A model that is exact in float32, and whose logits of this dtype are off by `amount` of their spread: as a deep
    model's are by rounding, or only those that it makes with a cache."""
    model, generator = tiny().to(dtype), torch.Generator().manual_seed(0)

    def disturb(module, args, kwargs, output):
        if output.logits.dtype == dtype and (kwargs.get("past_key_values") is not None or not only_cached):
            noise = torch.randn(output.logits.shape, generator=generator) * output.logits.float().std()
            output.logits = (output.logits + amount * noise).to(dtype)
        return output

    model.register_forward_hook(disturb, with_kwargs=True)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_bfloat16_is_judged_as_one_of_float64(name):
    assert verdicts(tried(built(name).bfloat16())) == verdicts(tried(built(name)))


def test_a_tolerance_for_rounding_would_let_wrong_masks_through(monkeypatch):
    model = built("BlenderbotSmall").bfloat16()
    assert "other logits" in tried(model).guesses
    monkeypatch.setattr(trials, "_same", lambda trial, model, cached, anew, dtype: trials._within(dtype, cached, anew))
    assert not tried(model).guesses  # the mistake


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_that_exceeds_mistakes_is_excused(dtype):
    model = noisy(dtype, 0.2)
    with torch.inference_mode():
        cached, anew, of_logits = trials._logits(trials._with_guesses, model)
        assert of_logits == dtype and not trials._within(dtype, cached, anew)
    assert tried(model) == EXACT


def test_a_model_under_autocast_is_judged_as_one_of_bfloat16():
    model = under_autocast(tiny().float(), torch.bfloat16)
    with torch.inference_mode():
        assert trials._logits(trials._with_guesses, model)[2] == torch.bfloat16
    assert tried(model) == EXACT
    wrong = under_autocast(built("BlenderbotSmall").float(), torch.bfloat16)
    assert verdicts(tried(wrong)) == verdicts(tried(built("BlenderbotSmall")))


@pytest.mark.parametrize("amount", [0.2, torch.nan])
def test_what_is_wrong_in_bfloat16_alone_is_not(amount):
    support = tried(noisy(torch.bfloat16, amount, only_cached=True))
    assert all("other logits" in trouble for trouble in vars(support).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_float32_and_float64_nothing_is_excused(dtype):
    assert "other logits" in tried(noisy(dtype, 0.01)).tokens


@pytest.mark.parametrize("amount", [0.02, 1.0])
def test_weights_that_can_not_be_cast_are_judged_by_what_half_precision_gives(monkeypatch, amount):
    class Refuses(trials.InFloat32):
        def __torch_dispatch__(self, *args, **kwargs):
            raise NotImplementedError

    monkeypatch.setattr(trials, "InFloat32", Refuses)
    assert (tried(noisy(torch.bfloat16, amount)) == EXACT) == (amount < 0.1)


def test_the_fine_tuned_model_takes_guesses_in_bfloat16():
    assert tried(models.load("fine-tuned", "bfloat16")[0]) == EXACT
