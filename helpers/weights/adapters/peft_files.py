"""An adapter as PEFT writes and reads it (notebook 03)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers.errors import CourseError
from helpers.weights.adapters.lora import LoraLinear, install, layers

PREFIX = "base_model.model."  # of PEFT's names
BEYOND = ("alpha_pattern", "rank_pattern", "use_dora", "modules_to_save", "layers_to_transform")  # PEFT knows them


def save_adapter(model: nn.Module, folder: Path, adapter: str = "default", base: str = "base") -> None:
    """Write the adapter as PEFT does: adapter_model.safetensors and adapter_config.json, which names its base."""
    adapted = [(name, layer) for name, layer in layers(model) if adapter in layer.a]
    if not adapted:
        raise CourseError(f"The model has no adapter {adapter!r} to save.")
    tensors = {
        f"{PREFIX}{n}.lora_{k}.weight": p[adapter] for n, layer in adapted for k, p in zip("AB", (layer.a, layer.b))
    }
    rank = adapted[0][1].a[adapter].shape[0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": adapted[0][1].scaling[adapter] * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-1] for name, _ in adapted}),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: t.detach().contiguous().cpu() for name, t in tensors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def load_adapter(model: nn.Module, folder: Path, adapter: str = "default") -> nn.Module:
    """Add an adapter that `save_adapter` or PEFT wrote, and make it the active one."""
    folder = Path(folder)
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError) as error:
        raise CourseError(f"There is no whole adapter in {folder} ({type(error).__name__}): make it anew.") from None
    features = [name for name in BEYOND if config.get(name)]
    if config.get("bias", "none") != "none" or isinstance(config["target_modules"], str) or features:
        beyond = ", ".join(features) or "biases, or targets by a pattern"
        raise CourseError(f"The adapter in {folder} is more than plain LoRA ({beyond}): load it with PEFT.")
    alpha = config["lora_alpha"] * (math.sqrt(config["r"]) if config.get("use_rslora") else 1)
    shapes = {
        f"{PREFIX}{name}.lora_{key}.weight": shape
        for name, module in model.named_modules()
        if name.split(".")[-1] in config["target_modules"]
        for key, shape in (("A", (config["r"], module.in_features)), ("B", (module.out_features, config["r"])))
    }
    if {n: tuple(t.shape) for n, t in tensors.items()} != shapes:
        raise CourseError(f"The adapter in {folder} is for another model: its layers or their sizes differ.")
    install(model, adapter, rank=config["r"], alpha=alpha, targets=tuple(config["target_modules"]))
    wanted = _peft_names(layers(model), adapter)
    for name, parameter in wanted.items():
        parameter.copy_(tensors[name])
    return model


def _peft_names(adapted: Iterable[tuple[str, LoraLinear]], adapter: str) -> dict[str, nn.Parameter]:
    """The adapter's matrices by the names that PEFT gives them."""
    return {
        f"{PREFIX}{name}.lora_{key}.weight": matrices[adapter]
        for name, layer in adapted
        if adapter in layer.a
        for key, matrices in zip("AB", (layer.a, layer.b))
    }
