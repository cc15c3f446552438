"""Heads on disk, as vLLM and TGI read them (notebook 08)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from helpers.errors import CourseError
from helpers.models.places import HEADS, folder_of
from helpers.speculation.medusa_heads import MedusaHeads

ALSO = "medusa_heads.safetensors"  # the name in AWS's published notebook


def config_of(heads: MedusaHeads, base: str) -> dict:
    """The configuration that vLLM and TGI read; any other key would mislead one of them."""
    vocabulary, hidden = _lm_head(heads).shape[-2:]
    small = {} if heads.own_lm_heads else {"original_lm_head": True}
    return {
        "model_type": "medusa",
        "medusa_num_heads": heads.count,
        "medusa_num_layers": heads.layers,
        "base_model_name_or_path": base,
        "hidden_size": hidden,
        "vocab_size": vocabulary,
        "medusa_fc_bias": True,
    } | small


def _lm_head(heads: MedusaHeads) -> torch.Tensor:
    return heads.lm_head if heads.own_lm_heads else heads.lm_head.weight


def save(heads: MedusaHeads, place: Path, base: str, with_lm_head: bool = True) -> None:
    """Write config.json and the weights in two bytes a number; heads that share the model's lm_head bring a copy of it
    for other programs, unless `with_lm_head` is false (the course reads it from the model)."""
    place.mkdir(parents=True, exist_ok=True)
    layers, tensors = heads.layers, {}
    for i in range(heads.count):
        for j, (weight, bias) in enumerate(heads.blocks()):
            tensors[f"{i}.{j}.linear.weight"], tensors[f"{i}.{j}.linear.bias"] = weight[i], bias[i]
        if heads.own_lm_heads:
            tensors[f"{i}.{layers}.weight"] = heads.lm_head[i]
    if with_lm_head and not heads.own_lm_heads:
        tensors[f"0.{layers}.weight"] = _lm_head(heads)
    save_file({k: v.detach().to(torch.bfloat16).contiguous() for k, v in tensors.items()}, place / HEADS)
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
    heads = MedusaHeads(lm_head, count, layers, own_lm_heads=not config.get("original_lm_head", False))
    try:
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
