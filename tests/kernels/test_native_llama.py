"""The step in C++ is the model's own function, and a token's logits are the same to the bit however it is read."""

import shutil
import subprocess

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.decoding.cache_check import equals_recomputation
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.generate import steps
from helpers.decoding.kv_cache import KVCache
from helpers.engine.paged_cache import PagedCache
from helpers.errors import CourseError
from helpers.kernels.native import library, tiles
from helpers.kernels.native.native_llama import NativeLlama
from helpers.speculation.medusa import Medusa
from tests.speculation.test_medusa import PROMPT, TREE, Foreseeing, emitted, heads_for
from tests.tiny_models import greedy, tiny

LIKE_LLAMA = ("llama", "qwen2", "qwen3")


def fresh():
    """Forget the library of this process."""
    library.library.cache_clear()
    library.why_not.cache_clear()


pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))


def made(kind="llama", dtype=torch.float32):
    """A tiny model whose heads are a whole vector of units, with its step in C++; odd sizes where they may be."""
    if kind != "llama":
        model = tiny(kind).to(dtype)
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=97,
            hidden_size=72,
            intermediate_size=88,
            num_hidden_layers=3,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=32,
            eos_token_id=None,
            bos_token_id=None,
            attention_bias=True,
            mlp_bias=True,
        )
        model = LlamaForCausalLM(config).eval()
        for parameter in model.parameters():
            parameter.data = (parameter + 0.1 * torch.randn_like(parameter)).detach()
        model = model.to(dtype)
    return model, NativeLlama(model)


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_logits_and_hidden_states_are_the_model_s(kind):
    model, native = made(kind)
    caches = [KVCache.for_model(model, 40, 2) for _ in range(2)]
    feeds = (
        [Feed(0, PROMPT)],
        [Feed(0, [3])],
        [Feed(0, [4, 5, 6]), Feed(1, [8, 2])],
        [Feed(0, [9, 8, 7, 6], (-1, -1, 0)), Feed(1, [1])],
        [Feed(1, [t % 97 for t in range(30)])],
    )
    for of_step in feeds:
        wanted, fast = (Forward(m)(of_step, cache) for m, cache in zip((model, native), caches))
        for a, b in zip(wanted, fast, strict=True):
            torch.testing.assert_close(b.logits, a.logits, atol=2e-5, rtol=2e-5)
            torch.testing.assert_close(b.hidden, a.hidden, atol=2e-5, rtol=2e-5)


def test_in_bfloat16_it_is_as_near_to_the_exact_function_as_the_library_is():
    model, native = made(dtype=torch.bfloat16)
    exact, _ = made()
    exact.load_state_dict({name: weight.float() for name, weight in model.state_dict().items()})
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        wanted = exact(ids).logits
        errors = [(m(ids).logits.float() - wanted).abs().mean() for m in (native, model)]
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_it_decodes_the_same_tokens(kind):
    model, native = made(kind)
    truth = greedy(model, PROMPT, 30)
    for proposer in (None, Medusa(heads_for(model), TREE), Foreseeing(truth, 2)):
        assert emitted(steps(native, PROMPT, max_new_tokens=30, proposer=proposer)) == truth


@pytest.mark.parametrize("kind", LIKE_LLAMA)
def test_sequences_that_come_and_go_equal_recomputation(kind):
    _, native = made(kind)
    assert all(equals_recomputation(native, seed) for seed in range(10))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.bfloat16]))
def test_logits_are_the_same_to_the_bit_in_any_chunks(chunks, dtype):
    _, native = BIT_EXACT[dtype]
    text = [(7 * i + i * i) % 97 for i in range(sum(chunks))]
    one_by_one = KVCache.for_model(native, len(text))
    wanted = torch.stack([Forward(native)([Feed(0, [t])], one_by_one)[0].logits[-1] for t in text])
    cache, at, found = KVCache.for_model(native, len(text), 2), 0, []
    for n in chunks:
        other = Feed("another", text[:3]) if "another" not in cache.lengths and at else None
        feeds = [Feed(0, text[at : at + n], tuple(range(-1, n - 2)))] + ([other] if other else [])
        found.append(Forward(native)(feeds, cache)[0].logits)
        at += n
    assert torch.equal(torch.cat(found), wanted)


