"""The server over real sockets: the right answers in every schema, and a sentence for whatever is wrong."""

import copy
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import torch

from helpers.decoding.generate import plain_greedy
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.files import ROOT
from helpers.serving import client
from helpers.serving.load_test import tgi_piece
from helpers.serving.run import listening_socket
from tests.serving.conftest import served

PROMPT = "How many ships are there?"


def alone(model, tokenizer, prompt=PROMPT, longest=12):
    return plain_greedy(model, tokenizer(prompt, add_special_tokens=False)["input_ids"], longest)


def post(server, path, body, **options):
    return httpx.post(server.url + path, json=body, timeout=60, **options)


def test_the_answer_is_the_model_s_in_every_schema(server, model, tokenizer):
    ids = alone(model, tokenizer)
    text = tokenizer.decode(ids, skip_special_tokens=True)
    parameters = {"max_new_tokens": 12, "details": True}
    told = post(server, "/generate", {"inputs": PROMPT, "parameters": parameters}).json()
    assert told["generated_text"] == text and [t["id"] for t in told["details"]["tokens"]] == ids
    assert told["details"]["finish_reason"] == "length" and told["details"]["generated_tokens"] == 12
    assert client.ask(server.url, PROMPT, max_new_tokens=12).text == text
    both = post(server, "/invocations", {"inputs": [PROMPT, "Who?"], "parameters": {"max_new_tokens": 12}}).json()
    assert both[0] == {"generated_text": text} and len(both) == 2
    full = post(server, "/generate", {"inputs": PROMPT, "parameters": {"max_new_tokens": 12, "return_full_text": True}})
    assert full.json()["generated_text"] == PROMPT + text


def test_streams_tell_the_same_tokens_and_end_with_the_details(server, model, tokenizer):
    whole = client.ask(server.url, PROMPT, max_new_tokens=12)
    for path in ("/invocations", "/generate_stream"):
        seen = [
            (told.text, len(told.pieces)) for told in client.stream(server.url, PROMPT, path=path, max_new_tokens=12)
        ]
        *_, told = client.stream(server.url, PROMPT, path=path, max_new_tokens=12)
        assert [count for _, count in seen] == list(range(1, 13))
        assert told.text == whole.text and told.log_probs == pytest.approx(whole.log_probs, abs=1e-5)
        assert told.cut_off and told.finish_reason == "length"


def test_the_old_container_s_names(old_server, server):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 3, "details": True}}
    old, new = (post(each, "/invocations", body).json()["details"] for each in (old_server, server))
    assert "log_prob" in old["tokens"][0] and "logprob" in new["tokens"][0]
    assert client.ask(old_server.url, PROMPT, max_new_tokens=3).log_probs == pytest.approx(
        client.ask(server.url, PROMPT, max_new_tokens=3).log_probs, abs=1e-5
    )


def test_the_official_client_of_openai_works(server, model, tokenizer):
    openai = pytest.importorskip("openai").OpenAI(base_url=server.url + "/v1", api_key="none")
    text = tokenizer.decode(alone(model, tokenizer), skip_special_tokens=True)
    told = openai.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, temperature=0, logprobs=1)
    assert told.choices[0].text == text and told.choices[0].finish_reason == "length"
    assert told.usage.completion_tokens == 12 and len(told.choices[0].logprobs.token_logprobs) == 12
    pieces = openai.completions.create(model="tiny", prompt=PROMPT, max_tokens=12, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == text
    messages = [{"role": "user", "content": PROMPT}]
    chat = openai.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0)
    streamed = openai.chat.completions.create(model="tiny", messages=messages, max_tokens=5, temperature=0, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in streamed) == chat.choices[0].message.content
    several = openai.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, temperature=1.5, n=3, seed=7)
    again = openai.completions.create(model="tiny", prompt=PROMPT, max_tokens=8, temperature=1.5, n=3, seed=7)
    texts = [choice.text for choice in several.choices]
    assert len(set(texts)) > 1 and texts == [choice.text for choice in again.choices]
    assert openai.models.list().data[0].id == "tiny"


