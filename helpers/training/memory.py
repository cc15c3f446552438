"""What a way of fine-tuning keeps in memory, in bytes: weights, gradients, the optimizer's states (notebook 03).

Activations come on top: they depend on the batch and not on the method, and checkpointing trades them for time.
"""

from __future__ import annotations

from helpers.errors import CourseError

# Bytes of a number in the linear layers, and in embeddings and norms, while they are frozen: bfloat16; NF4 with doubly
# quantized scales (4 bits, 8 for each block of 64, 32 for 256 of those), beside float32 as PEFT prepares it.
FROZEN = {"lora": (2.0, 2.0), "qlora": ((4 + 8 / 64 + 32 / 64 / 256) / 8, 4.0)}
TRAINED = {"weights": 4.0, "gradients": 4.0, "optimizer": 8.0}  # float32; Adam keeps two averages of each number


def training_bytes(method: str, linear: int, other: int, adapter: int = 0) -> dict[str, float]:
    """Bytes by kind for a model of `linear` numbers in its linear layers and `other` ones, with an adapter's numbers.

    `method` is "full", "lora" or "qlora".
    """
    if method == "full":
        return {kind: size * (linear + other) for kind, size in TRAINED.items()}
    if method not in FROZEN:
        raise CourseError(f"There is no method {method!r}; there are full, lora and qlora.")
    of_linear, of_other = FROZEN[method]
    sizes = {kind: size * adapter for kind, size in TRAINED.items()}
    sizes["weights"] += of_linear * linear + of_other * other
    return sizes
