"""The server over real sockets: the right answers in every schema, and a sentence for whatever is wrong."""

import json
import socket
import threading
import time

import httpx
import pytest
from openai import OpenAI

from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.serving import client
from helpers.serving.run import free_socket
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
    openai = OpenAI(base_url=server.url + "/v1", api_key="none")
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


def test_chained_requests_are_one_long_one(server):
    one = client.ask(server.url, PROMPT, max_new_tokens=30)
    parts = client.chained(server.url, PROMPT, each=7, longest=30)
    assert sum(len(part.pieces) for part in parts) == 30 and [len(part.pieces) for part in parts] == [7, 7, 7, 7, 2]
    assert all(part.cut_off for part in parts[:-1])
    if all("\ufffd" not in part.text for part in parts):  # half a character can't be sent on
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
        ("/generate", {"inputs": "a", "parameter": {}}, 422, "There is no field 'parameter' here"),
        ("/generate", {"inputs": "a", "parameters": {"best_of": 2}}, 422, "no field 'parameters.best_of' here"),
        ("/generate", {"inputs": "a", "parameters": {"max_new_tokens": 0}}, 422, "parameters.max_new_tokens: "),
        ("/generate", {"inputs": "a", "parameters": {"max_new_tokens": "many"}}, 422, "parameters.max_new_tokens: "),
        ("/generate", {"inputs": "ship " * 9000}, 400, "The prompt and the answer|The request may become"),
        ("/generate", {"inputs": "a" * (1 << 20)}, 413, "1,048,576 bytes at most"),
        ("/v1/completions", {"prompt": "a", "stream": True, "n": 2}, 400, "A stream has one answer here"),
        ("/v1/chat/completions", {"messages": []}, 422, "messages: "),
        ("/invocations", {"inputs": ["a", "b"], "stream": True}, 400, "A stream has one prompt"),
        ("/nowhere", {}, 404, "There is nothing at /nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(server, path, body, status, sentence):
    content = body if isinstance(body, str) else json.dumps(body)
    response = httpx.post(server.url + path, content=content, headers={"Content-Type": "application/json"}, timeout=60)
    assert response.status_code == status
    error = response.json()["error"]
    assert any(part in error for part in sentence.split("|")) and error.endswith(".") and "\n" not in error


def test_a_wrong_method_and_a_stream_that_cannot_begin(server):
    response = httpx.get(server.url + "/generate")
    assert response.status_code == 405 and response.json()["error"] == "GET is not done here."
    long = {"inputs": "ship " * 9000, "stream": True}
    assert post(server, "/invocations", long).status_code == 400  # not 200 and an error in the middle
    with pytest.raises(CourseError, match=r"The server refused the request \(400\): The"):
        list(client.stream(server.url, "ship " * 9000))


def test_a_body_without_a_length_is_counted_as_it_comes(server):
    def pieces():
        yield b'{"inputs": "'
        for _ in range(40):
            yield b"a" * (1 << 15)

    try:
        response = httpx.post(server.url + "/generate", content=pieces(), timeout=60)
    except httpx.WriteError:
        return  # the server has hung up already
    assert response.status_code == 413


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
    with httpx.stream(
        "POST",
        server.url + "/invocations",
        timeout=60,
        json={"inputs": PROMPT, "parameters": {"max_new_tokens": 4000}, "stream": True},
    ) as response:
        next(response.iter_bytes())
        assert server.worker.open == 1
    until(lambda: idle(server.worker))
    address = server.url.removeprefix("http://").split(":")
    body = json.dumps({"inputs": PROMPT, "parameters": {"max_new_tokens": 4000}}).encode()
    with socket.create_connection((address[0], int(address[1]))) as raw:  # a whole answer, and nobody waits for it
        raw.sendall(b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: server.worker.open == 1)
    until(lambda: idle(server.worker))


def test_a_full_queue_says_when_to_come_again(model, tokenizer):
    worker, context = served(model, tokenizer, max_waiting=1)
    with context as url:
        streams = httpx.stream(
            "POST",
            url + "/invocations",
            timeout=60,
            json={"inputs": PROMPT, "parameters": {"max_new_tokens": 3000}, "stream": True},
        )
        with streams as response:
            next(response.iter_bytes())
            refused = httpx.post(url + "/generate", json={"inputs": PROMPT})
            assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
            assert "1 requests wait already" in refused.json()["error"]
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


def test_a_port_that_is_taken_is_told():
    with free_socket() as taken, pytest.raises(CourseError, match=r"Port \d+ is taken: choose another one by --port"):
        taken.listen()
        free_socket(taken.getsockname()[1])


def test_a_step_that_fails_leaves_nobody_waiting(model, tokenizer, monkeypatch):
    worker, context = served(model, tokenizer)

    def fail():
        raise RuntimeError("out of memory")

    with context as url:
        monkeypatch.setattr(worker.engine, "step", fail)
        assert httpx.post(url + "/generate", json={"inputs": PROMPT}, timeout=30).status_code == 500
        monkeypatch.undo()
        assert client.ask(url, PROMPT, max_new_tokens=3).pieces  # and the next one is served


def test_counts_for_prometheus(server):
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    assert float(values["course_requests_total"]) >= 1 and values["course_kv_blocks"] == "400"
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(values)
    assert httpx.get(server.url + "/ping").json() == {"status": "healthy"}