def test_chained_requests_are_one_long_one(model, tokenizer):
    digits = copy.deepcopy(model)  # it writes digits alone, each of which is a token, whatever stands beside it
    allowed = [tokenizer.convert_tokens_to_ids(str(k)) for k in range(10)]
    bias = torch.full((len(tokenizer),), -1e9)
    bias[allowed] = 0
    digits.lm_head.bias = torch.nn.Parameter(bias)
    _, context = served(digits, tokenizer)
    with context as url:
        one = client.ask(url, PROMPT, max_new_tokens=30)
        parts = client.chained(url, PROMPT, each=7, longest=30)
    assert len(one.text) == 30 and len(set(one.text)) > 1
    assert [len(part.pieces) for part in parts] == [7, 7, 7, 7, 2] and all(part.cut_off for part in parts)
    assert "".join(part.text for part in parts) == one.text


def test_a_stop_string_ends_the_answer_and_is_cut_off(server):
    whole = client.ask(server.url, PROMPT, max_new_tokens=12)
    word = whole.text[4:7]
    told = client.ask(server.url, PROMPT, max_new_tokens=12, stop=[word])
    assert told.finish_reason == "stop" and told.text == whole.text[: whole.text.find(word)] and not told.cut_off


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/generate", "{", 400, "The body is no JSON"),
        ("/generate", {"inputs": 5}, 422, "inputs: "),
        ("/generate", {"inputs": ""}, 422, "inputs: "),
        ("/generate", {}, 422, "inputs: field required"),
        ("/generate", {"inputs": "a", "parameter": {}}, 422, "There is no field 'parameter' here: correct its name"),
        ("/generate", {"inputs": "a", "parameters": {"best_of": 2}}, 422, "no field 'parameters.best_of' here"),
        ("/generate", {"inputs": "a", "parameters": {"max_new_tokens": 0}}, 422, "parameters.max_new_tokens: "),
        ("/generate", {"inputs": "a", "parameters": {"max_new_tokens": "many"}}, 422, "parameters.max_new_tokens: "),
        ("/generate", {"inputs": "ship " * 9000}, 400, "together this server takes 4096"),
        ("/generate", {"inputs": "a" * (1 << 20)}, 413, "1,048,576 bytes at most"),
        ("/v1/completions", {"prompt": "a", "stream": True, "n": 2}, 400, "A stream has one answer here"),
        ("/v1/chat/completions", {"messages": []}, 422, "messages: "),
        ("/invocations", {"inputs": ["a", "b"], "stream": True}, 400, "A stream has one prompt"),
        ("/invocations", {"inputs": ["a", 5]}, 422, "inputs.1: "),
        ("/generate", {"inputs": "a", "parameters": {"top_p": 5e-324}}, 422, "parameters.top_p: "),
        ("/generate", {"inputs": "a", "parameters": {"temperature": 1e-320}}, 422, "parameters.temperature: "),
        ("/generate", '{"inputs": "a", "parameters": {"temperature": NaN}}', 422, "parameters.temperature: "),
        ("/generate", {"inputs": "a", "parameters": {"stop": ["a" * 200]}}, 422, "parameters.stop.0: "),
        ("/v1/completions", {"prompt": "a", "model": "gpt-9"}, 400, "There is no model 'gpt-9' here"),
        ("/v1/completions", {"prompt": "a", "echo": True, "stream": True}, 400, "echo and stream"),
        ("/generate", {"inputs": "a", "stream": 1}, 422, "stream: "),
        ("/generate", {"inputs": "a", "strategy": 1}, 422, "no field 'strategy' here"),
        ("/nowhere", {}, 404, "There is nothing at /nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(server, path, body, status, sentence):
    content = body if isinstance(body, str) else json.dumps(body)
    response = httpx.post(server.url + path, content=content, headers={"Content-Type": "application/json"}, timeout=60)
    assert response.status_code == status
    error = response.json()["error"]
    error = error["message"] if path.startswith("/v1/") else error
    assert sentence in error and error.endswith(".") and "\n" not in error


def test_a_wrong_method_and_a_stream_that_cannot_begin(server):
    response = httpx.get(server.url + "/generate")
    assert response.status_code == 405 and response.json()["error"] == "GET is not done at /generate: see /docs."
    long = {"inputs": "ship " * 9000, "stream": True}
    assert post(server, "/invocations", long).status_code == 400  # not 200 and an error in the middle
    with pytest.raises(CourseError, match=r"The server refused the request \(400\): The"):
        list(client.stream(server.url, "ship " * 9000))


def test_a_body_without_a_length_is_counted_as_it_comes(server):
    def pieces():
        yield b'{"inputs": "'
        for _ in range(40):
            yield b"a" * (1 << 15)

    response = httpx.post(server.url + "/generate", content=pieces(), timeout=60)
    assert response.status_code == 413 and idle(server.worker)


def test_sixty_four_at_once_are_all_answered_rightly(server, model, tokenizer):
    prompts = [f"How many ships of kind {k}?" for k in range(64)]
    found = [None] * 64

    def ask(k):
        *_, told = client.stream(server.url, prompts[k], max_new_tokens=10)
        found[k] = told.text

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tokenizer.decode(alone(model, tokenizer, p, 10), skip_special_tokens=True) for p in prompts]


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


def idle(worker):
    cache = worker.engine.cache
    return not worker.open and not worker.engine.busy and len(cache.pool.free) == cache.num_blocks


def test_a_client_that_goes_frees_its_place(server):
    long = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4000}, "stream": True}
    before = server.worker.tokens_written
    with httpx.stream("POST", server.url + "/invocations", timeout=60, json=long) as response:
        pieces = response.iter_bytes()
        next(pieces)
        assert server.worker.open == 1
    until(lambda: idle(server.worker))
    host, port = server.url.removeprefix("http://").split(":")
    body = json.dumps(long | {"stream": False}).encode()
    with socket.create_connection((host, int(port))) as raw:  # a whole answer, and nobody waits for it
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.worker.open == 1)
    until(lambda: idle(server.worker))
    assert server.worker.tokens_written - before < 4000  # of 8000


