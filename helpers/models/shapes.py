"""Models with random weights of a named architecture: for speed and memory alone."""

from __future__ import annotations

import torch

from helpers.errors import CourseError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_LLAMA = dict(model_type="llama", vocab_size=32_000, rope_theta=10_000.0)


def _llama(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, **more) -> dict:
    return (
        _LLAMA
        | dict(
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
        )
        | more
    )


# The small ones are ours, for CPUs (their vocabulary is small, so that the layers are most of the weights);
# from 1b on they are the published architectures, named beside each.
SHAPES = {
    "llama-tiny": _llama(64, 96, 2, 4, 2, vocab_size=97, tie_word_embeddings=True),  # for tests of correctness
    "llama-50m": _llama(768, 2048, 8, 12, 4, vocab_size=2048, tie_word_embeddings=True),
    "llama-150m": _llama(1024, 4096, 10, 16, 4, vocab_size=2048, tie_word_embeddings=True),
    "llama-300m": _llama(1280, 5120, 13, 20, 4, vocab_size=2048, tie_word_embeddings=True),
    "llama-500m": _llama(1536, 6144, 15, 24, 8, vocab_size=2048, tie_word_embeddings=True),
    "llama-1b": _llama(2048, 8192, 16, 32, 8, vocab_size=128_256, tie_word_embeddings=True, rope_theta=5e5),  # 3.2 1B
    "tinyllama-1.1b": _llama(2048, 5632, 22, 32, 4),  # TinyLlama 1.1B
    "llama-7b": _llama(4096, 11_008, 32, 32, 32),  # Llama 2 7B
    "llama-8b": _llama(4096, 14_336, 32, 32, 8, vocab_size=128_256, rope_theta=5e5),  # Llama 3.1 8B
    "mistral-7b": _llama(4096, 14_336, 32, 32, 8, model_type="mistral", sliding_window=4096),  # Mistral 7B v0.1
    "qwen2-0.5b": _llama(
        896, 4864, 24, 14, 2, model_type="qwen2", vocab_size=151_936, tie_word_embeddings=True, rope_theta=1e6
    ),  # Qwen2 0.5B
}


def dtype_of(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype of a name like "bfloat16"."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in DTYPES:
        raise CourseError(f"There is no dtype {dtype!r} here; there are {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def config_of(name: str, **changes):
    """The transformers configuration of a named shape, with some of its values changed."""
    from transformers import AutoConfig

    if name not in SHAPES:
        raise CourseError(f"There is no shape {name!r}; there are {', '.join(SHAPES)}.")
    shape = SHAPES[name] | changes
    rope = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
    return AutoConfig.for_model(**shape, rope_parameters=rope, bos_token_id=None, eos_token_id=None)


def shape_only(name: str, dtype: str | torch.dtype = "float32", device: str = "cpu", seed: int = 0, **changes):
    """A model of exactly that architecture with random weights, made in `dtype` without a detour through float32.

    For speed and memory alone: what it says means nothing. `changes` are to the configuration: hidden_size=64, say.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(name, **changes)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype_of(dtype)).eval()
