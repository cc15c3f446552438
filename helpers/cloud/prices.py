"""What a million tokens cost, in two ways (notebook 12).

The published one takes a throughput that is made of the time between tokens; it leaves prefill and queues out. The
other takes the tokens that the clock saw. Prices an hour are dated (data/prices.json), and anybody may put in his own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from helpers import files
from helpers.errors import CourseError

MILLION, HOUR = 1e6, 3600.0


@dataclass(frozen=True)
class Prices:
    """Dollars an hour by instance type, and the day on which they were read."""

    date: str
    per_hour: dict[str, float]

    @classmethod
    def read(cls, path: Path | None = None) -> Prices:
        """Of a file, or of the course's."""
        place = path or files.ROOT / "data" / "prices.json"
        try:
            read = json.loads(place.read_text(encoding="utf-8"))
            return cls(str(read["date"]), {str(name): float(price) for name, price in read["per_hour"].items()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as reason:
            raise CourseError(f'{place} holds no prices ({reason}): write {{"date": ..., "per_hour": ...}}.') from None

    def of(self, instance_type: str) -> float:
        """Dollars an hour; CourseError for a type that isn't in the list."""
        if instance_type not in self.per_hour:
            known = ", ".join(sorted(self.per_hour))
            raise CourseError(f"There is no price of {instance_type} from {self.date}; there are {known}: add yours.")
        return self.per_hour[instance_type]


def throughput_of(concurrency: int, inter_token_latency: float) -> float:
    """Tokens per second as the toolkit's charts have it: each of the users gets one in every p50 of the time between
    tokens (seconds)."""
    if concurrency < 1 or inter_token_latency <= 0:
        raise CourseError("A throughput needs a user and a time between tokens above 0.")
    return concurrency / inter_token_latency


def blended_price(
    per_hour: float,
    tokens_per_second: float,
    input_to_output: float = 3.0,
    discount: float = 0.0,
) -> float:
    """Dollars for a million tokens of prompts and answers together.

    Args:
        tokens_per_second: of answers.
        input_to_output: tokens of prompts for each of an answer, which cost nothing more here.
        discount: the share that is taken off, 0 to 1.
    """
    if tokens_per_second <= 0 or not 0 <= discount <= 1 or input_to_output < 0 or per_hour < 0:
        raise CourseError("A price needs tokens a second above 0, a discount from 0 to 1, and a ratio of at least 0.")
    millions_an_hour = tokens_per_second * HOUR / MILLION
    return (1 - discount) * per_hour / millions_an_hour / (1 + input_to_output)
