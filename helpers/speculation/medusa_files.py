"""Heads on disk, as vLLM and TGI read them (notebook 08).

Reduced heads are kept as vLLM reads them: `token_map` (num_ids,) holds the token that each row of their lm_head stands
for, and `truncated_vocab_size` says how many. vLLM 0.32 reads that and stops, as if the token_map were missing
(profiling/vllm_baseline.py gets it past that). TGI passes over both, and its heads share the model's whole lm_head: the
guesses are then among all tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.errors import CourseError
from helpers.models.places import HEADS, folder_of
from helpers.speculation.medusa_heads import MedusaHeads, ReducedMedusaHeads

ALSO = "medusa_heads.safetensors"  # the name in AWS's published notebook


def config_of(heads: MedusaHeads, base: str) -> dict:
    """The configuration that vLLM and TGI read; any other key would mislead one of them."""
    vocabulary, hidden = _lm_head(heads).shape[-2:]
    reduced = isinstance(heads, ReducedMedusaHeads)
    small = {} if heads.own_lm_heads else {"original_lm_head": True}
    fewer = {"truncated_vocab_size": vocabulary} if reduced else {}
    return {
        "model_type": "medusa",
        "medusa_num_heads": heads.count,
        "medusa_num_layers": heads.layers,
        "base_model_name_or_path": base,
        "hidden_size": hidden,
        "vocab_size": heads.vocabulary if reduced else vocabulary,
        "medusa_fc_bias": True,
    } | (small | fewer)


def _lm_head(heads: MedusaHeads) -> torch.Tensor:
    return heads.lm_head if heads.own_lm_heads else heads.lm_head.weight


def save(heads: MedusaHeads, place: Path, base: str, with_lm_head: bool = True) -> None:
    """Write config.json and the weights in two bytes a number; heads that share the model's lm_head bring a copy of it
    (reduced heads of its rows) for other programs, unless `with_lm_head` is false (the course reads it from the
    model)."""
    place.mkdir(parents=True, exist_ok=True)
    layers, reduced, tensors = heads.layers, isinstance(heads, ReducedMedusaHeads), {}
    for i in range(heads.count):
        for j, (weight, bias) in enumerate(heads.blocks()):
            tensors[f"{i}.{j}.linear.weight"], tensors[f"{i}.{j}.linear.bias"] = weight[i], bias[i]
        if heads.own_lm_heads:
            tensors[f"{i}.{layers}.weight"] = heads.lm_head[i]
    if with_lm_head and not heads.own_lm_heads:
        # TGI would take the first name for one head's own lm_head, over all tokens; the other is vLLM's alone.
        tensors["lm_heads.0.weight" if reduced else f"0.{layers}.weight"] = _lm_head(heads)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}
    if reduced:
        tensors["token_map"] = heads.token_ids
    save_file(tensors, place / HEADS)
    (place / HEADS).chmod(0o644)
    (place / "config.json").write_text(json.dumps(config_of(heads, base), indent=1) + "\n", encoding="utf-8")


def load(place: str | Path, model) -> MedusaHeads:
    """The heads of the course ("medusa") or in a folder, for this model, in its dtype. Only safetensors are read.

    Raises:
        CourseError: where the files are missing or damaged, or made for another width or vocabulary.
    """
    place, lm_head = Path(folder_of(place)), model.get_output_embeddings().weight
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        count, layers = int(config["medusa_num_heads"]), int(config["medusa_num_layers"])
        tensors = load_file(next(p for name in (HEADS, ALSO) if (p := place / name).exists()))
    except (OSError, ValueError, KeyError, TypeError, StopIteration, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}".strip(": ")
        message = f"There are no Medusa heads to read in {place} ({reason}): train_medusa_heads makes some."
        raise CourseError(message) from None
    sizes = config.get("vocab_size", lm_head.shape[0]), config.get("hidden_size", lm_head.shape[1])
    if sizes != tuple(lm_head.shape):
        theirs, ours = (f"{v} tokens and width {h}" for v, h in (sizes, lm_head.shape))
        raise CourseError(f"These heads were made for a model of {theirs}, this one has {ours}: train some for it.")
    try:
        heads = _untrained(lm_head, config, tensors, count, layers)
        with torch.no_grad():
            for i in range(count):
                for j, (weight, bias) in enumerate(heads.blocks()):
                    weight[i].copy_(tensors[f"{i}.{j}.linear.weight"])
                    bias[i].copy_(tensors[f"{i}.{j}.linear.bias"])
                if heads.own_lm_heads:
                    heads.lm_head[i].copy_(tensors[f"{i}.{layers}.weight"])
    except (KeyError, RuntimeError) as error:
        promise = f"config.json promises {count} heads of {layers} layers and width {lm_head.shape[1]}"
        raise CourseError(f"{promise}, and the weights don't fit that ({error}): export the heads again.") from None
    return heads.eval()


def _untrained(
    lm_head: torch.Tensor, config: dict, tensors: dict[str, torch.Tensor], count: int, layers: int
) -> MedusaHeads:
    """Heads of the kind that the files describe, with nothing of their weights yet."""
    num_ids = config.get("truncated_vocab_size", len(lm_head))
    if num_ids == len(lm_head):
        return MedusaHeads(lm_head, count, layers, own_lm_heads=not config.get("original_lm_head", False))
    token_ids = tensors["token_map"]
    if not config.get("original_lm_head", False):
        raise CourseError("Reduced heads with lm_heads of their own can't be read here: train some that share one.")
    if len(token_ids) != num_ids:
        raise CourseError(f"config.json promises {num_ids} tokens, token_map has {len(token_ids)}: export them again.")
    return ReducedMedusaHeads(lm_head, token_ids, count, layers)
