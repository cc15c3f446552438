"""Every architecture is decoded exactly or refused in a sentence; never other tokens without a word.

The reference is transformers' own `generate` on tiny random models in float64.
"""

import pytest
import torch
import transformers

from helpers.decoding import support
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.generate import steps
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.limits import Limits
from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import TokenProposer
from helpers.decoding.support import UnsupportedModelError, support_of
from helpers.decoding.trials import Support
from helpers.speculation.draft_model import DraftModel
from tests.tiny_models import ROPES, VOCABULARY, greedy, spread, tiny

COMMON = dict(vocab_size=VOCABULARY, eos_token_id=None, bos_token_id=None, pad_token_id=None)
BASE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
LLAMA_LIKE = BASE | dict(num_key_value_heads=2, intermediate_size=96)
GPT2_LIKE = dict(n_embd=64, n_layer=2, n_head=4)
MIXED_WINDOWS = dict(head_dim=16, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
CHUNKS = dict(attention_chunk_size=16, head_dim=16, num_local_experts=2, intermediate_size_mlp=96)
MAMBA_PART = dict(mamba_n_heads=8, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=1)
BART_LIKE = dict(
    d_model=64,
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=96,
    is_decoder=True,
    decoder_start_token_id=1,
    forced_eos_token_id=None,
)
HALF_LOCAL = [[["global", "local"], 1]]
ZOO = {
    "Llama": LLAMA_LIKE,
    "Mistral": LLAMA_LIKE | dict(sliding_window=8),
    "Qwen2": LLAMA_LIKE,
    "Qwen3": LLAMA_LIKE,
    "Gemma2": LLAMA_LIKE | MIXED_WINDOWS,
    "Gemma3": LLAMA_LIKE | MIXED_WINDOWS,
    "Phi": LLAMA_LIKE,
    "Phi3": LLAMA_LIKE,
    "StableLm": LLAMA_LIKE,
    "Olmo2": LLAMA_LIKE,
    "Granite": LLAMA_LIKE,
    "Cohere": LLAMA_LIKE,
    "SmolLM3": LLAMA_LIKE,
    "Qwen3Moe": LLAMA_LIKE | dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32),
    "Llama4": LLAMA_LIKE | CHUNKS,
    "GPT2": GPT2_LIKE,
    "GPTNeoX": BASE | dict(intermediate_size=96),
    "GPTNeo": dict(hidden_size=64, num_layers=2, num_heads=4, attention_types=HALF_LOCAL, window_size=16),
    "GPTJ": GPT2_LIKE | dict(rotary_dim=8),
    "OPT": BASE | dict(ffn_dim=96, word_embed_proj_dim=64),
    "Bloom": dict(hidden_size=64, n_layer=2, n_head=4),
    "Mpt": dict(d_model=64, n_layers=2, n_heads=4, max_seq_len=64),
    "Falcon": BASE | dict(alibi=True, new_decoder_architecture=False),
    "Mamba": dict(hidden_size=64, num_hidden_layers=2, state_size=8),
    "Mamba2": dict(hidden_size=64, num_hidden_layers=2, num_heads=8, head_dim=16, state_size=8, n_groups=1),
    "RecurrentGemma": LLAMA_LIKE | dict(attention_window_size=8, head_dim=16, num_hidden_layers=3),
    "Bamba": LLAMA_LIKE | MAMBA_PART | dict(attn_layer_indices=[1]),
    "Lfm2": LLAMA_LIKE | dict(layer_types=["conv", "full_attention"], block_ff_dim=96),
    "FalconH1": LLAMA_LIKE | MAMBA_PART | dict(mamba_d_ssm=128),
    "Bart": BART_LIKE,
    "BlenderbotSmall": BART_LIKE,
    "OpenAIGPT": GPT2_LIKE,
    "Rwkv": dict(hidden_size=64, num_hidden_layers=2),
}
CLASSES = {"GPT2": "GPT2LMHeadModel", "OpenAIGPT": "OpenAIGPTLMHeadModel"}
CONFIGS = {"Llama4": "Llama4TextConfig", "Gemma3": "Gemma3TextConfig"}
# At any length, with guesses and in batches.
EXACT = {*"Llama Mistral Qwen2 Qwen3 Phi StableLm Olmo2 Granite Cohere SmolLM3 GPT2 GPTNeoX".split()}
REFUSED = {"Mamba", "Mamba2", "RecurrentGemma", "Bamba", "Lfm2", "FalconH1", "OpenAIGPT", "Rwkv"}  # plain decoding, too
PROMPT = [5, 9, 2, 44, 3]


def built(name):
    config = getattr(transformers, CONFIGS.get(name, f"{name}Config"))(**COMMON | ZOO[name])
    torch.manual_seed(0)
    model = spread(getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config))
    return model.float() if name == "Qwen3Moe" else model  # its grouped products know no float64


class Branches(TokenProposer):
    """A wrong branch and then the right one."""

    def __init__(self, truth):
        self.truth = truth

    def guess(self, tokens):
        right = self.truth[len(tokens) - len(PROMPT) :][:3]
        wrong = [(token + 1) % VOCABULARY for token in right]
        parents = [*range(-1, len(right) - 1), *([-1] if right else []), *range(len(right), 2 * len(right) - 1)]
        return Proposal(wrong + right, parents, ["test"] * 2 * len(right))


def written(model, count, proposer=None, prompt=PROMPT):
    return [t for step in steps(model, prompt, max_new_tokens=count, proposer=proposer) for t in step.emitted]


