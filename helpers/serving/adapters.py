"""Several adapters over one base, each request with its own (notebook 11).

Chen et al., "Punica: Multi-Tenant LoRA Serving", 2023. The base reads all sequences of a step together; each one's
adapter adds its low-rank change (weights/adapters/lora.py, notebook 03b).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from torch import nn

from helpers import models
from helpers.decoding.feed import Feed
from helpers.decoding.forward import Forward
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.reading import Reading
from helpers.engine.engine import Engine
from helpers.weights.adapters import lora, peft_files


class AdaptedForward(Forward):
    """Reads each sequence with the adapter that `adapter_of` names by its id; without one by the base alone."""

    def __init__(self, model: nn.Module, names: Sequence[str]):
        super().__init__(lora.use(model, None))
        self.names, self.adapter_of = tuple(names), {}

    def __call__(self, feeds: Sequence[Feed], cache: KVCache) -> list[Reading]:
        chosen: list[Hashable] = [self.adapter_of.get(feed.sequence_id) for feed in feeds]
        lora.use(self.model, chosen)
        return super().__call__(feeds, cache)


def engine_with_adapters(model: nn.Module, folders: Mapping[str, str | Path], num_blocks: int, **options) -> Engine:
    """An engine whose requests may name one of these adapters, PEFT's folders or the course's own by their names;
    changes the model. `options` are Engine's.

    Two requests with one beginning and two adapters have different keys and values: so no prefix is shared.

    Raises:
        CourseError: an adapter is missing, damaged or made for another model.
    """
    for name, place in folders.items():
        peft_files.load_adapter(model, Path(models.folder_of(place)), name)
    engine = Engine(lora.use(model, None), num_blocks, share_prefixes=False, **options)
    engine.forward = AdaptedForward(model, list(folders))
    return engine
