"""Short examples share a sequence, first-fit decreasing (notebook 03).

Krell et al., "Efficient Sequence Packing without Cross-contamination", 2021. Each example has positions of its own from
0 on: where positions start again, transformers lets nothing look back. Padding then costs a few percent instead of most
of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.errors import CourseError
from helpers.training.completions import IGNORED, Encoded


def pack(examples: Sequence[Encoded], length: int) -> list[list[Encoded]]:
    """Sequences of at most `length` tokens. The longest examples are placed first, each
    in the first sequence with room for it (first-fit decreasing)."""
    too_long = sum(len(e.ids) > length for e in examples)
    if too_long:
        trouble = f"{too_long} examples are longer than {length} tokens"
        raise CourseError(f"{trouble}: give a larger --max_seq_length.")
    packed: list[list[Encoded]] = []
    free: list[int] = []
    for example in sorted(examples, key=lambda e: -len(e.ids)):
        size = len(example.ids)
        fitting = (i for i, room in enumerate(free) if room >= size)
        place = next(fitting, None)
        if place is None:
            place = len(packed)
            packed.append([])
            free.append(length)
        packed[place].append(example)
        free[place] -= size
    return packed


def collate(packed: Sequence[Sequence[Encoded]], pad: int) -> dict[str, torch.Tensor]:
    """Packed sequences as tensors (sequences, longest): input_ids, position_ids and labels. No mask: positions that
    start again separate the examples."""
    shape = len(packed), max(sum(len(e.ids) for e in sequence) for sequence in packed)
    ids, labels = torch.full(shape, pad), torch.full(shape, IGNORED)
    positions = torch.zeros(shape, dtype=torch.long)
    for s, sequence in enumerate(packed):
        start = 0
        for example in sequence:
            here = slice(start, start + len(example.ids))
            ids[s, here], positions[s, here] = torch.tensor(example.ids), torch.arange(len(example.ids))
            labels[s, here] = torch.tensor(example.labels)
            labels[s, start] = IGNORED  # nothing foretells an example's first token
            start += len(example.ids)
    return {"input_ids": ids, "position_ids": positions, "labels": labels}


@torch.no_grad()
def separates_examples(model) -> bool:
    """Whether examples that share a sequence stay blind to each other, because their positions start again: so it is in
    Llama and its relatives, and not in models that have no positions to look at (Falcon, Bloom)."""
    one, other = [5, 6, 7, 8], [9, 8, 7]
    ids = torch.tensor([one + other], device=model.device)
    positions = torch.tensor([[*range(len(one)), *range(len(other))]], device=model.device)
    together = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0, len(one) :]
    alone = dict(input_ids=ids[:, len(one) :], position_ids=positions[:, len(one) :])
    apart = model(**alone, use_cache=False).logits[0]
    return bool((together - apart).abs().max() <= 0.05 * apart.abs().max())
