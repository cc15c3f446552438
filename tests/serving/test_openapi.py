"""Whatever schemathesis makes of the server's own OpenAPI: an answer, or a status below 500 with one sentence."""

from types import SimpleNamespace

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from helpers.serving.run import running
from helpers.serving.worker import Worker
from tests.serving.conftest import engine_of


@pytest.fixture(scope="session")
def short_server(model, tokenizer):
    """It takes 64 tokens in all, so that no answer is a long one."""
    worker = Worker(engine_of(model), tokenizer, longest=64)
    with running(worker, "tiny") as url:
        yield SimpleNamespace(url=url, worker=worker)


@pytest.fixture(scope="session")
def openapi(short_server):
    return schemathesis.openapi.from_url(f"{short_server.url}/openapi.json")


operations = schemathesis.pytest.from_fixture("openapi")


@operations.parametrize()
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_the_server_s_fault(case, short_server):
    response = case.call(timeout=30)
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        error = response.json()["error"]
        sentence = error["message"] if isinstance(error, dict) else error
        assert sentence.endswith((".", "/docs.")) and "\n" not in sentence and "Traceback" not in sentence
    assert short_server.worker.alive