BIT_EXACT = {dtype: made(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)} if not library.why_not() else {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_guess_of_a_tree_has_the_bits_of_the_same_token_read_alone(dtype):
    _, native = made(dtype=dtype)
    forward = Forward(native)
    known, tree, parents = PROMPT, [4, 5, 6, 7, 8, 9], (-1, 0, -1, 2, 2, 4)
    cache = KVCache.for_model(native, 60)
    forward([Feed(0, known)], cache)
    logits = forward([Feed(0, [3, *tree], parents)], cache)[0].logits
    for path in ((), (0,), (0, 1), (2,), (2, 3), (2, 4, 5)):
        alone = KVCache.for_model(native, 60)
        forward([Feed(0, known)], alone)
        for token in (3, *(tree[i] for i in path)):
            [reading] = forward([Feed(0, [token])], alone)
        assert torch.equal(reading.logits[-1], logits[path[-1] + 1 if path else 0])


def test_the_library_s_products_do_not_have_that():
    """What makes the two tests above more than a tautology: another order of sums shows in the bits."""
    torch.manual_seed(0)
    linear, x = nn.Linear(576, 4096, bias=False), torch.randn(24, 576)
    with torch.no_grad():
        assert not torch.equal(torch.cat([linear(row[None]) for row in x]), linear(x))


@pytest.mark.parametrize("mistake", ["positions", "norm", "last tile"])
def test_a_mistake_is_caught(mistake):
    model, native = made()
    if mistake == "positions":
        model.model.rotary_emb.inv_freq *= 1.1
    if mistake == "norm":
        model.model.layers[1].input_layernorm.weight.data[3] += 0.5
    if mistake == "last tile":
        model.lm_head.weight.data[96] = 0
    with torch.no_grad():
        found, wanted = native(torch.tensor([PROMPT])).logits, model(torch.tensor([PROMPT])).logits
    assert (found - wanted).abs().max() > 1e-3


def test_long_texts_and_threads(monkeypatch):
    model, native = made()
    ids = torch.arange(300)[None] % 97
    with torch.no_grad():
        wanted = model(ids).logits
    before = torch.get_num_threads()
    try:
        by_threads = {}
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found = native(ids).logits
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
            by_threads[threads] = found
            assert native(ids, logits_to_keep=2).logits.shape == (1, 2, 97)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(by_threads[1], by_threads[2]) and torch.equal(by_threads[1], by_threads[5])  # to the bit


def test_without_bfloat16_products_of_the_processor_it_is_the_same_function(tmp_path, monkeypatch):
    """As on a machine whose vectors are shorter, and which multiplies no bfloat16: the compiler writes it out."""
    if "avx2" not in library._flags():
        pytest.skip("needs an x86 processor")
    model, native = made(dtype=torch.bfloat16)
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", tuple(f.replace("native", "haswell") for f in library.FLAGS))
    fresh()
    try:
        plain = NativeLlama(model)
    finally:
        fresh()
    ids = torch.tensor([PROMPT])
    torch.testing.assert_close(plain(ids).logits, native(ids).logits, atol=0.05, rtol=0.05)


def test_large_scores_and_gates_are_the_model_s():
    """Softmax without its maximum would overflow, and so would an exponential that nobody holds."""
    model, _ = made()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data *= 40
        layer.mlp.gate_proj.weight.data *= 60
    with torch.no_grad():
        found, wanted = NativeLlama(model)(torch.tensor([PROMPT])).logits, model(torch.tensor([PROMPT])).logits
    assert found.isfinite().all()
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_the_epsilon_of_the_heads_norm_counts():
    model = tiny("qwen3").float()
    for layer in model.model.layers:
        for p in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            p.weight.data *= 1e-4
    with torch.no_grad():
        found, wanted = NativeLlama(model)(torch.tensor([PROMPT])).logits, model(torch.tensor([PROMPT])).logits
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_numbers_are_rounded_to_the_nearest_bfloat16():
    x, w = (
        torch.tensor([[1.0, 1.0]]).bfloat16(),
        torch.tensor([[256.0, n] for n in (0.5, 1.0, 1.5, 3.0, -0.6)]).bfloat16(),
    )
    wanted = (x.float() @ w.float().T).bfloat16()
    assert torch.equal(tiles.product(x, tiles.Tiles.of(w)), wanted)
    assert not torch.equal(wanted.float(), x.float() @ w.float().T)  # there is something to round


def test_many_tokens_have_their_own_sums():
    x = torch.randn(170_000, 2)
    w = torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(tiles.product(x, tiles.Tiles.of(w)), x @ w.T)


def test_what_does_not_fit_is_refused_and_the_cache_stays():
    model, native = made()
    ids = torch.tensor([PROMPT])
    n = len(PROMPT)
    other = made(dtype=torch.bfloat16)[1]
    filled = KVCache.for_model(model, 40)
    other(ids, filled)
    with pytest.raises(CourseError, match="filled by another model"):
        native(ids, filled)
    with pytest.raises(CourseError, match="filled by another model"):
        native(ids, KVCache(2, 40))
    assert filled.length == n  # as it was
    cache = KVCache.for_model(model, 3000)
    with pytest.raises(CourseError, match="2048 positions"):
        Forward(native)([Feed(0, [3] * 2049)], cache)
    assert cache.length == 0
    for unread in (dict(attention_mask=torch.zeros(1, 1, n, n)), dict(position_ids=torch.arange(n)[None])):
        with pytest.raises(CourseError, match="reads masks and positions as feeds"):
            native(ids, cache, **unread)
        assert cache.length == 0
    assert torch.equal(native(ids, cache).logits, native(ids).logits)


def test_blocks_that_vectors_don_t_fit_are_refused():
    _, native = made()
    forward, small = Forward(native), PagedCache.for_model(native, 20, 8)
    assert forward([Feed(0, PROMPT[:4])], small)[0].logits.isfinite().all()
    with pytest.raises(CourseError, match="blocks of a multiple of 16 tokens"):
        forward([Feed(1, [t % 97 for t in range(20)])], small)
    assert small.lengths == {0: 4}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.sampled_from([torch.float32, torch.bfloat16]))
