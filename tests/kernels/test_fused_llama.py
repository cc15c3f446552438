"""The fused step is the same function as the model's own, for prompts, guesses, trees and several sequences."""

import pytest
import torch
from torch import nn

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.generate import steps
from helpers.decoding.kv_cache import KVCache
from helpers.errors import CourseError
from helpers.kernels.fused_llama import Beside, FusedLlama, joined
from helpers.kernels.packed_linear import PackedLinear
from helpers.speculation.medusa import Medusa
from tests.speculation.test_medusa import PROMPT, TREE, Foreseeing, emitted, heads_for
from tests.tiny_models import greedy, tiny

LIKE_LLAMA = ("llama", "qwen2", "qwen3")


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_logits_and_hidden_states_are_the_model_s(kind):
    model = tiny(kind)
    fused = FusedLlama(model)
    caches = [KVCache.for_model(model, 40, 2) for _ in range(2)]
    feeds = (
        [Feed(0, PROMPT)],
        [Feed(0, [3])],
        [Feed(0, [4, 5, 6]), Feed(1, [8, 2])],
        [Feed(0, [9, 8, 7, 6], (-1, -1, 0)), Feed(1, [1])],
    )
    for of_step in feeds:
        wanted, fast = (Forward(m)(of_step, cache) for m, cache in zip((model, fused), caches))
        for a, b in zip(wanted, fast, strict=True):
            torch.testing.assert_close(b.logits, a.logits, atol=1e-5, rtol=1e-5)  # both turn by angles in float32
            torch.testing.assert_close(b.hidden, a.hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_it_decodes_the_same_tokens(kind):
    model = tiny(kind)
    fused, truth = FusedLlama(model), greedy(model, PROMPT, 30)
    for proposer in (None, Medusa(heads_for(model), TREE), Foreseeing(truth, 2)):
        assert emitted(steps(fused, PROMPT, max_new_tokens=30, proposer=proposer)) == truth


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_sequences_that_come_and_go_equal_recomputation(kind):
    fused = FusedLlama(tiny(kind))
    assert all(equals_recomputation(fused, seed) for seed in range(10))


def test_a_norm_of_queries_that_is_left_out_is_caught():
    model = tiny("qwen3")
    fused = FusedLlama(model)
    for layer in fused.layers:
        layer.head_norm = None  # the mistake
    assert emitted(steps(fused, PROMPT, max_new_tokens=30)) != greedy(model, PROMPT, 30)


def test_rotary_positions_turned_the_wrong_way_are_caught():
    model = tiny()
    fused = FusedLlama(model)
    fused.sin = -fused.sin
    assert emitted(steps(fused, PROMPT, max_new_tokens=30)) != greedy(model, PROMPT, 30)


@torch.no_grad()
def test_linear_layers_of_any_kind_are_joined():
    torch.manual_seed(0)
    a, b, x = nn.Linear(4, 3), nn.Linear(4, 2), torch.randn(5, 4)
    wanted = torch.cat([a(x), b(x)], -1)

    class Halved(nn.Module):  # keeps its weight in another way
        def __init__(self, linear):
            super().__init__()
            self.half, self.bias = linear.weight / 2, linear.bias

        def forward(self, x):
            return 2 * x @ self.half.T + self.bias

    variants = ["plain"] * 7
    packed, bare = PackedLinear(a, variants), nn.Linear(4, 2, bias=False)
    for pair in ((packed, bare), (bare, packed)):
        torch.testing.assert_close(joined(*pair)(x), torch.cat([layer(x) for layer in pair], -1))
    for pair, kind in (
        ((a, b), nn.Linear),
        ((Halved(a), b), Beside),
        ((a, Halved(b)), Beside),
        ((PackedLinear(a, variants), PackedLinear(b, variants)), nn.Linear),
    ):
        one = joined(*pair)
        assert type(one) is kind
        torch.testing.assert_close(one(x), wanted)
    assert type(joined(a)) is nn.Linear
    without = nn.Linear(4, 2, bias=False)
    torch.testing.assert_close(joined(a, without)(x), torch.cat([a(x), without(x)], -1))


def test_what_it_is_not_written_for_is_refused():
    for kind in ("falcon", "mistral", "dynamic", "longrope"):  # that Mistral has windows
        with pytest.raises(CourseError, match="The fused step is written for"):
            FusedLlama(tiny(kind))
    fused = FusedLlama(tiny())
    longest = [t % 97 for t in range(fused.config.max_position_embeddings)]
    with pytest.raises(CourseError, match="has 2048 positions, and the text is longer"):
        list(steps(fused, longest, max_new_tokens=4))


def test_it_refuses_to_be_cast():
    with pytest.raises(CourseError, match="load the model in another dtype"):
        FusedLlama(tiny()).float()
