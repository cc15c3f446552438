"""Lines and events come out whole, however a stream is cut."""

import json

from hypothesis import given
from hypothesis import strategies as st

from helpers.serving.lines import events_of, lines_of


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"))), st.data())
def test_any_cut_gives_the_same_lines(texts, data):
    whole = "\n".join(texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(lines_of(pieces)) == [line for one in whole.split(b"\n") if (line := one.strip())]


def test_blank_lines_a_missing_end_and_comments():
    events = [{"token": {"text": "é\n"}}, {"b": 1}]
    lines = b"\n\n".join(json.dumps(event).encode() for event in events)
    assert list(events_of([lines[:9], lines[9:]])) == events
    stream = b": hello\n\ndata: " + json.dumps(events[0]).encode() + b"\n\ndata: [DONE]\n\n"
    assert list(events_of([stream])) == events[:1]
