"""Greedy decoding that remembers nothing: what a KV cache saves is what this does again (notebooks 00 and 00b)."""

from __future__ import annotations

import torch

from helpers.decoding.forward import eos_tokens


@torch.inference_mode()
def greedy_without_cache(
    model,
    tokens: list[int],
    max_new_tokens: int = 256,
) -> list[int]:
    """Write the best token, read the whole text anew, write the next one."""
    written = []
    while len(written) < max_new_tokens:
        ids = torch.tensor([[*tokens, *written]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits  # (1, length, vocabulary)
        written.append(int(logits[0, -1].argmax()))  # after the last token read
        if written[-1] in eos_tokens(model):
            break
    return written