def test_a_full_queue_says_when_to_come_again(model, tokenizer):
    worker, context = served(model, tokenizer, max_open=1)
    with context as url:
        streams = httpx.stream(
            "POST",
            url + "/invocations",
            timeout=60,
            json={"inputs": PROMPT, "parameters": {"max_new_tokens": 3000}, "stream": True},
        )
        with streams as response:
            pieces = response.iter_bytes()  # kept: the stream is closed with it
            next(pieces)
            refused = httpx.post(url + "/generate", json={"inputs": PROMPT})
            assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
            assert "As many requests are open as this server takes, 1" in refused.json()["error"]
        until(lambda: idle(worker))
        assert client.ask(url, PROMPT, max_new_tokens=3).pieces


def test_what_was_accepted_is_finished_when_the_server_ends(model, tokenizer):
    _, context = served(model, tokenizer)
    told, began = [], threading.Event()

    def ask(url):
        for each in client.stream(url, PROMPT, max_new_tokens=400):
            began.set()
            last = each
        told.append(last)

    with context as url:
        thread = threading.Thread(target=ask, args=(url,))
        thread.start()
        began.wait(30)
    thread.join()
    assert len(told[0].pieces) == 400 and told[0].finish_reason == "length"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/ping")


def test_a_port_that_cannot_be_had_is_told():
    with listening_socket() as taken, pytest.raises(CourseError, match=r"Port \d+ can't be had .*: choose another one"):
        listening_socket(taken.getsockname()[1])
    with pytest.raises(CourseError, match="Port 70000 can't be had"):
        listening_socket(70_000)


