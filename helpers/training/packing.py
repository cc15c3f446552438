"""Short examples share a row, first-fit decreasing (notebook 03; Krell et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from helpers.errors import CourseError
from helpers.training.completions import (
    IGNORED,
    Encoded,
)


def pack(examples: Sequence[Encoded], length: int) -> list[list[Encoded]]:
    """Rows of at most `length` tokens, the longest examples placed first, each where it fits (first-fit decreasing)."""
    too_long = sum(len(e.ids) > length for e in examples)
    if too_long:
        raise CourseError(f"{too_long} examples are longer than {length} tokens: give a larger --max_seq_length.")
    rows: list[list[Encoded]] = []
    room: list[int] = []
    for example in sorted(examples, key=lambda e: -len(e.ids)):
        row = next((i for i, left in enumerate(room) if left >= len(example.ids)), None)
        if row is None:
            rows.append([])
            room.append(length)
            row = len(rows) - 1
        rows[row].append(example)
        room[row] -= len(example.ids)
    return rows


def collate(rows: Sequence[Sequence[Encoded]], pad: int) -> dict[str, torch.Tensor]:
    """Packed rows as tensors (rows, longest): input_ids, position_ids and labels; no mask, since positions say it."""
    longest = max(sum(len(e.ids) for e in row) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    positions = torch.zeros((len(rows), longest), dtype=torch.long)
    for r, row in enumerate(rows):
        start = 0
        for example in row:
            here = slice(start, start + len(example.ids))
            ids[r, here], positions[r, here] = torch.tensor(example.ids), torch.arange(len(example.ids))
            labels[r, here] = torch.tensor(example.labels)
            labels[r, start] = IGNORED  # nothing foretells an example's first token
            start += len(example.ids)
    return {"input_ids": ids, "position_ids": positions, "labels": labels}
