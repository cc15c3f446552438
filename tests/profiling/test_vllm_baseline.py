"""The same heads in vLLM, for real where it is installed; and our own count as vLLM counts."""

import pytest
import torch

from helpers import models
from helpers.decoding.generate import generate
from helpers.decoding.proposals import chain
from helpers.errors import CourseError
from helpers.profiling import vllm_baseline
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.medusa_files import load, save
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from tests.speculation.test_medusa import PROMPT, heads_for
from tests.tiny_models import greedy


def test_what_is_accepted_past_the_end_counts_and_nothing_after_it(model, monkeypatch):
    truth = greedy(model, PROMPT, 30)

    class Right(Medusa):
        def propose(self, sequences, hidden):
            made = len(sequences[0].written)
            return [chain(truth[made : made + 5], "head")]

    monkeypatch.setattr(vllm_baseline, "Medusa", Right)
    assert vllm_baseline.accepted_by_place(model, heads_for(model), [PROMPT], [truth[:4]]) == [1.0] * 5
    monkeypatch.undo()
    shares = vllm_baseline.accepted_by_place(model, heads_for(model), [PROMPT], [truth[:12]])
    assert len(shares) == 5 and shares == sorted(shares, reverse=True) and shares[0] < 1


def test_without_vllm_there_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_baseline, "installed", lambda: False)
    with pytest.raises(CourseError, match="vLLM is not installed here"):
        vllm_baseline.run(tmp_path, [[1]], dtype="float32")


def test_where_torch_compile_can_not_work_vllm_does_not_try(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_baseline, "installed", lambda: True)
    monkeypatch.setattr(vllm_baseline.torch_compile, "why_not", lambda: "there is no C++ compiler: install one")
    with pytest.raises(CourseError, match=r"vLLM can't compile here, there is no C\+\+ compiler"):
        vllm_baseline.run(tmp_path, [[1]], dtype="float32", compiled=True)


def test_the_cache_leaves_a_home_with_a_space(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert vllm_baseline.cache_root() == {}
    monkeypatch.setenv("HOME", "/home/my name")
    assert " " not in vllm_baseline.cache_root()["VLLM_CACHE_ROOT"]
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/cache")
    assert vllm_baseline.cache_root() == {}


@pytest.mark.skipif(not vllm_baseline.installed(), reason="vLLM is not installed")
def test_vllm_answers_the_same_and_accepts_as_often(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    model, tokenizer = models.load("fine-tuned", torch.float32)
    heads = load("medusa", model)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    save(heads, tmp_path / "heads", "fine-tuned")
    prompts = [tokenizer(prompt_for(tokenizer, e), add_special_tokens=False).input_ids for e in load_split("test")[:12]]
    theirs = vllm_baseline.run(tmp_path / "model", prompts, dtype="float32", heads=tmp_path / "heads")
    ours = [generate(model, tokenizer, p, proposer=Medusa(heads, CHAIN)).token_ids for p in prompts]
    assert theirs["token_ids"] == ours
    mine = vllm_baseline.accepted_by_place(model, heads, prompts, ours)
    assert [n / theirs["drafts"] for n in theirs["accepted"]] == pytest.approx(mine, abs=0.02)
