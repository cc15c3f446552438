"""What of a model depends on the length of the text: windows, and position encodings that change as it grows."""

from __future__ import annotations

from dataclasses import dataclass

# A sliding window is what all layers share and our masks know; these are some layers', or chunks.
OTHER_WINDOWS = ("attention_chunk_size", "window_size", "attention_window_size", "local_attention")


@dataclass(frozen=True)
class Limits:
    """What depends on the length: a sliding `window` (all layers'), the length up to which layers of different kinds
    see the same (`mixed_up_to`), and where the rotary position encoding changes: `dynamic_after` (dynamic NTK: with
    every token), `switch_after` (longrope: once)."""

    window: int | None = None
    mixed_up_to: int | None = None
    dynamic_after: int | None = None
    switch_after: int | None = None

    @classmethod
    def of(cls, config) -> Limits:
        """The limits of a transformers text configuration."""
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) if kinds != {"full_attention"} else None
        sizes = [getattr(config, name, None) for name in OTHER_WINDOWS]
        if len(kinds) > 1:
            sizes, window = [*sizes, window], None
        mixed = min((size for size in sizes if size), default=None)
        dynamic = switch = None
        for rope in _ropes(config):
            longest = getattr(config, "max_position_embeddings", None)
            original = rope.get("original_max_position_embeddings") or longest
            if "dynamic" in rope["rope_type"]:
                dynamic = min(original, longest)
            elif rope["rope_type"] == "longrope":
                switch = getattr(config, "original_max_position_embeddings", None) or original
        return cls(window, mixed, dynamic, switch)


def _ropes(config) -> list[dict]:
    """The rotary settings of a configuration, which may have them for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    settings = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    return [each for each in settings if isinstance(each.get("rope_type"), str)]