def in_a_batch(model, prompts, count):
    """Greedy, several prompts at once."""
    forward, cache = Forward(model), KVCache.for_model(model, 64, len(prompts))
    new, answers = [list(prompt) for prompt in prompts], [[] for _ in prompts]
    for _ in range(count):
        readings = forward([Feed(row, tokens) for row, tokens in enumerate(new)], cache)
        new = [[int(reading.logits[-1].argmax())] for reading in readings]
        answers = [[*answer, *token] for answer, token in zip(answers, new)]
    return answers


def or_refusal(decode):
    """What is decoded, or None where a sentence says why not."""
    try:
        return decode()
    except UnsupportedModelError as error:
        assert len(str(error)) > 40
        return None


@pytest.mark.parametrize("name", ZOO)
def test_an_architecture_is_exact_or_refused(name):
    model, other = built(name), [7, 3, 8]
    truth = greedy(model, PROMPT, 16)
    plain = or_refusal(lambda: written(model, 16))
    guessed = or_refusal(lambda: written(model, 16, Branches(truth)))
    batch = or_refusal(lambda: in_a_batch(model, [PROMPT, other], 16))
    assert plain in (None, truth) and guessed in (None, truth)
    assert batch in (None, [truth, greedy(model, other, 16)])
    if name in EXACT:
        assert plain and guessed and batch
    assert (plain is None) == (name in REFUSED)


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("count", [16, 60])  # 5 + 16 tokens stay below the 32 that the positions were made for
def test_positions_that_depend_on_the_length_are_exact_or_refused(rope, count):
    model = tiny(rope)
    truth, other = greedy(model, PROMPT, count), [7, 3, 8]
    fresh = tiny(rope)  # dynamic positions remember the longest text: each way begins anew
    plain = or_refusal(lambda: written(fresh, count))
    assert plain == truth or (plain is None and rope == "longrope" and count == 60)
    for proposer in (Branches(truth), DraftModel(tiny(rope), count=3)):
        guessed = or_refusal(lambda: written(tiny(rope), count, proposer))  # noqa: B023
        assert guessed == (truth if count == 16 or rope not in ("dynamic", "longrope") else None)
    short = min(count, 40)
    batch = or_refusal(lambda: in_a_batch(tiny(rope), [PROMPT, other], short))
    alone = [greedy(tiny(rope), prompt, short) for prompt in (PROMPT, other)]
    assert batch == (alone if count == 16 or rope not in ("dynamic", "longrope") else None)


def test_longrope_past_its_switch_is_exact_again():
    prompt = [(7 * i) % VOCABULARY for i in range(40)]
    truth = greedy(tiny("longrope"), prompt, 12)
    assert written(tiny("longrope"), 12, prompt=prompt) == truth
    assert written(tiny("longrope"), 12, DraftModel(tiny("longrope")), prompt) == truth


def test_without_the_rule_dynamic_positions_give_other_tokens(monkeypatch):
    truths = [greedy(tiny("dynamic", seed), PROMPT, 60) for seed in range(4)]
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, config: cls()))
    assert truths != [written(tiny("dynamic", seed), 60, Branches(truth)) for seed, truth in enumerate(truths)]


def test_a_trial_that_is_not_made_lets_wrong_tokens_through(monkeypatch):
    model = built("Mpt")
    truth = greedy(model, PROMPT, 16)
    assert "other logits" in support_of(model).guesses
    monkeypatch.setitem(support._tried[model], model.config._attn_implementation, Support("", "", ""))
    assert written(model, 16, Branches(truth)) != truth


def test_a_mix_of_windows_takes_guesses_up_to_the_window_and_says_so_beyond():
    model = built("Gemma2")
    truth = greedy(model, PROMPT, 16)
    assert written(model, 11, Branches(truth)) == truth[:11] and written(model, 16) == truth
    with pytest.raises(
        UnsupportedModelError, match=r"past 16 tokens: keep prompt and max_new_tokens \(21\) below that"
    ):
        written(model, 16, Branches(truth))


def test_limits_are_read_from_the_configuration():
    assert Limits.of(tiny("mistral").config) == Limits(window=8)
    assert Limits.of(tiny("dynamic").config) == Limits(dynamic_after=32)
    assert Limits.of(tiny("longrope").config) == Limits(switch_after=32)
    assert Limits.of(tiny("llama").config) == Limits.of(tiny("yarn").config) == Limits()
    assert Limits.of(built("Gemma2").config) == Limits(mixed_up_to=16)


@torch.inference_mode()
def test_a_step_beyond_the_limits_is_refused_whoever_asks():
    forward, cache = Forward(tiny("dynamic")), KVCache.for_model(tiny(), 64, 2)
    forward([Feed(0, range(30))], cache)
    for feeds in ([Feed(0, [1, 2, 3], [-1, 0])], [Feed(0, [1, 2, 3])], [Feed(0, [1] * 3), Feed(1, [1])]):
        with pytest.raises(UnsupportedModelError, match="dynamic RoPE only single tokens"):
            forward(feeds, cache)
    forward([Feed(0, [1, 2])], cache)
    assert cache.lengths == {0: 32}


def test_a_model_in_training_mode_is_refused_until_it_is_not():
    model = tiny().train()
    with pytest.raises(UnsupportedModelError, match=r"call model\.eval"):
        written(model, 4)
    assert written(model.eval(), 4) == greedy(model, PROMPT, 4)


def test_what_all_logits_have_in_common_hides_no_mistake():
    model = built("Mpt")
    torch.nn.init.normal_(model.lm_head.weight, 0, 0.12)
    model.lm_head.bias = torch.nn.Parameter(1000 * torch.randn(VOCABULARY).double())
    assert "other logits" in support_of(model).guesses


def test_a_draft_that_cannot_read_several_tokens_is_refused():
    with pytest.raises(UnsupportedModelError, match="several tokens after others"):
        DraftModel(built("Bloom"))
