"""Notebook 11b: servers are compared in turns, a model comes from the disk, experts are many and few are asked."""

from contextlib import contextmanager

import matplotlib.pyplot as plt
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.errors import CourseError
from helpers.notebook import serving_backends, serving_charts
from helpers.notebook.results import Results
from helpers.notebook.serving_backends import BackendsBench
from helpers.notebook.serving_sizes import BACKENDS, BackendSizes
from helpers.serving import vllm_server
from helpers.serving.load_test import Load, Sample
from helpers.serving.run import running
from helpers.serving.worker import Worker
from tests.serving.conftest import engine_of

SIZES = BackendSizes(3, 6, (1, 2), 2, 2, "llama-tiny", False, 0)


@pytest.fixture
def results(tmp_path):
    machine = {"cpu": "a", "cores": 2, "memory_gib": 8, "accelerator": None}
    return Results("11b_backends", "smoke", tmp_path, [], "0" * 16, "1" * 16, machine)


@pytest.fixture
def bench(model, tokenizer):
    return BackendsBench(model, tokenizer, "tiny", "float32", ["How many?", "Who is it?", "When?"], SIZES)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def value(results, key):
    return results.metrics[f"backends.{key}"]["value"]


def test_servers_are_asked_in_turns_and_one_that_fails_is_left_out(
    results, bench, model, tokenizer, monkeypatch, capsys
):
    @contextmanager
    def broken():
        raise CourseError("It doesn't start.")
        yield

    def start():
        return running(Worker(engine_of(model), tokenizer), "served")

    monkeypatch.setattr(BackendsBench, "ours", lambda self, medusa=None: start())
    monkeypatch.setattr(BackendsBench, "servers", lambda self: {"llama_cpp": start, "vllm": broken})
    asked, ask = [], BackendsBench.ask
    monkeypatch.setattr(BackendsBench, "ask", lambda self, url, n: asked.append(url) or ask(self, url, n))
    found = serving_backends.compare_backends(results, bench)
    assert set(found) == {"llama_cpp"} and "It doesn't start" in capsys.readouterr().out
    first, second, *_ = asked
    assert asked == [first, second] * 4 and first != second
    assert value(results, "same_answers.llama_cpp.users_2") == 1.0
    serving_charts.draw_backends(found)


def test_an_answer_that_differs_is_counted(results):
    ours = Load([Sample(0.0, (1.0, 2.0), 200, "a"), Sample(0.0, (1.0, 2.0), 200, "b")])
    theirs = Load([Sample(0.0, (1.0, 2.0), 200, "a"), Sample(0.0, (1.0, 3.0), 200, "c")])
    serving_backends._note_pair(results, "vllm", 16, ours, theirs)
    assert value(results, "same_answers.vllm.users_16") == 0.5
    assert value(results, "tokens_per_second.vllm.users_16") == pytest.approx(4 / 3)
    assert value(results, "tokens_per_second_of_ours.vllm.users_16") == pytest.approx(2.0)


def test_weights_come_from_the_disk_and_compute_the_same(results, monkeypatch):
    seen, one = {}, serving_backends._one
    monkeypatch.setattr(serving_backends, "_one", lambda m, ids: seen.setdefault(id(m), one(m, ids)))
    serving_backends.compare_offload(results, SIZES)
    held, away = seen.values()
    assert torch.equal(held, away)
    assert value(results, "offload_memory") < 0.2 and results.metrics["backends.offload_speedup.disk"]["n"] == 2


def test_a_mixture_reads_two_experts_a_token(tmp_path, tokenizer):
    experts, dense, counts = serving_backends.mixture(tokenizer, 4, tmp_path)
    sparse = AutoModelForCausalLM.from_pretrained(experts)
    mlp = 8 * 3 * 768 * 1024  # of all layers, an expert each
    router = 8 * 768 * 4
    assert counts["experts"] - counts["dense"] == 2 * mlp + router
    assert sparse.config.num_experts_per_tok == 2 and AutoModelForCausalLM.from_pretrained(dense)


def test_what_a_profile_leaves_out_is_said(results, bench, capsys):
    serving_backends.compare_beams(results, bench)
    assert serving_backends.compare_experts(results, bench) == {} and not results.metrics
    out = capsys.readouterr().out
    assert "vLLM's server is left out" in out and "mixture of experts is left out" in out
    assert all(min(sizes.users) == 1 for sizes in BACKENDS.values())


def test_a_server_that_stops_is_told_by_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server.vllm_baseline, "installed", lambda: True)
    monkeypatch.setattr(vllm_server.sys, "executable", "/bin/sh")  # which knows no -m
    with (
        pytest.raises(CourseError, match="vLLM's server stopped: "),
        vllm_server.vllm_serve(tmp_path, dtype="float32", longest=64),
    ):
        pass
    monkeypatch.setattr(vllm_server.vllm_baseline, "installed", lambda: False)
    with (
        pytest.raises(CourseError, match="vLLM is not installed here"),
        vllm_server.vllm_serve(tmp_path, dtype="float32", longest=64),
    ):
        pass
