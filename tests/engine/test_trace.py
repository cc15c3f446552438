"""The committed trace is what its seed gives, and becomes the same requests for any tokenizer."""

import pytest

from helpers.engine import trace
from helpers.errors import CourseError
from tests.tiny_tokenizer import tiny_tokenizer


def test_the_committed_trace_is_what_the_seed_gives(tmp_path):
    assert trace.read() == trace.plan()
    trace.write(trace.plan(5), tmp_path / "few.jsonl")
    assert trace.read(tmp_path / "few.jsonl") == trace.plan(5)


def test_it_has_short_answers_long_ones_and_a_few_long_prompts():
    planned = trace.read()
    lengths = sorted(each.num_tokens for each in planned)
    assert lengths[len(lengths) // 2] < 30 and lengths[-1] > 150
    long = [each for each in planned if len(each.examples) > 1]
    assert 4 <= len(long) <= 20 and planned[0].arrival == 0 and 0.8 < planned[-1].arrival / len(planned) < 1.25


def test_it_becomes_requests():
    tokenizer = tiny_tokenizer()
    slow, at_once = (trace.requests(tokenizer, 40, rate, longest=9) for rate in (2.0, float("inf")))
    assert [r.prompt for r in slow] == [r.prompt for r in at_once] and {r.arrival for r in at_once} == {0.0}
    assert slow[9].arrival == trace.read()[9].arrival / 2 and max(r.num_tokens for r in slow) == 9
    longest = max(range(40), key=lambda i: len(slow[i].prompt))
    assert len(trace.read()[longest].examples) > 1
    with pytest.raises(CourseError, match="The trace has 256 requests: take 1 to 256 of them, not 0"):
        trace.requests(tokenizer, 0, 1.0)
