"""The engines that people use answer a trace of a tiny model, each in a process of its own."""

import queue

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.engine import other_engines
from helpers.engine.other_engines import KINDS, Waiting, replay_in_own_process
from helpers.engine.traffic import Request, replay
from helpers.errors import CourseError
from helpers.profiling import llama_cpp_baseline, vllm_baseline
from tests.tiny_tokenizer import tiny_tokenizer

TRACE = [Request(0.0, [5, 17, 60, 8], 3), Request(0.0, [9, 4], 6), Request(0.05, [70, 71, 3, 3, 9], 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer, folder = tiny_tokenizer(), tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    sizes = dict(hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, head_dim=32)
    ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes, **ends))
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["generate", "transformers"])
def test_transformers_does_the_work_of_the_trace(folder, kind):
    settings = dict(model=str(folder), dtype="bfloat16")
    done = replay_in_own_process(kind, settings, {"one": TRACE, "again": TRACE}, max_sequences=2)
    assert [len(times) for times in done["one"].tokens] == [3, 6, 1] and set(done) == {"one", "again"}


@pytest.mark.skipif(not vllm_baseline.installed(), reason="vLLM is not installed")
def test_vllm_does_the_work_of_the_trace(folder):
    settings = dict(model=str(folder), dtype="bfloat16", compiled=False)
    done = replay_in_own_process("vllm", settings, {"one": TRACE}, max_sequences=2)["one"]
    assert [len(times) for times in done.tokens] == [3, 6, 1] and done.arrivals == [0.0, 0.0, 0.05]


def test_an_engine_that_is_missing_says_so(monkeypatch):
    monkeypatch.setattr(vllm_baseline, "installed", lambda: False)
    with pytest.raises(CourseError, match="vLLM is not installed here"):
        replay_in_own_process("vllm", {}, {"one": TRACE})
    monkeypatch.setattr(llama_cpp_baseline, "installed", lambda: False)
    with pytest.raises(CourseError, match=r"llama\.cpp is not installed here"):
        replay_in_own_process("llama.cpp", {}, {"one": TRACE})
    assert set(KINDS) == {"vllm", "llama.cpp", "transformers", "generate"}


class Late(Waiting):
    """Its tokens came before anybody asked; one token too many."""

    def begin(self, number, request):
        for _ in range(request.num_tokens + 1):
            self.came.put((number, 1))


def test_tokens_past_what_was_asked_for_don_t_count():
    done = replay(Late(), TRACE)
    assert [len(times) for times in done.tokens] == [3, 6, 1]


def test_an_engine_that_stops_stops_the_replay():
    class Broken(Waiting):
        def begin(self, number, request):
            self.came.put(CourseError("it stopped"))

    with pytest.raises(CourseError, match="it stopped"):
        replay(Broken(), TRACE)
    assert isinstance(Broken().came, queue.Queue) and other_engines.WARMUP >= 1
