"""Support package of the course on fast LLM inference."""

import logging

for _logger in ("torchao", "torch.utils._pytree", "bitsandbytes"):  # they tell of what the course does not use
    logging.getLogger(_logger).setLevel(logging.ERROR)


def start(name: str, profile: str = "cpu", model_id: str = "base", seed: int = 0):
    """Set up a notebook (lesson.py); imported only when called, since torch takes seconds."""
    from helpers.notebook.lesson import start as begin

    return begin(name, profile, model_id, seed)
