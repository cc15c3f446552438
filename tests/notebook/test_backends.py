"""Notebook 11b: servers are compared in turns, a model comes from the disk, experts are many and few are asked."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.errors import CourseError
from helpers.notebook import backend_charts, serving_backends
from helpers.notebook.backend_sizes import BACKENDS, BackendSizes
from helpers.notebook.serving_backends import BackendsBench
from helpers.serving import vllm_server
from helpers.serving.load_test import Load, Sample
from helpers.serving.run import running
from helpers.serving.worker import Worker
from helpers.speculation.medusa_heads import ReducedMedusaHeads
from tests.serving.conftest import engine_of

NOTEBOOK = "11b_backends"

SIZES = BackendSizes(3, 6, (1, 2), 2, 2, 2, "llama-tiny", False, 0)


@pytest.fixture
def bench(model, tokenizer):
    return BackendsBench(model, tokenizer, "tiny", "cpu", ["How many?", "Who is it?", "When?"], SIZES)


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
    monkeypatch.setattr(BackendsBench, "ask", lambda self, url, n, **more: asked.append(url) or ask(self, url, n))
    found = serving_backends.compare_backends(results, bench)
    assert set(found) == {"llama_cpp"} and "It doesn't start" in capsys.readouterr().out
    ours, other, *_ = asked
    assert asked == [ours, other, other, ours, ours, other] * 2 and ours != other
    assert value(results, "same_answers.llama_cpp.users_2") == 1.0
    assert results.metrics["backends.speedup.llama_cpp.users_1"]["n"] == 2
    backend_charts.draw_backends(found, serving_backends.WORDS)


def test_a_pair_is_ours_over_theirs_and_counts_what_differs(results, bench, monkeypatch):
    def load(seconds, text):
        return Load([Sample(0.0, (seconds / 2, seconds), 200, "a"), Sample(0.0, (seconds / 2, seconds), 200, text)])

    answers = {"ours": load(1.0, "b"), "theirs": load(3.0, "c")}
    monkeypatch.setattr(BackendsBench, "ask", lambda self, url, users: answers[url])
    pair = serving_backends._beside(bench, "ours", "theirs", 16)
    assert pair.rates == pytest.approx((4.0, 4 / 3)) and pair.gaps == pytest.approx((500, 1500))
    assert pair.gain.ratio == pytest.approx(3.0) and (pair.same, pair.of) == (1, 2)
    serving_backends._note_pair(results, "vllm", 16, pair)
    assert value(results, "speedup.vllm.users_16") == pytest.approx(3.0)
    assert value(results, "same_answers.vllm.users_16") == 0.5


def test_requests_that_aren_t_answered_are_no_speed(bench, model, tokenizer, monkeypatch):
    with running(Worker(engine_of(model), tokenizer, max_open=1), "served") as url:
        with pytest.raises(CourseError, match=r"of 16 requests were not answered"):
            bench.ask(url, 4)


def test_heads_over_all_tokens_guess_as_the_fewer_do(model):
    torch.manual_seed(0)
    lm_head = model.get_output_embeddings().weight
    few = ReducedMedusaHeads(lm_head, torch.arange(3, 90), 2, 1)
    for block in few.blocks():
        for part in block:
            part.data.normal_(0, 0.1)
    full, hidden = serving_backends.over_all_tokens(few, lm_head), torch.randn(4, lm_head.shape[1])
    with torch.inference_mode():
        assert torch.allclose(full(hidden)[..., 3:90], few(hidden)[..., 3:90], atol=1e-5)


def test_weights_come_from_the_disk_and_compute_the_same(results, monkeypatch):
    seen, one = {}, serving_backends._one
    monkeypatch.setattr(serving_backends, "_one", lambda m, ids: seen.setdefault(id(m), one(m, ids)))
    serving_backends.compare_offload(results, SIZES)
    held, away = seen.values()
    assert torch.equal(held, away)
    assert value(results, "offload_weights_held") < 0.2 and results.metrics["backends.offload_speedup.disk"]["n"] == 2


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


def test_without_vllm_the_rest_goes_on(results, bench, monkeypatch, capsys):
    monkeypatch.setattr(vllm_server.vllm_baseline, "installed", lambda: False)
    monkeypatch.setattr(serving_backends, "written_folder", lambda *model: "nowhere")
    with_vllm = replace(bench, sizes=replace(SIZES, vllm=True, experts=2))
    monkeypatch.setattr(BackendsBench, "ours", lambda self, medusa=None: nullcontext("http://127.0.0.1:9"))
    monkeypatch.setattr(serving_backends.httpx, "post", lambda *asked, **more: answered("a"))
    serving_backends.compare_beams(results, with_vllm)
    assert serving_backends.compare_experts(results, with_vllm) == {} and not results.metrics
    assert capsys.readouterr().out.count("vLLM is not installed here") == 2


def answered(text):
    return httpx.Response(200, json={"choices": [{"text": text}]})
