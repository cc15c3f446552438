"""The same heads in vLLM, over all tokens and over some, where it is installed; and our own count as vLLM counts."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models
from helpers.decoding.generate import generate
from helpers.decoding.proposals import chain
from helpers.errors import CourseError
from helpers.profiling import vllm_baseline
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_files import load, save
from helpers.speculation.medusa_heads import MedusaHeads, ReducedMedusaHeads
from tests.speculation.test_medusa import PROMPT, heads_for
from tests.tiny_models import greedy
from tests.tiny_tokenizer import tiny_tokenizer


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


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A small model that repeats itself, as vLLM can run it, its folder, and prompts with its answers."""
    folder, tokenizer = tmp_path_factory.mktemp("models") / "model", tiny_tokenizer()
    torch.manual_seed(0)
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, head_dim=32)
    ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    made = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **shape, **ends))
    for p in made.parameters():
        p.data.mul_(2 if p.ndim == 2 else 1)
    made.bfloat16().float().save_pretrained(folder)  # vLLM's copy of the lm_head is of bfloat16
    tokenizer.save_pretrained(folder)
    model, tokenizer = models.load(folder)
    prompts = [[5, 17, 60, 8, 33], [9], [70, 71, 3, 3, 90, 12], [44, 45], [400, 21, 6]]
    return model, folder, prompts, [generate(model, tokenizer, p, max_new_tokens=48).token_ids for p in prompts]


@torch.no_grad()
def heads_at(folder, model, token_ids=None):
    """Heads whose guesses differ, as the folder has them."""
    lm_head = model.get_output_embeddings().weight
    heads = MedusaHeads(lm_head) if token_ids is None else ReducedMedusaHeads(lm_head, torch.tensor(token_ids))
    torch.manual_seed(0)
    for p in heads.trained():
        p.normal_(std=0.05)
    save(heads, folder, "base")
    return load(folder, model)


@pytest.mark.skipif(not vllm_baseline.installed(), reason="vLLM is not installed")
@pytest.mark.parametrize("reduced", [False, True])
def test_vllm_answers_the_same_and_accepts_as_often(target, tmp_path, monkeypatch, reduced):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    model, folder, prompts, answers = target
    used = sorted({token for answer in answers for token in answer})
    heads = heads_at(tmp_path / "heads", model, used[1:] if reduced else None)
    theirs = vllm_baseline.run(folder, prompts, dtype="float32", heads=tmp_path / "heads", max_new_tokens=48)
    assert theirs["token_ids"] == answers
    mine = vllm_baseline.accepted_by_place(model, heads, prompts, answers)
    assert 0.1 < mine[0] < 0.9 and mine[-1] > 0
    assert [n / theirs["drafts"] for n in theirs["accepted"]] == pytest.approx(mine, abs=0.02)
