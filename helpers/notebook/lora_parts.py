"""LoRA looked at in parts (notebook 03): what a rank costs, agreement with PEFT, labels, merging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from helpers import models
from helpers.files import build_root
from helpers.models.sharing import sharing_copy
from helpers.notebook.results import Results
from helpers.notebook.sentences import indented, say
from helpers.training.completions import IGNORED
from helpers.weights.adapters import lora, peft_files


def linear_shapes(model: nn.Module) -> list[tuple[int, int]]:
    """(out, in) of each linear layer but the last, which makes the logits: no adapter is put there."""
    head = model.get_output_embeddings()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    return [(linear.out_features, linear.in_features) for linear in linears]


def show_ranks(results: Results, model: nn.Module, rank: int, ranks: Sequence[int] = (1, 4, 16, 64)) -> None:
    """The numbers that adapters of some ranks have, for this model and for one of 7 billion; writes the share that is
    trained at `rank`."""
    with torch.device("meta"):  # the shape alone, no memory
        large = models.shape_only("llama-7b", device="meta")
    print(f"{'rank':>6} {'this model: numbers':>21} {'share':>8} {'in bfloat16':>13} {'7 billion: share':>18}")
    totals = {name: sum(p.numel() for p in one.parameters()) for name, one in (("here", model), ("large", large))}
    for each in sorted({*ranks, rank}):
        here, there = (lora.lora_parameters(linear_shapes(one), each) for one in (model, large))
        sizes = f"{here:21,} {here / totals['here']:8.2%} {2 * here / 1e6:10.1f} MB"
        print(f"{each:6} {sizes} {there / totals['large']:18.2%}")
        if each == rank:
            results.metric("lora.trainable_share", here / totals["here"], "share")
    say(
        "Twice the rank, twice the numbers.",
        "The larger the matrices, the smaller the share: r (in + out) numbers beside in x out.",
    )


def with_forward(model: nn.Module, forward: Callable[[lora.LoraLinear, torch.Tensor], torch.Tensor]) -> nn.Module:
    """The model, each adapted layer of which runs by `forward(layer, x)` from now on. In place."""
    for _, layer in lora.layers(model):
        layer.forward = partial(forward, layer)
    return model


def merged_by(model: nn.Module, merged_weight: Callable[..., torch.Tensor], adapter: str = "default") -> nn.Module:
    """A plain model with the weights that `merged_weight(weight, a, b, scaling)` makes; `model` stays as it is."""
    plain = sharing_copy(model)
    for name, layer in list(lora.layers(plain)):
        parts = (p.detach() for p in (layer.linear.weight, layer.a[adapter], layer.b[adapter]))
        layer.linear.weight = nn.Parameter(merged_weight(*parts, layer.scaling[adapter]), requires_grad=False)
        plain.set_submodule(name, layer.linear)
    return plain


def as_if_trained(model: nn.Module, seed: int, size: float = 0.02) -> nn.Module:
    """Adapters as if they had learned something: B is no longer zero. In place."""
    draw = torch.Generator().manual_seed(seed)
    for _, layer in lora.layers(model):
        for b in layer.b.values():
            b.data = (size * torch.randn(b.shape, generator=draw)).to(b.device)
    return model


def compare_with_peft(
    results: Results, ours: nn.Module, base: nn.Module, texts: Sequence[torch.Tensor], base_id: str
) -> None:
    """The adapter's files are read by PEFT; on each text (token ids, (1, n)) its loss and its gradients of all A and B
    have to be ours. Writes the invariant."""
    from peft import PeftModel

    folder = build_root() / "artifacts" / "example-adapter"
    peft_files.save_adapter(ours, folder, base=base_id)
    theirs = PeftModel.from_pretrained(sharing_copy(base), folder, is_trainable=True)
    same = 0
    for tokens in texts:
        loss, gradient = loss_and_gradients(ours, tokens, (".a.", ".b."))
        peft_loss, peft_gradient = loss_and_gradients(theirs, tokens, ("lora_A", "lora_B"))
        error = (gradient - peft_gradient).abs().max()
        close = bool(error <= 1e-3 * peft_gradient.abs().max())
        same += close and abs(loss - peft_loss) <= 1e-4 * peft_loss
    results.invariant("lora.equals_peft", same == len(texts), same, len(texts))
    print(f"PEFT has the same loss and the same gradients on {same} of {len(texts)} texts.")


def loss_and_gradients(model: nn.Module, tokens: torch.Tensor, names: Sequence[str]) -> tuple[float, torch.Tensor]:
    """The loss on a text, and the gradients of all parameters whose names hold the first of `names`, then the next."""
    model.zero_grad()
    loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    trained = [p for name in names for full_name, p in model.named_parameters() if name in full_name]
    return loss.item(), torch.cat([p.grad.flatten() for p in trained])


@torch.no_grad()
def logit_differences(model: nn.Module, other: nn.Module, texts: Sequence[torch.Tensor]) -> list[tuple[float, float]]:
    """For each text the largest difference between two models' logits, and the largest logit of the second."""
    pairs = []
    for tokens in texts:
        one, two = model(input_ids=tokens).logits, other(input_ids=tokens).logits
        pairs.append(((one - two).abs().max().item(), two.abs().max().item()))
    return pairs


def show_merged(results: Results, merged: nn.Module, adapted: nn.Module, texts: Sequence[torch.Tensor]) -> None:
    """A merged model has no adapted layers left, and its logits are those with the adapter; writes the invariant."""
    pairs = logit_differences(merged, adapted, texts)
    same = sum(difference <= 1e-4 * largest for difference, largest in pairs)
    results.invariant("lora.merged_equals_adapter", same == len(texts), same, len(texts))
    worst, largest = (max(column) for column in zip(*pairs))
    say(
        f"Layers that are still adapted: {len(list(lora.layers(merged)))}.",
        f"Merged and unmerged logits, of up to {largest:.1f}, differ by {worst:.1e} at most:",
        "both sides are rounded, but elsewhere.",
    )


def show_labels(tokenizer, ids: Sequence[int], labels: Sequence[int]) -> None:
    """A training example's tokens, what is learned of it set apart."""
    read = tokenizer.decode([token for token, label in zip(ids, labels) if label == IGNORED])
    learned = [tokenizer.decode([label]) for label in labels if label != IGNORED]
    print(indented(f"read: {read!r}", "  "))
    print(indented(f"learned: {' | '.join(map(repr, learned))}", "  "))
    say(f"{len(labels) - len(learned)} tokens are read, {len(learned)} are learned, the last of them the end of text.")
