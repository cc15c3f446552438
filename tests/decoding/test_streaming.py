"""Text that comes piece by piece is the text of all tokens at once, and nothing uncertain is shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.streaming import Detokenizer
from tests.tiny_tokenizer import tiny_tokenizer


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8, and 256 a special one."""

    def decode(self, tokens, skip_special_tokens=True):
        return bytes(t for t in tokens if t < 256).decode(errors="replace")


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20), st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_pieces_add_up_and_no_half_character_is_shown(text, sizes):
    tokens, detokenizer, pieces = list(text.encode(errors="ignore")), Detokenizer(Bytes()), []
    for size in sizes * len(tokens):
        if not tokens:
            break
        pieces.append(detokenizer.push(tokens[:size]))
        tokens = tokens[size:]
        assert text.startswith(detokenizer.text)
    pieces.append(detokenizer.finish())
    assert "".join(pieces) == detokenizer.text == text


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_real_tokenizer_s_pieces_add_up(tokenizer, data):
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=25))
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push([token]) for token in tokens] + [detokenizer.finish()]
    assert "".join(pieces) == detokenizer.text == tokenizer.decode(tokens, skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(st.text("ab`é", max_size=20), st.lists(st.text("ab`", min_size=1, max_size=3), max_size=2))
def test_the_text_ends_before_the_first_stop_string(text, stop):
    detokenizer = Detokenizer(Bytes(), stop)
    for token in text.encode():
        detokenizer.push([token])
        if detokenizer.stopped:
            break
    assert detokenizer.stopped == any(s in text for s in stop)
    if detokenizer.stopped:
        ended = min((text.index(s) + len(s), -len(s)) for s in stop if s in text)  # the first that is complete
        assert detokenizer.text == text[: min(text[: ended[0]].find(s) for s in stop if s in text[: ended[0]])]
    else:
        detokenizer.finish()
        assert detokenizer.text == text


def test_what_may_begin_a_stop_string_waits():
    detokenizer = Detokenizer(Bytes(), ["```"])
    assert detokenizer.push(b"SELECT``") == "SELECT" and detokenizer.push(b"x") == "``x"
    assert detokenizer.push(b"``") == "" and detokenizer.push([256]) == "" and detokenizer.push(b"`y") == ""
    assert detokenizer.stopped and detokenizer.text == "SELECT``x"


def test_only_the_new_end_is_decoded():
    lengths = []

    class Counting(Bytes):
        def decode(self, tokens, skip_special_tokens=True):
            lengths.append(len(tokens))
            return super().decode(tokens)

    detokenizer = Detokenizer(Counting())
    for _ in range(100):
        detokenizer.push(b"a")
    assert max(lengths) <= 2
