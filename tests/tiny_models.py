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
)

VOCABULARY = 97
COMMON = dict(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, eos_token_id=None,
              bos_token_id=None, pad_token_id=None)  # fmt: skip
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig, dict(intermediate_size=96, num_key_value_heads=2)),
    "mistral": (MistralForCausalLM, MistralConfig,
                dict(intermediate_size=96, num_key_value_heads=2, sliding_window=8)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config,
              dict(intermediate_size=96, num_key_value_heads=2, tie_word_embeddings=False)),
    "falcon": (FalconForCausalLM, FalconConfig, dict(multi_query=True, new_decoder_architecture=False, alibi=False)),
}  # fmt: skip


def tiny(kind="llama", seed=0):
    torch.manual_seed(seed)
    cls, config, more = KINDS[kind]
    model = cls(config(**COMMON, **more)).double().eval()
    for p in model.parameters():  # the default spread makes every model say one token for ever
        if p.ndim == 2:
            p.data.mul_(6)
    return model


def greedy(model, ids, count):
    """What transformers' own loop says."""
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return out[0, len(ids) :].tolist()
