"""A load test sends when it is due, counts as AIPerf does, and tells what was refused."""

import asyncio
import math
import threading

import pytest

from helpers.errors import CourseError
from helpers.serving.load_test import Load, Sample, arrivals, offer, openai_piece, tgi_piece
from tests.serving.conftest import served


def test_figures_are_those_of_the_samples():
    samples = [Sample(0.0, (1.0, 2.0, 4.0), 200), Sample(1.0, (2.0,), 200), Sample(2.0, (), 429)]
    load = Load(samples)
    assert len(load.done) == 2 and load.seconds == 4.0
    assert load.request_throughput == 0.5 and load.output_token_throughput == 1.0
    assert samples[0].inter_token_latency == 1.5 and math.isnan(samples[1].inter_token_latency)
    assert load.statistics("time_to_first_token") == {"avg": 1.0, "p50": 1.0, "p90": 1.0, "p99": 1.0}
    assert load.statistics("inter_token_latency")["avg"] == 1.5
    assert load.statistics("request_latency")["avg"] == 2.5
    with pytest.raises(CourseError, match="No request was answered"):
        Load([samples[2]]).statistics("request_latency")


def body(prompt, longest):
    return {"inputs": prompt, "parameters": {"max_new_tokens": longest}, "stream": True}


def test_requests_come_when_they_are_due(server):
    bodies = [body(f"Ship {k}?", 4) for k in range(12)]
    load = offer(server.url + "/invocations", bodies, 100.0, tgi_piece, seed=3)
    assert len(load.done) == 12 and all(sample.num_tokens == 4 for sample in load.samples)
    due = [sample.due for sample in load.samples]
    assert due == sorted(due) and due[0] == 0 and all(s.time_to_first_token > 0 for s in load.samples)
    again = offer(server.url + "/invocations", bodies, 100.0, tgi_piece, seed=3)
    assert [sample.due for sample in again.samples] == due
    assert [sample.text for sample in again.samples] == [sample.text for sample in load.samples]


def test_so_many_at_a_time_and_openai_s_chunks(server):
    bodies = [{"prompt": f"Ship {k}?", "max_tokens": 3, "temperature": 0, "stream": True} for k in range(6)]
    load = offer(server.url + "/v1/completions", bodies, 1.0, openai_piece, in_flight=2)
    assert len(load.done) == 6 and {sample.num_tokens for sample in load.samples} == {3}


def test_the_rate_is_the_one_that_is_named():
    for seed in range(5):
        due = arrivals(40, 8.0, seed)
        assert due == sorted(due) and due[0] == 0 and due[-1] == pytest.approx(39 / 8)
    assert arrivals(1, 8.0, 0) == [0.0] and arrivals(9, 1.0, 0) != arrivals(9, 1.0, 1)


def test_a_capacity_leaves_out_the_beginning_and_the_end():
    """Two at a time, a second each, but the last one, beside whom a place is empty, takes ten."""
    samples = [Sample(k // 2, (k // 2 + 0.5, k // 2 + 1.0), 200) for k in range(6)] + [Sample(3.0, (3.5, 13.0), 200)]
    assert Load(samples).capacity == pytest.approx(4 / 2)
    with pytest.raises(CourseError, match="twice as many at least"):
        Load(samples[:2]).capacity  # noqa: B018 - it raises


def test_what_is_refused_is_no_answer(model, tokenizer):
    _, context = served(model, tokenizer, max_open=1)
    with context as url:
        load = offer(url + "/invocations", [body("Ship?", 300)] * 4, 1e4, tgi_piece)
        wrong = offer(url + "/nowhere", [body("Ship?", 3)], 1.0, tgi_piece)
    with pytest.raises(CourseError, match="All requests were refused, with status 404"):
        wrong.request_throughput  # noqa: B018 - it raises
    assert len(load.done) == 1 and sorted(sample.status for sample in load.samples) == [200, 429, 429, 429]
    gone = offer(url + "/invocations", [body("Ship?", 3)], 1.0, tgi_piece)
    assert gone.samples[0].status == 0 and not gone.done


def test_also_where_an_event_loop_runs(server):
    """As in a notebook."""

    async def cell():
        return offer(server.url + "/invocations", [body("Ship?", 2)], 1.0, tgi_piece)

    assert len(asyncio.run(cell()).done) == 1


def test_a_kept_connection_that_the_server_has_closed_is_no_failure():
    """Two requests over one connection, which the server closes when the second one comes; then it answers."""

    async def answer(reader, writer):
        nonlocal connections
        connections += 1
        for _ in range(1 if connections == 1 else 9):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            event = b'data: {"token": {"text": "a"}}\n\n'
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(event)}\r\n\r\n"
            writer.write(head.encode() + event)
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    connections, loop = 0, asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port = server.sockets[0].getsockname()[1]
    load = offer(f"http://127.0.0.1:{port}/", [{}, {}, {}], 1.0, tgi_piece, in_flight=1)
    loop.call_soon_threadsafe(loop.stop)
    assert [sample.text for sample in load.done] == ["a", "a", "a"] and connections == 2
