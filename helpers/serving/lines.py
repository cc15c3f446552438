"""Whole lines from pieces of a stream, however it is cut (notebook 11)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator


def cut(rest: bytes, piece: bytes) -> tuple[list[bytes], bytes]:
    """The lines that are whole when `piece` has come after the `rest` of before, and what
    is left over. Blank lines are left out, and spaces around a line."""
    *whole, rest = (rest + piece).split(b"\n")
    return [line.strip() for line in whole if line.strip()], rest


def lines_of(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream, as soon as each is whole; the last one may have no end."""
    rest = b""
    for piece in pieces:
        whole, rest = cut(rest, piece)
        yield from whole
    if rest.strip():
        yield rest.strip()


def event_of(line: bytes) -> dict | None:
    """The JSON of a line, or of a server-sent event's data; None for what holds none: a comment, another field of an
    event, a blank line, [DONE]."""
    data = line.strip().removeprefix(b"data:").strip()
    empty = not data or data == b"[DONE]" or data.startswith((b":", b"event:", b"id:", b"retry:"))
    return None if empty else json.loads(data)


def events_of(pieces: Iterable[bytes]) -> Iterator[dict]:
    """The events of a stream."""
    for line in lines_of(pieces):
        if (event := event_of(line)) is not None:
            yield event
