"""A Llama as a file of llama.cpp's, so that another engine runs the very same weights (notebook 08b).

llama.cpp turns neighbours of a head by their position (numbers 0 and 1), transformers turns halves (0 and 32 of 64):
the rows of queries and keys change their order, and the function stays. The tokenizer is the base model's, taken from
the file that its package brings.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch

from helpers.errors import CourseError
from helpers.models import package

# How a file stores its matrices: 32, 16, 8.5 and 5 bits a weight. Norms are float32 in each of them.
KINDS = ("F32", "BF16", "Q8_0", "Q4_1")

EMBEDDING = {"Q4_1": "Q8_0"}  # the package's own file keeps it in more bits, too
BLOCK = 32  # numbers that share a scale

TENSORS = {  # transformers' names and llama.cpp's
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
IN_A_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(model, path: Path, kind: str = "BF16") -> Path:
    """Write a model with the base's tokens as a GGUF file, its matrices in `kind`; returns the path.

    The file appears when it is whole.

    Raises:
        CourseError: no such kind; another architecture than a plain Llama, another vocabulary than the base's, or a
            width that the kind's blocks don't divide; the base's package is missing.
    """
    from gguf import GGUFWriter

    check_can_be_written(model, kind)
    draft = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer = GGUFWriter(draft, "llama")
        _add_settings(writer, model.config)
        for name, (value, types) in _tokenizer(package.gguf_file()).items():
            writer.add_key_value(name, value, *types)
        for name, tensor in model.state_dict().items():
            if not (name == "lm_head.weight" and model.config.tie_word_embeddings):
                _add_tensor(writer, gguf_name(name), _in_their_order(name, tensor, model.config), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def check_can_be_written(model, kind: str = "BF16") -> None:
    """Refuse in a sentence what `write_gguf` can't write."""
    if kind not in KINDS:
        raise CourseError(f"There is no kind {kind!r} of GGUF file here; there are {', '.join(KINDS)}.")
    config = model.config
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    biases = getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)
    if config.model_type != "llama" or rope != "default" or biases:
        raise CourseError(
            f"Only a Llama with default rotary positions and without biases is written as GGUF, not {config.model_type}"
            f" with {rope} ones: llama.cpp's own converter takes more."
        )
    tokens = len(_tokenizer(package.gguf_file())["tokenizer.ggml.tokens"][0])
    if config.vocab_size != tokens:
        raise CourseError(
            f"The model has {config.vocab_size} tokens and the base's tokenizer {tokens}: only models that share the "
            "base's tokenizer are written as GGUF here."
        )
    if kind.startswith("Q") and (config.hidden_size % BLOCK or config.intermediate_size % BLOCK):
        raise CourseError(f"{kind} has blocks of {BLOCK} numbers, which don't divide the model's width: take BF16.")


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor: "model.layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight"."""
    stem = name.removesuffix(".weight")
    if stem in TENSORS:
        return f"{TENSORS[stem]}.weight"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{IN_A_LAYER[inner]}.weight"


def neighbours_first(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys (heads x head_dim, hidden) from the order of halves to that of neighbours: of a head's
    rows 0, 1, ..., 63 become 0, 32, 1, 33, ..."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _in_their_order(name: str, tensor: torch.Tensor, config) -> torch.Tensor:
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    turned = next((count for part, count in heads.items() if part in name), None)
    return tensor if turned is None else neighbours_first(tensor, turned)


def _add_settings(writer, config) -> None:
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


@cache
def _tokenizer(path: Path) -> dict[str, tuple[object, list]]:
    """What a GGUF file says of its tokenizer, by name: the value, and its types as the file has them."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    return {name: (f.contents(), f.types[:2]) for name, f in fields.items() if name.startswith("tokenizer.")}


def _add_tensor(writer, name: str, tensor: torch.Tensor, kind: str) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    numbers = tensor.detach().float().cpu().contiguous().numpy()
    if numbers.ndim == 1:  # a norm
        kind = "F32"
    elif name in ("token_embd.weight", "output.weight"):
        kind = EMBEDDING.get(kind, kind)
    stored = GGMLQuantizationType[kind]
    writer.add_tensor(name, np.ascontiguousarray(quantize(numbers, stored)), raw_dtype=stored)


def weight_bytes(path: Path) -> int:
    """Bytes of a file's matrices and norms, all of which a step reads: a tied embedding is its lm_head, too."""
    from gguf import GGUFReader

    tensors = GGUFReader(path).tensors
    untied = any(tensor.name == "output.weight" for tensor in tensors)
    return sum(int(t.n_bytes) for t in tensors if not (untied and t.name == "token_embd.weight"))
