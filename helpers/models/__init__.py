"""Models by name, folder or Hub id (`load`), and random weights of a named architecture (`shape_only`)."""

from helpers.models.loading import check_is_model, config_at, from_checkpoint, load, tokenizer_of
from helpers.models.places import card, check_made_for, folder_of, hash_of, parts_of, shipped
from helpers.models.shapes import config_of, dtype_of, shape_only

__all__ = [
    "card",
    "check_is_model",
    "check_made_for",
    "config_at",
    "config_of",
    "dtype_of",
    "folder_of",
    "from_checkpoint",
    "hash_of",
    "load",
    "parts_of",
    "shape_only",
    "shipped",
    "tokenizer_of",
]
