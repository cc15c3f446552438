"""An adapter that PEFT or the course wrote, merged into the weights of its base."""

from __future__ import annotations

import warnings
from pathlib import Path

from safetensors import safe_open

from helpers.models.fit import check_weights

ADAPTER = "adapter_model.safetensors"

PREFIX = "base_model.model."  # of PEFT's names


def merged(base, folder: Path, what: str, remedy: str):
    """The model `base` with the adapter in `folder` added to its weights, in the weights' dtype.

    PEFT only warns of tensors that don't fit, and leaves them out; here they are a CourseError, made of `what` and
    `remedy` as `check_weights` does it.
    """
    from peft import PeftModel, get_peft_model_state_dict

    own = {PREFIX + name: tensor.shape for name, tensor in base.state_dict().items()}
    with warnings.catch_warnings(action="ignore"):
        model = PeftModel.from_pretrained(base, folder, ignore_mismatched_sizes=True)
        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    adapter = {name: tensor.shape for name, tensor in tensors.items()}
    places = own | adapter  # a file may hold the base's embeddings, too
    with safe_open(folder / ADAPTER, "pt") as file:
        saved = {name: file.get_slice(name).get_shape() for name in file.keys()}
    resized = [name for name in saved.keys() & places.keys() if list(saved[name]) != list(places[name])]
    check_weights(what, adapter.keys() - saved.keys(), saved.keys() - places.keys(), resized, remedy)
    return model.merge_and_unload()
