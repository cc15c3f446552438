"""A draft made of its target: the target's first layers, a small adapter on them, and a final norm of the draft's own.

Embedding and lm_head are the target's, so both speak the same tokens. A model that drafts with its own first layers is
known as self-speculation (Elhoushi et al., "LayerSkip", 2024). Its folder holds what PEFT writes of an adapter, the
norm included, and draft.json: the number of layers, the hash of the target, and the tokens that it learned to guess.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from helpers.errors import CourseError
from helpers.files import write_whole
from helpers.models.fewer_tokens import with_tokens
from helpers.models.merging import ADAPTER
from helpers.models.places import base_of, folder_of, hash_of, trouble

DRAFT = "draft.json"

NORM = "model.norm"  # the final one's name in every model that is built like Llama


def keep(model, num_layers: int):
    """The model cut down, in place, to its first `num_layers` layers; embedding, final norm and lm_head stay.

    Raises:
        CourseError: it has fewer layers, or it isn't built like Llama.
    """
    layers = getattr(model.base_model, "layers", None)
    if layers is None or not hasattr(model.base_model, "norm"):
        raise CourseError("A draft of first layers needs a model built like Llama: distil it from another target.")
    shorten(model.config, num_layers)
    del layers[num_layers:]
    return model


def shorten(config, num_layers: int) -> None:
    """Make a configuration, in place, that of its model's first `num_layers` layers."""
    if not 1 <= num_layers <= config.num_hidden_layers:
        raise CourseError(
            f"The target has {config.num_hidden_layers} layers, a draft of it can't have {num_layers}: give fewer, at "
            "least 1."
        )
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]


def begin(target, num_layers: int, rank: int, alpha: float):
    """A PEFT model that says what the target's first layers say, in place of the target: the adapter (rank, alpha) of
    all its linear layers changes nothing yet. Adapter and norm, in float32, are to be trained; the rest is frozen."""
    from peft import LoraConfig, get_peft_model

    draft = keep(target, num_layers)
    # By their last names, which every layer has: PEFT's own "all-linear" would let a layer too many pass unadapted.
    linears = {n.split(".")[-1] for n, m in draft.base_model.layers.named_modules() if isinstance(m, nn.Linear)}
    shape = dict(r=rank, lora_alpha=alpha, target_modules=sorted(linears), modules_to_save=[NORM])
    draft = get_peft_model(draft, LoraConfig(task_type="CAUSAL_LM", **shape))
    for p in draft.parameters():
        p.data = p.data.float() if p.requires_grad else p.data
    return draft


def save(draft, folder: Path, target: str, target_hash: str, token_ids: torch.Tensor | None = None) -> None:
    """Write what `begin` made and training changed: adapter and norm, in bfloat16, for the target of this name and
    hash; and the tokens (num_ids,) that it learned to guess (None: all)."""
    from peft import get_peft_model_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(draft, save_embedding_layers=False)
    small = {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in tensors.items()}
    save_file(small, folder / ADAPTER, metadata={"format": "pt"})
    (folder / ADAPTER).chmod(0o644)
    config = draft.peft_config["default"]
    config.base_model_name_or_path = target  # not the path that it has on this machine
    config.save_pretrained(folder)
    made_for = {"num_layers": draft.config.num_hidden_layers, "target_hash": target_hash}
    made_for["token_ids"] = None if token_ids is None else token_ids.tolist()
    write_whole(folder / DRAFT, json.dumps(made_for) + "\n")


def for_guessing(draft, name: str | Path):
    """The draft that `models.load(name)` gave, with the lm_head of those tokens alone that it learned to guess."""
    token_ids = json.loads((Path(folder_of(name)) / DRAFT).read_text(encoding="utf-8")).get("token_ids")
    return draft if token_ids is None else with_tokens(draft, torch.tensor(token_ids))


def num_layers_of(name: str | Path, place: str) -> int | None:
    """How many of its target's layers the draft in the folder `place` has; None if the folder holds no draft.

    Raises:
        CourseError: draft.json is damaged, or the target is not the model any more that the draft was made for.
    """
    file = Path(place) / DRAFT
    if not file.exists():
        return None
    try:
        made_for = json.loads(file.read_text(encoding="utf-8"))
        num_layers, target_hash = int(made_for["num_layers"]), made_for["target_hash"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CourseError(trouble(name, place, error)) from None
    target = base_of(name, place)
    if target_hash != hash_of(target):
        command = f"`python -m helpers.training.distil_draft --model_id {target}`"
        raise CourseError(f"{name} was made for another model than {target} is now: {command} makes one for it.")
    return num_layers
