"""What a user feels: time to the first token and between tokens, from recorded completions (notebook 00)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from helpers.errors import CourseError


@dataclass(frozen=True)
class Latency:
    """What a user feels, in milliseconds: time to first token (median), and between tokens; and tokens per second."""

    ttft_ms: float
    itl_mean_ms: float
    itl_p50_ms: float
    itl_p90_ms: float
    itl_p99_ms: float
    tokens_per_second: float
    n: int


def latency(completions: Sequence) -> Latency:
    """Latency over recorded Completions. A step that emits several tokens brings them at once: gaps of 0 after the
    first, as a user of a stream would see."""
    gaps = [g for c in completions for s in c.steps[1:] for g in (s.seconds, *[0.0] * (len(s.emitted) - 1))]
    if not gaps:
        raise CourseError("No answer has a second token: there is nothing between tokens to measure.")
    p50, p90, p99 = np.percentile(gaps, (50, 90, 99)) * 1e3
    first = median(c.seconds_to_first_token for c in completions) * 1e3
    tokens, seconds = sum(len(c.token_ids) for c in completions), sum(c.seconds for c in completions)
    return Latency(first, float(np.mean(gaps)) * 1e3, p50, p90, p99, tokens / seconds, len(completions))
