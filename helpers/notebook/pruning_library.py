"""PyTorch's own pruning beside the course's (notebook 04): which weights go, entry by entry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helpers.notebook.results import Results
from helpers.weights.precision.ranges import recording
from helpers.weights.pruning.magnitude import magnitude_mask
from helpers.weights.pruning.wanda import wanda_two_of_four
from helpers.weights.quantization.calibration import observed_linears


def layer_and_input(model: nn.Module, prompt: Sequence[int]) -> tuple[str, Tensor, Tensor]:
    """(name, weight (out, in), input (tokens, in)) of a linear layer in the middle of the model, in float32 on the CPU,
    for a prompt."""
    name = list(observed_linears(model))[len(observed_linears(model)) // 2]
    with torch.no_grad(), recording(model) as seen:
        model.base_model(input_ids=torch.tensor([list(prompt)], device=model.device), use_cache=False)
    x = seen.activations[f"{name}, in"].float().cpu()
    return name, model.get_submodule(name).weight.detach().float().cpu(), x.reshape(-1, x.shape[-1])


def compare_magnitude(results: Results, weight: Tensor, sparsity: float = 0.5) -> None:
    """torch.nn.utils.prune removes the same weights; where several are equally small, either choice is right."""
    from torch.nn.utils import prune

    ours, layer = magnitude_mask(weight, sparsity), _linear(weight)
    prune.l1_unstructured(layer, "weight", amount=sparsity)
    theirs, sizes = layer.weight_mask.bool(), weight.abs()
    tied = sizes == sizes[~ours].max()
    same, of = int(((ours == theirs) | tied).sum()), weight.numel()
    counts = int(ours.sum()) == int(theirs.sum())
    results.invariant("pruning.magnitude_equals_torch", counts and same == of, same, of)
    print(f"torch.nn.utils.prune: {same:,} of {of:,} entries of the mask are ours ({int(tied.sum())} weights are tied)")


def compare_wanda(results: Results, weight: Tensor, x: Tensor) -> None:
    """torchao's WandaSparsifier for 2:4 on one layer: its masks are ours for *its* score, which has the square of the
    norm. Writes that as the invariant, and prints how many entries the paper's score has otherwise."""
    squares = x.square().sum(0)
    theirs = torchao_two_of_four(weight, x)
    own, paper = wanda_two_of_four(weight, squares.square()), wanda_two_of_four(weight, squares)
    same, of = int(((own == theirs) | (weight == 0)).sum()), weight.numel()  # which of two zeros goes is the same
    results.invariant("pruning.two_of_four_equals_torchao", same == of, same, of)
    print(f"torchao: {same:,} of {of:,} entries are ours for |W| times the norm's square, which is what it takes;")
    print(f"with the norm itself, as in the paper, {int((paper != theirs).sum()):,} entries differ")


def torchao_two_of_four(weight: Tensor, x: Tensor) -> Tensor:
    """The mask of torchao's WandaSparsifier, True where a weight (out, in) stays, for inputs (tokens, in)."""
    with warnings.catch_warnings(action="ignore"):  # of its block size, and of torch.ao's end
        from torchao.sparsity import WandaSparsifier

        model = nn.Sequential(_linear(weight))
        sparsifier = WandaSparsifier(semi_structured_block_size=4)
        sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
        model(x[None])
        sparsifier.step()
    return model[0].parametrizations.weight[0].mask.bool()


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer
