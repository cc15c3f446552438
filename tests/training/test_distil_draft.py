"""Distillation: the draft comes nearer to its target, resumes, carries the target's hash, and is refused elsewhere."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models
from helpers.errors import CourseError
from helpers.text_to_sql.dataset import key, load_split, reserved_for_tests, training_examples
from helpers.text_to_sql.names import held_out
from helpers.training import distil_draft
from helpers.training.completions import IGNORED, Encoded
from helpers.training.distil_draft import Run, Settings, loss_of, train
from helpers.training.packing import collate
from tests.tiny_models import tiny


def saved(folder, layers, seed):
    tokenizer = models.tokenizer_of("base")
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=layers,
                         num_attention_heads=4, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
                         pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A target and a draft; the target answers with the reference, so that nobody waits for random words."""
    examples = load_split("train", limit=12)
    monkeypatch.setattr(distil_draft, "training_examples", lambda more, seed: examples)
    monkeypatch.setattr(distil_draft, "answer_in_batches", lambda m, t, prompts, **_: [e.answer for e in examples])
    return saved(tmp_path / "target", 2, 0), saved(tmp_path / "small", 1, 1), tmp_path


def settings(places, **more):
    return Settings(model_id=places[0], start_from=places[1], rows=2, **dict(epochs=8, muon_lr=0.02) | more)


def test_the_draft_comes_nearer_to_its_target_and_is_left_with_a_card(places):
    run = train(Run(settings(places), places[2] / "run", "cpu"))
    assert run.losses[-1] < 0.9 * run.losses[0]
    run.export(places[2] / "draft")
    card = models.card(places[2] / "draft")
    assert card["target_hash"] == models.hash_of(places[0])
    models.check_made_for(places[2] / "draft", places[0])
    with pytest.raises(CourseError, match="was made for another model than"):
        models.check_made_for(places[2] / "draft", places[1])
    model, _ = models.load(places[2] / "draft", "bfloat16")
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_killed_run_resumes_with_what_it_had(places, monkeypatch):
    whole = train(Run(settings(places), places[2] / "whole", "cpu"))
    real, calls = distil_draft.loss_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(distil_draft, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(Run(settings(places), places[2] / "cut", "cpu"), save_every=2)
    monkeypatch.setattr(distil_draft, "loss_of", real)
    run = Run(settings(places), places[2] / "cut", "cpu")
    assert run.step == 4
    assert train(run).losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(CourseError, match="other settings"):
        Run(settings(places, epochs=2), places[2] / "cut", "cpu")


def test_the_loss_is_the_divergence_on_answer_tokens_alone():
    target, draft = tiny(), tiny(seed=1)
    row = Encoded([5, 9, 2, 30], [IGNORED, IGNORED, 2, 30])
    batch = collate([[row]], pad=0)
    p, q = (m(torch.tensor([row.ids])).logits[0, 1:3].float().log_softmax(-1) for m in (target, draft))
    wanted = (p.exp() * (p - q)).sum(-1).mean()
    torch.testing.assert_close(loss_of(draft, target, batch), wanted)
    assert loss_of(target, target, batch).item() == pytest.approx(0, abs=1e-6)


def test_more_questions_are_new_ones_without_held_out_words():
    found = training_examples(30, seed=1)
    assert len(found) == 2130 and len({key(e) for e in found}) == 2130
    assert not {key(e) for e in found} & reserved_for_tests()
    assert not any(held_out(word) for e in found[2100:] for word in e.words)
    json.dumps([e.answer for e in found])
