"""Tiny random models of every kind of attention that the course's decoders meet, in float64."""

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 97
COMMON = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    eos_token_id=None,
    bos_token_id=None,
    pad_token_id=None,
)
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, dict(intermediate_size=96, num_key_value_heads=2)),
    "mistral": (MistralForCausalLM, MistralConfig, dict(intermediate_size=96, num_key_value_heads=2, sliding_window=8)),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(intermediate_size=96, num_key_value_heads=2, tie_word_embeddings=False),
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, dict(intermediate_size=96, num_key_value_heads=2, head_dim=16)),
    "falcon": (FalconForCausalLM, FalconConfig, dict(multi_query=True, new_decoder_architecture=False, alibi=False)),
}
ROPES = {  # rotary positions of every kind, on a Llama of 32 positions
    "default": {},
    "linear": dict(factor=4.0),
    "llama3": dict(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    "yarn": dict(factor=4.0, original_max_position_embeddings=32),
    "dynamic": dict(factor=4.0),
    "longrope": dict(factor=4.0, short_factor=[1.0] * 8, long_factor=[3.0] * 8, original_max_position_embeddings=32),
}


def tiny(kind="llama", seed=0):
    """A model of a kind of KINDS, or a Llama with rotary positions of a kind of ROPES."""
    cls, config, more = KINDS["llama" if kind in ROPES else kind]
    if kind in ROPES:
        original = kind in ("default", "dynamic", "linear")
        more = more | dict(
            max_position_embeddings=32 if original else 128,
            rope_parameters=dict(rope_type=kind, rope_theta=1e4, **ROPES[kind]),
        )
    torch.manual_seed(seed)
    return spread(cls(config(**COMMON, **more)))


def spread(model):
    """The model in float64, its weights so far apart that it does not write one token for ever."""
    model = model.double().eval()
    for p in model.parameters():
        if p.ndim == 2:
            p.data.mul_(6)
    return model


def greedy(model, ids, count):
    """What transformers' own loop says."""
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return out[0, len(ids) :].tolist()
