"""The exercises of notebook 12."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def messages() -> list[tuple]:
    """Encoded headers, and a payload."""
    return [(b"", b"hello"), (b"\x01a\x07\x00\x01b", b""), (b"\x01a\x07\x00\x01b", b"x" * 300)]


def costs() -> list[tuple]:
    """Dollars an hour, tokens of answers per second, tokens of prompts for each of an answer, discount."""
    return [(63.296, 2400.0, 3.0, 0.0), (63.296, 1200.0, 3.0, 0.5), (1.515, 100.0, 0.0, 0.0), (1.515, 100.0, 1.0, 1.0)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "12.1",
        "helpers.cloud.event_stream:frame",
        messages,
        (
            "(5).to_bytes(4, 'big') is a number of 4 bytes; zlib.crc32(data) is a checksum, as a number.",
            "The total counts everything: 12 bytes of prelude, headers, payload, and 4 bytes for the last checksum.",
            "The first checksum is of the 8 bytes before it, the last one of all bytes before it.",
        ),
        case_names=("no headers", "no payload", "300 bytes"),
    ),
    Exercise(
        "12.2",
        "helpers.cloud.prices:blended_price",
        costs,
        (
            "First: how many millions of tokens are written in an hour?",
            "(1 - discount) * per_hour / millions is the price of a million tokens of answers.",
            "Each of these comes with input_to_output tokens of a prompt: divide by 1 + input_to_output.",
        ),
        case_names=("the published one", "half the speed, half the price", "no prompts", "for nothing"),
    ),
)
