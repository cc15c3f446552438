"""What notebook 04 has time for under each profile, and the model that it prunes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from helpers import models
from helpers.measuring.machine import describe_machine
from helpers.notebook.lesson import Lesson


@dataclass(frozen=True)
class PruningSizes:
    """Calibration prompts; the sparsities that are tried (0.5 among them); questions answered, and the longest answer;
    pairs of prompt and reference answer for perplexities and for gradients; how the fastest linears are chosen
    (packed_linear.install) where time is measured; the random shape whose steps are timed; rows of the single layer
    whose products are; arguments of the training that follows structured pruning."""

    calibration: int
    sparsities: tuple[float, ...]
    answers: int
    longest: int
    pairs: int
    turns: int
    shape: str
    layer: int
    recovery: Mapping[str, object]


PRUNING = {
    "smoke": PruningSizes(
        calibration=2,
        sparsities=(0.5,),
        answers=2,
        longest=8,
        pairs=1,
        turns=0,
        shape="llama-50m",
        layer=256,
        recovery={"max_steps": 2},
    ),
    "cpu": PruningSizes(32, (0.2, 0.3, 0.5, 0.6, 0.7), 32, 96, 10, 2, "llama-300m", 4096, {"max_steps": 24}),
    "full": PruningSizes(
        128, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), 450, 128, 60, 5, "llama-300m", 4096, {"max_steps": -1, "epochs": 1.0}
    ),
    "gpu": PruningSizes(
        128, (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), 450, 128, 60, 5, "llama-1b", 8192, {"max_steps": -1, "epochs": 1.0}
    ),
}


def fine_tuned(lesson: Lesson):
    """(model, tokenizer, dtype) of the fine-tuned model, in bfloat16 where this machine computes in it, else in
    float32. A model that isn't the course's base has no fine-tuned one beside it: then it is pruned itself."""
    native = lesson.device == "cuda" or describe_machine().bf16_is_native
    name, dtype = lesson.model_id, "bfloat16" if native else "float32"
    if name == "base":
        name = "fine-tuned"
        lesson.results.add_models(models.parts_of(name))
    else:
        print(f"{name} is pruned itself: the course has fine-tuned its own base alone.")
    model, tokenizer = models.load(name, dtype, lesson.device)
    print(f"Everything here is in {dtype}: weights, calibration, answers.")
    return model, tokenizer, dtype
