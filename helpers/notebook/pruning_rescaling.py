"""The same function with outliers, pruned again: whose choice depends on how a function is written down (notebook 04).

Channels of norms get larger and the weights that read them smaller (weights.quantization.rescaling): not a bit of an
answer changes. Wanda's scores don't either, since they are products of the two; sizes of weights do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from helpers.measuring.quality import logits_of, worst_logit_error
from helpers.notebook.answers import Judged
from helpers.notebook.pruning_quality import Outcome
from helpers.notebook.results import Results
from helpers.weights.quantization.calibration import observed_linears


def outlier_columns(model: nn.Module, share: float, seed: int) -> list[int]:
    """A random `share` of the channels of the hidden states, at least one."""
    size = model.config.get_text_config().hidden_size
    drawn = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return sorted(drawn[: max(1, round(share * size))].tolist())


def show_same_function(dense: nn.Module, rescaled: nn.Module, texts: Sequence[Sequence[int]]) -> None:
    """How far the logits of the rescaled model are from the dense one's, and how small its smallest columns are."""
    error = worst_logit_error(logits_of(rescaled), logits_of(dense), texts)
    before, after = (max(_spread(linear) for linear in observed_linears(m).values()) for m in (dense, rescaled))
    print(f"logits change by {error:g} at most: it is the same function")
    print(
        f"largest column of a weight over its smallest, in the layer where that is most: {before:.0f}, then {after:.0f}"
    )


def _spread(linear: nn.Linear) -> float:
    """The norm of the weight's largest column over that of the smallest one that isn't 0."""
    norms = linear.weight.detach().float().norm(dim=0)
    return (norms.max() / norms[norms > 0].min()).item()


def same_entries(one: nn.Module, other: nn.Module) -> tuple[int, int]:
    """(entries of the two models' masks that are the same, all entries): whether a weight is 0."""
    layers, same, of = observed_linears(other), 0, 0
    for name, linear in observed_linears(one).items():
        same += int(((linear.weight != 0) == (layers[name].weight != 0)).sum())
        of += linear.weight.numel()
    return same, of


@torch.no_grad()
def compare_masks(results: Results, before: Mapping[str, nn.Module], after: Mapping[str, nn.Module]) -> None:
    """By method, how many entries of the masks rescaling left as they were; writes Wanda's as the invariant."""
    for method, model in before.items():
        same, of = same_entries(model, after[method])
        print(f"{method:10} {same:,} of {of:,} entries of the masks are as before ({same / of:.2%})")
        if method == "wanda":
            results.invariant("pruning.wanda_masks_unchanged_by_rescaling", same == of, same, of)


def show_kept(results: Results, before: Mapping[str, Outcome], after: Mapping[str, Outcome]) -> None:
    """By method, how many of the pruned model's answers rescaling left as they were, word for word; writes the shares.
    Beside them the right answers, since a wrong answer that changed is no loss."""
    shares = {}
    for method, one in before.items():
        there, here = one.judged, after[method].judged
        same, n = sum(a == b for a, b in zip(there.texts, here.texts, strict=True)), len(there.texts)
        shares[method] = same / n
        results.metric(f"pruning.answers_kept_after_rescaling.{method}", same / n, "share", n=n)
        counts = f"right before and after: {_right(there)} and {_right(here)}"
        perplexities = f"perplexity {one.perplexity:.3f} and {after[method].perplexity:.3f}"
        print(f"{method:10} {same} of {n} answers are the same, word for word; {counts}; {perplexities}")
    if shares["wanda"] == 1 > shares["magnitude"]:
        print("The function was the same, only written down otherwise. Wanda prunes the function, magnitude what is")
        print("written down.")
    elif shares["wanda"] == shares["magnitude"]:
        print("Rescaling changed as little for magnitude: take a larger factor, or more channels.")


def _right(judged: Judged) -> int:
    return sum(judged.right)
