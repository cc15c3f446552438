"""From token ids to text while they come."""

from __future__ import annotations

from collections.abc import Sequence


def _uncertain(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end might still change: half a character, or the beginning of a stop string."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    begun = max((n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
    return max(broken, begun)