def test_logits_are_the_same_to_the_bit_in_blocks(chunks, dtype):
    _, native = BIT_EXACT[dtype]
    text, at = [(7 * i + i * i) % 97 for i in range(sum(chunks))], 0
    rows, blocks = KVCache.for_model(native, len(text)), PagedCache.for_model(native, 30)
    Forward(native)([Feed("first", range(19))], blocks)  # so that the others' blocks don't begin at 0
    for n in chunks:
        feed = Feed(0, text[at : at + n], tuple(range(-1, n - 2)))
        one, other = (Forward(native)([feed], cache)[0] for cache in (rows, blocks))
        assert torch.equal(one.logits, other.logits) and torch.equal(one.hidden, other.hidden)
        at += n


@torch.inference_mode()
def test_tensors_that_a_cache_replaced_are_seen():
    _, native = made()
    cache = KVCache.for_model(native, 40)
    native(torch.tensor([PROMPT]), cache)
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.clone(), torch.zeros_like(layer.values)
    found = native(torch.tensor([[3]]), cache).logits
    fresh_cache = KVCache.for_model(native, 40)
    native(torch.tensor([PROMPT]), fresh_cache)
    for layer in fresh_cache.layers:
        layer.values.zero_()
    assert torch.equal(native(torch.tensor([[3]]), fresh_cache).logits, found)


def test_weights_that_it_would_misread_are_refused():
    for change, reason in (
        (lambda m: m.lm_head.bfloat16(), "cast the model as a whole"),
        (lambda m: setattr(m, "lm_head", nn.Linear(72, 97)), "lm_head without a bias"),
        (lambda m: setattr(m.model.layers[1].self_attn.q_proj, "bias", None), "all have a bias, or none has"),
    ):
        model, _ = made()
        change(model)
        with pytest.raises(CourseError, match=reason):
            NativeLlama(model)


def test_a_damaged_library_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    library._compiled().write_bytes(b"not a library")
    fresh()
    try:
        assert library.why_not() is None
    finally:
        fresh()


def test_what_it_is_not_written_for_is_refused_with_the_reason():
    with pytest.raises(CourseError, match="in float32 and bfloat16"):
        NativeLlama(tiny())  # float64
    with pytest.raises(CourseError, match="heads of a multiple of 32 numbers, and this model's have 16"):
        NativeLlama(tiny().bfloat16())
    with pytest.raises(CourseError, match="The fused step is written for"):
        NativeLlama(tiny("falcon").float())
    model, native = made()
    with pytest.raises(CourseError, match="load the model in another dtype"):
        native.bfloat16()
    with pytest.raises(CourseError, match="2048 positions, and the text is longer"):
        list(steps(native, [t % 97 for t in range(2048)], max_new_tokens=4))

    class Adapter(nn.Linear):
        pass

    model.model.layers[0].mlp.up_proj = Adapter(72, 88)
    with pytest.raises(CourseError, match="merge adapters first"):
        NativeLlama(model)


def test_a_compiler_that_fails_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, "-mno-such-option"))
    fresh()
    try:
        assert "did not take the course's step" in library.why_not() and "update g++" in library.why_not()
        assert not list((tmp_path / "native").iterdir())
        fresh()
        monkeypatch.setattr(library, "compiler", lambda: None)
        assert "apt install g++" in library.why_not()
    finally:
        fresh()


def test_it_is_compiled_once(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    first = library._compiled()
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("compiled again"))
    assert library._compiled() == first and [first] == list((tmp_path / "native").iterdir())
    shutil.rmtree(tmp_path / "native")
