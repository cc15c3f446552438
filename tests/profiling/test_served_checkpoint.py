"""vLLM, where it is installed, answers with our checkpoints as our own quantized model does."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.profiling import served_checkpoint, vllm_baseline
from helpers.profiling.served_checkpoint import Served, answers_in_vllm, serve
from helpers.weights.quantization.compressed_tensors import as_served, save_compressed
from helpers.weights.quantization.integer import install
from tests.tiny_tokenizer import tiny_tokenizer

PROMPTS = [[5, 17, 60, 8, 33], [9], [70, 71, 3, 3, 90, 12], [44, 45], [400, 21, 6]]


def test_same_answers_are_counted_and_margins_are_of_the_others(monkeypatch):
    answers = {"token_ids": [[1, 2], [3, 4], [5]], "seconds": [1.0, 1.0, 0.5]}
    monkeypatch.setattr(served_checkpoint.vllm_baseline, "run", lambda *args, **options: answers)
    ours = {1: [1, 2], 2: [3, 9], 3: [5]}
    monkeypatch.setattr(served_checkpoint, "hf_generate", lambda model, max_new_tokens: lambda ids: ours[ids[0]])
    monkeypatch.setattr(served_checkpoint, "margin", lambda model, prompt, mine, other: 0.25)
    served = serve(None, "somewhere", [[1], [2], [3]])
    assert (served.same, served.of, served.margins) == (2, 3, [0.25]) and served.tokens_per_second == 2.0
    assert answers_in_vllm("somewhere", [[1], [2], [3]]) == answers["token_ids"]


def small(tokenizer, seed):
    torch.manual_seed(seed)
    shape = dict(hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, head_dim=32)
    ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape, **ends)).eval()
    for p in model.parameters():  # not the buffers: RoPE's frequencies must not be rounded
        p.data = (p.data * (2 if p.ndim == 2 else 1)).bfloat16()
    return model


@pytest.mark.skipif(not vllm_baseline.installed(), reason="vLLM is not installed")
@pytest.mark.parametrize(("kind", "options"), [("w8a8", dict(bits=8)), ("w4a16", dict(bits=4, group=32))])
def test_vllm_answers_as_our_quantized_model(tmp_path, monkeypatch, kind, options):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path / "build"))
    tokenizer = tiny_tokenizer()
    model, another = (install(small(tokenizer, seed), **options) for seed in (2, 1))
    folder = save_compressed(model, tokenizer, tmp_path / "made", kind)
    served = serve(as_served(model, kind), folder, PROMPTS, max_new_tokens=24)
    assert isinstance(served, Served) and served.of == 5
    assert served.same >= 3 and all(m is None or abs(m) < 0.1 for m in served.margins)  # near ties may part them
    answers = dict(token_ids=served.theirs, seconds=served.seconds)
    monkeypatch.setattr(served_checkpoint.vllm_baseline, "run", lambda *args, **options: answers)
    wrong = serve(as_served(another, kind), folder, PROMPTS, max_new_tokens=24)
    assert wrong.same < served.same and max(abs(m) for m in wrong.margins if m is not None) > 0.1
