"""Checkpoints with integer weights, in the compressed-tensors format that vLLM and transformers load (notebook 02).

Two kinds are written, with the codes that a model has, whoever chose them (rounding, GPTQ, AWQ, SmoothQuant):

    w8a8    eight-bit weights, a scale a channel; inputs are rounded as they come, a scale a token ("int-quantized")
    w4a16   four-bit weights, a scale for each group of a row; inputs stay in 16 bits ("pack-quantized")

config.json says how the layers named "Linear" are stored, and which are not. Eight four-bit codes lie in an int32, the
first in the lowest bits. vLLM holds scales of groups in the model's dtype, bfloat16, as the course does; its CPU build
wants inputs and outputs of a four-bit layer to be multiples of 32.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from helpers.errors import CourseError
from helpers.weights.quantization.integer import IntegerLinear
from helpers.weights.quantization.packed import DynamicInt8, pack, packed

KINDS = {"w8a8": "int-quantized", "w4a16": "pack-quantized"}
PER_INT32 = 8  # four-bit codes
MULTIPLE = 32  # of inputs and outputs, in vLLM's four-bit kernel for CPUs


def save_compressed(model: nn.Module, tokenizer, folder: Path, kind: str) -> Path:
    """Write a model with IntegerLinear layers as a checkpoint of `kind`, everything else in bfloat16; returns the
    folder, which appears when it is whole.

    Raises:
        CourseError: no such kind; the layers' codes are none of this kind; no layer is quantized, or the output layer
            is.
    """
    from safetensors.torch import save_file

    layers = _integer_layers(model, kind)
    folder = Path(folder)
    draft = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    config = copy.deepcopy(model.config)
    config.dtype, config.architectures = torch.bfloat16, [type(model).__name__]
    config.quantization_config = quantization_config(layers, _dense_layers(model), kind)
    for part in (config, model.generation_config, tokenizer):
        part.save_pretrained(draft)
    save_file(checkpoint_tensors(model, layers, kind), draft / "model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(folder, ignore_errors=True)
    return draft.rename(folder)


def quantization_config(layers: dict[str, IntegerLinear], dense: list[str], kind: str) -> dict:
    """What config.json says of these layers, and of the linear layers that stay dense."""
    weights = dict(num_bits=int(kind[1]), type="int", symmetric=True, dynamic=False)
    if kind == "w8a8":
        weights |= dict(strategy="channel")
        inputs = dict(num_bits=8, type="int", symmetric=True, dynamic=True, strategy="token")
    else:
        first = next(iter(layers.values()))
        weights |= dict(strategy="group", group_size=first.in_features // first.scales.shape[1])
        inputs = None
    group = dict(targets=["Linear"], weights=weights, input_activations=inputs, output_activations=None)
    return dict(
        quant_method="compressed-tensors",
        format=KINDS[kind],
        quantization_status="compressed",
        config_groups={"group_0": group},
        ignore=dense,
    )


def checkpoint_tensors(model: nn.Module, layers: dict[str, IntegerLinear], kind: str) -> dict[str, Tensor]:
    """The file's tensors by name: codes and scales of the quantized layers, the rest in bfloat16."""
    head = model.get_output_embeddings()
    tied = [n for n, m in model.named_modules() if m is head and m.weight is model.get_input_embeddings().weight]
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[0] not in (*layers, *tied)
    }
    for name, layer in layers.items():
        of_layer = int8_tensors(layer) if kind == "w8a8" else int4_tensors(layer)
        tensors |= {f"{name}.{part}": tensor for part, tensor in of_layer.items()}
        if layer.bias is not None:
            tensors[f"{name}.bias"] = layer.bias.to(torch.bfloat16)
    return {n: tensor.detach().clone(memory_format=torch.contiguous_format) for n, tensor in tensors.items()}


def int8_tensors(layer: IntegerLinear) -> dict[str, Tensor]:
    """Codes int8 (out, in) and scales float32 (out, 1), as vLLM holds them (transformers rounds them to its dtype)."""
    return {"weight": layer.integer_codes(), "weight_scale": layer.scales.float()}


def int4_tensors(layer: IntegerLinear) -> dict[str, Tensor]:
    """Codes int32 (out, in / 8), scales bfloat16 (out, groups), and the shape of the weight."""
    shape = torch.tensor([layer.out_features, layer.in_features])
    return {
        "weight_packed": packed_to_int32(layer.integer_codes()),
        "weight_scale": layer.scales.to(torch.bfloat16),
        "weight_shape": shape,
    }


def packed_to_int32(codes: Tensor) -> Tensor:
    """Signed four-bit codes (out, in) as int32 (out, in / 8): codes plus eight, the
    first of eight in the lowest bits."""
    nibbles = (codes.int() + 8).unflatten(1, (-1, PER_INT32))
    return (nibbles << 4 * torch.arange(PER_INT32)).sum(-1).to(torch.int32)


def as_served(model: nn.Module, kind: str) -> nn.Module:
    """The model as an engine computes it from the checkpoint, in place: its integer layers multiply in bfloat16, and
    with "w8a8" by codes of their inputs. The model should be in bfloat16."""
    _integer_layers(model, kind)
    return pack(model, DynamicInt8 if kind == "w8a8" else packed)


def _integer_layers(model: nn.Module, kind: str) -> dict[str, IntegerLinear]:
    """The model's quantized layers by name; CourseError where the kind can't hold them."""
    if kind not in KINDS:
        raise CourseError(f"There is no kind {kind!r} of checkpoint here; there are {', '.join(KINDS)}.")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, IntegerLinear)}
    if not layers:
        raise CourseError("The model has no integer layers to write: quantize it first, with integer.install say.")
    if isinstance(model.get_output_embeddings(), IntegerLinear):
        raise CourseError("The output layer stays in 16 bits in these checkpoints: leave it out when you quantize.")
    bits = int(kind[1])
    group = 'group="channel"' if bits == 8 else "a group of 32 or 64"
    sizes = {layer.in_features // layer.scales.shape[1] for layer in layers.values()}
    for name, layer in layers.items():
        fits = layer.scales.shape[1] == 1 if bits == 8 else len(sizes) == 1
        if layer.bits != bits or not layer.symmetric or not fits:
            raise CourseError(f"{name} has other codes than {kind} holds: quantize in {bits} bits, symmetric, {group}.")
        if bits == 4 and (layer.in_features % MULTIPLE or layer.out_features % MULTIPLE):
            raise CourseError(
                f"{name} has {layer.in_features} inputs and {layer.out_features} outputs; vLLM's CPU kernel for {kind} "
                f"takes multiples of {MULTIPLE}: leave this layer dense, or take w8a8."
            )
    return layers


def _dense_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that stay as they are, the output layer among them."""
    head = model.get_output_embeddings()
    return [n for n, m in model.named_modules() if m is head or type(m) is nn.Linear]
