"""Models by name, folder or Hub id (`load`), and random weights of a named architecture (`shape_only`)."""

from helpers.models.loading import (
    card,
    check_made_for,
    config_at,
    folder_of,
    hash_of,
    load,
    parts_of,
    shipped,
    tokenizer_of,
)
from helpers.models.shapes import config_of, dtype_of, shape_only

__all__ = [
    "card",
    "check_made_for",
    "config_at",
    "config_of",
    "dtype_of",
    "folder_of",
    "hash_of",
    "load",
    "parts_of",
    "shape_only",
    "shipped",
    "tokenizer_of",
]
