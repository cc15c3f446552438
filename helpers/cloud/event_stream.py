"""AWS' event stream, the encoder that botocore lacks (notebook 12).

A message is a prelude (its length, its headers' length, a checksum of both), headers, a payload, and a checksum of all
before it. Numbers are big-endian, checksums CRC-32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
STRING = 7  # the type of a header's value
PRELUDE, CHECKSUM = 12, 4  # bytes


def frame(headers: bytes, payload: bytes) -> bytes:
    """One message of encoded headers and a payload."""
    total = PRELUDE + len(headers) + len(payload) + CHECKSUM
    prelude = _number(total, 4) + _number(len(headers), 4)
    whole = prelude + _number(crc32(prelude), 4) + headers + payload
    return whole + _number(crc32(whole), 4)


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One message; header values are strings."""
    return frame(b"".join(_header(name, value) for name, value in headers.items()), payload)


def payload_part(payload: bytes) -> bytes:
    """A piece of a streamed answer."""
    headers = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
    return message(headers, payload)


def stream_error(kind: str, sentence: str) -> bytes:
    """What ends a stream that broke: "ModelStreamError" or "InternalStreamFailure"; boto3 raises EventStreamError."""
    headers = {":message-type": "exception", ":exception-type": kind, ":content-type": "application/json"}
    return message(headers, json.dumps({"Message": sentence, "ErrorCode": kind}).encode())


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return _number(len(key), 1) + key + _number(STRING, 1) + _number(len(text), 2) + text


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")