def test_a_step_that_fails_leaves_nobody_waiting(model, tokenizer, monkeypatch):
    """It fails at the second sequence, in the step in which the first one ends."""
    worker, context = served(model, tokenizer)
    take, failed = Sequence.take, []

    def failing(sequence, feed, logits, hidden):
        if sequence.max_new_tokens == 50 and len(sequence.written) == 4:
            failed.append(sequence.id)
            raise RuntimeError("out of memory")
        return take(sequence, feed, logits, hidden)

    monkeypatch.setattr(Sequence, "take", failing)
    with context as url:
        statuses = []

        def ask(longest):
            body = {"inputs": PROMPT, "parameters": {"max_new_tokens": longest}}
            statuses.append(httpx.post(url + "/generate", json=body, timeout=30).status_code)

        threads = [threading.Thread(target=ask, args=(longest,)) for longest in (5, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed and 500 in statuses
        assert client.ask(url, PROMPT, max_new_tokens=3).pieces  # and the next one is served
        assert httpx.get(url + "/ping").status_code == 200
        until(lambda: idle(worker))


def test_sampling_without_a_seed_differs_and_with_one_repeats(server):
    asked = dict(max_new_tokens=20, do_sample=True, temperature=2.0)
    assert client.ask(server.url, PROMPT, **asked).text != client.ask(server.url, PROMPT, **asked).text
    assert client.ask(server.url, PROMPT, **asked, seed=3).text == client.ask(server.url, PROMPT, **asked, seed=3).text


def test_sigterm_lets_what_was_accepted_end(tmp_path, model, tokenizer):
    """The command itself, in a process of its own."""
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    command = [sys.executable, "-m", "helpers", "serve", "--model", str(tmp_path), "--port", "0", "--longest", "2000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    url = process.stdout.readline().split()[0]
    until(lambda: reached(url), 60)
    told = []
    for each in client.stream(url, PROMPT, max_new_tokens=600):
        if not told:
            process.send_signal(signal.SIGTERM)
        told = each
    assert len(told.pieces) == 600
    assert process.wait(30) in (0, -signal.SIGTERM)
    with pytest.raises(CourseError, match="Nobody answers at"):
        client.ask(url, PROMPT)


def reached(url):
    try:
        return httpx.get(url + "/ping").status_code == 200
    except httpx.ConnectError:
        return False


def test_counts_for_prometheus(server):
    httpx.post(server.url + "/generate", json={"inputs": PROMPT, "parameters": {"max_new_tokens": 2}}, timeout=60)
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    assert float(values["course_requests_total"]) >= 1 and values["course_kv_blocks"] == "400"
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(values)
    assert httpx.get(server.url + "/ping").json() == {"status": "healthy"}


def test_more_answers_than_the_server_takes_are_refused_for_good(model, tokenizer):
    _, context = served(model, tokenizer, max_open=2)
    with context as url:
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "a", "n": 3}, timeout=60)
        assert refused.status_code == 400 and "takes 2 answers at a time" in refused.text


def test_what_would_break_a_chain_is_refused(server):
    with pytest.raises(CourseError, match="no return_full_text and no stop strings"):
        client.chained(server.url, PROMPT, 4, 8, stop=["a"])


def test_a_server_that_cannot_start_leaves_no_thread(model, tokenizer):
    worker, context = served(model, tokenizer, dialect="latin")
    with pytest.raises(CourseError, match="There is no dialect 'latin'"), context:
        pass
    assert not worker.alive


FAILED = {"token": {"text": "a", "logprob": -1.0}, "details": {"finish_reason": "error"}}


@pytest.mark.parametrize("event", [{"error": "out of memory"}, FAILED])
def test_a_failure_in_the_middle_is_no_answer(monkeypatch, event):
    class Stream:
        status_code = 200

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def iter_bytes(self):
            yield json.dumps(event).encode()

    monkeypatch.setattr(client.httpx, "stream", lambda *args, **more: Stream())
    with pytest.raises(CourseError, match="ended in the middle"):
        list(client.stream("http://a", "b"))
    with pytest.raises(ValueError, match="in the middle"):
        tgi_piece(event)
