"""Whether a model's parts belong together: its weights, its config.json, its tokenizer. What doesn't fit would load all
the same, with random weights in the gaps and tokens that mean something else."""

from __future__ import annotations

import re
from collections.abc import Collection

from helpers.errors import CourseError

# Older checkpoints hold what newer code computes itself: masks, positions, RoPE's frequencies.
BUFFERS = re.compile(r"\.(masked_bias|attn\.bias|attention\.bias|inv_freq|position_ids)$")


def check_weights(
    what: str, missing: Collection[str], unexpected: Collection[str], resized: Collection[str], remedy: str
) -> None:
    """CourseError "`what` (missing ...; without a place ...; of another size ...): `remedy`." unless all fits."""
    unexpected = [name for name in unexpected if not BUFFERS.search(name)]
    faults = {"missing": missing, "without a place": unexpected, "of another size": resized}
    text = "; ".join(f"{fault} {_first_of(names)}" for fault, names in faults.items() if names)
    if text:
        raise CourseError(f"{what} ({text}): {remedy}.")


def _first_of(names: Collection[str], count: int = 3) -> str:
    """The first names in order, and how many there are besides."""
    shown = ", ".join(sorted(names)[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"


def check_vocabulary(name: str, model, tokenizer) -> None:
    """CourseError where a prompt could hold a token that the model has no embedding for.

    Added tokens count only where prompts use them: as special tokens, or in the chat template. Some models' tokenizers
    add tokens of other kinds of input past the end of the vocabulary.
    """
    size = model.get_input_embeddings().weight.shape[0]
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    template = str(tokenizer.chat_template or "")
    needed = [
        token_id
        for token, token_id in tokenizer.get_vocab().items()
        if token not in added or token_id in _special_ids(tokenizer) or token in template
    ]
    if max(needed, default=0) >= size:
        raise CourseError(
            f"The tokenizer of {name} makes token ids up to {max(needed)}, and its model knows {size} tokens: put the "
            "tokenizer beside it that it was trained with."
        )


def _special_ids(tokenizer) -> set[int | None]:
    return {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
