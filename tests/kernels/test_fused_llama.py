"""A lean step is the same function as the model's own, guesses and trees included."""

import pytest
import torch

from helpers.decoding.forward import Decoder
from helpers.decoding.generate import steps
from helpers.decoding.kv_cache import KVCache
from helpers.errors import CourseError
from helpers.kernels.fused_llama import Lean
from helpers.speculation.medusa import Medusa
from tests.speculation.test_medusa import PROMPT, TREE, Foreseeing, emitted, heads_for
from tests.tiny_models import greedy, tiny

LIKE_LLAMA = ("llama", "qwen2")


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_logits_and_hidden_states_are_the_model_s(kind):
    model = tiny(kind)
    lean = Lean(model)
    caches = [KVCache.for_model(model, 40) for _ in range(2)]
    for tokens, parents in ((PROMPT, ()), ([3], ()), ([4, 5, 6], ()), ([9, 8, 7, 6], (-1, -1, 0))):
        found = [Decoder(m, keep_hidden=True).step(tokens, c, parents) for m, c in zip((model, lean), caches)]
        for wanted, got in zip(*found):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)  # both turn by angles in float32


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_it_decodes_the_same_tokens(kind):
    model = tiny(kind)
    lean, truth = Lean(model), greedy(model, PROMPT, 30)
    for proposer in (None, Medusa(heads_for(model), TREE), Foreseeing(truth, 2)):
        assert emitted(steps(lean, PROMPT, max_new_tokens=30, proposer=proposer)) == truth


def test_rotary_positions_turned_the_wrong_way_are_caught():
    model = tiny()
    lean = Lean(model)
    lean.sin = -lean.sin
    assert emitted(steps(lean, PROMPT, max_new_tokens=30)) != greedy(model, PROMPT, 30)


def test_what_it_is_not_written_for_is_refused():
    for kind in ("falcon", "mistral"):  # that Mistral has windows
        with pytest.raises(CourseError, match="A lean step is written for"):
            Lean(tiny(kind))
    lean = Lean(tiny())
    with pytest.raises(CourseError, match="one prompt at a time"):
        lean(torch.tensor([[1], [2]]), KVCache.for_model(lean, 8))
