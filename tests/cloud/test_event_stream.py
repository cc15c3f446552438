"""boto3's own parser accepts what the encoder makes, however it is cut."""

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from helpers.cloud.event_stream import payload_part, stream_error


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(1, 40))
def test_in_any_chunks(payloads, size):
    stream, buffer, found = b"".join(map(payload_part, payloads)), EventStreamBuffer(), []
    for start in range(0, len(stream), size):
        buffer.add_data(stream[start : start + size])
        found += [event.payload for event in buffer]
    assert found == payloads


def test_an_error_has_its_kind():
    buffer = EventStreamBuffer()
    buffer.add_data(stream_error("ModelStreamError", "it broke"))
    [event] = buffer
    assert event.headers[":exception-type"] == "ModelStreamError" and b"it broke" in event.payload


def test_a_wrong_checksum_is_seen():
    damaged = bytearray(payload_part(b"hello"))
    damaged[-6] ^= 1
    buffer = EventStreamBuffer()
    buffer.add_data(bytes(damaged))
    with pytest.raises(Exception, match=r"[Cc]hecksum"):
        list(buffer)
