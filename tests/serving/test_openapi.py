"""Whatever schemathesis makes of the server's own OpenAPI: an answer, or a status below 500 with one sentence."""

from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from helpers.serving.run import running
from helpers.serving.worker import Worker
from tests.serving.conftest import engine_of

ANY = dict(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def server(model, tokenizer):
    """It takes 64 tokens in all, so that no answer is a long one."""
    worker = Worker(engine_of(model), tokenizer, longest=64)
    with running(worker, "tiny") as url:
        yield SimpleNamespace(url=url, worker=worker)


def is_no_fault(case, worker):
    """(schemathesis' own plugin for pytest knows no pytest 9.2: so its cases are drawn here.)"""
    response = case.call(timeout=30)
    assert response.status_code < 500, response.text
    if response.status_code >= 400 and case.method != "HEAD":
        error = response.json()["error"]
        sentence = error["message"] if isinstance(error, dict) else error
        assert sentence.endswith((".", "/docs.")) and "\n" not in sentence and "Traceback" not in sentence
    assert worker.alive
    return response.status_code


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
@pytest.mark.parametrize(
    "path", ["/generate", "/generate_stream", "/invocations", "/v1/completions", "/v1/chat/completions"]
)
def test_no_request_is_the_server_s_fault(server, path, mode):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operation, seen = schema[path]["POST"], set()

    @settings(**ANY)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        seen.add(is_no_fault(case, server.worker))

    check()
    assert seen & {200, 400, 422}


def test_all_its_addresses_are_in_it(server):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    found = {result.ok().label for result in schema.get_all_operations()}
    assert {"GET /ping", "GET /health", "GET /metrics", "GET /v1/models", "POST /invocations"} <= found and len(
        found
    ) == 9


def test_a_fault_is_seen(server):
    class Case:
        method = "POST"

        def call(self, timeout):
            return SimpleNamespace(status_code=self.status, text="", json=lambda: {"error": self.sentence})

    for status, sentence in ((500, "a fault."), (400, "two\nlines."), (422, "no end")):
        case = Case()
        case.status, case.sentence = status, sentence
        with pytest.raises(AssertionError):
            is_no_fault(case, server.worker)
