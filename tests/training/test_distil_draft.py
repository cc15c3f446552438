"""Distillation: the draft comes nearer to its target, resumes, carries the target's hash, and is refused elsewhere."""

import json

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.text_to_sql.dataset import key, load_split, reserved_for_tests, training_examples
from helpers.text_to_sql.names import held_out
from helpers.training import distil_draft, self_distillation
from helpers.training.completions import IGNORED, Encoded, encode
from helpers.training.distil_draft import Arguments, Run, distil, loss_of, train
from helpers.training.packing import collate
from tests.tiny_models import tiny
from tests.training.tiny_llama import save_tiny_llama
from tests.training.torchrun import two_processes

UNDER_TORCHRUN = """
import sys
from helpers.text_to_sql.dataset import load_split
from helpers.training import distil_draft, script
from helpers.training.completions import encode

def reference_answers(model, tokenizer, examples, cache, model_hash):
    return [encode(e, tokenizer) for e in examples]

distil_draft.training_examples = lambda more, seed: load_split("train", limit=12)
distil_draft.answered = reference_answers
script.run(distil_draft.train, distil_draft.Arguments, "")
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A target and a draft; the target answers with the reference, so that nobody waits for random words."""
    examples = load_split("train", limit=12)
    tokenizer = models.tokenizer_of("base")
    answers = {
        tuple(e.ids[: e.labels.count(IGNORED)]): e.ids[e.labels.count(IGNORED) :]
        for e in (encode(example, tokenizer) for example in examples)
    }
    monkeypatch.setattr(distil_draft, "training_examples", lambda more, seed: examples)
    monkeypatch.setattr(self_distillation, "greedy_tokens", lambda m, prompts, _: [answers[tuple(p)] for p in prompts])
    return save_tiny_llama(tmp_path / "target"), save_tiny_llama(tmp_path / "small", layers=1, seed=1), tmp_path


def arguments(places, folder, **more):
    common = dict(model_id=places[0], start_from=places[1], output_dir=str(places[2] / folder), batch_size=2)
    return Arguments(**common | dict(epochs=8, muon_lr=0.02) | more)


def test_the_draft_comes_nearer_to_its_target_and_is_left_with_a_card(places):
    run = train(arguments(places, "run", export=str(places[2] / "shipped")))
    assert run.losses[-1] < 0.9 * run.losses[0]
    report = json.loads((places[2] / "run" / "report.json").read_text())
    assert report["steps"] == run.step and report["divergence"] == run.divergence()
    for draft in (places[2] / "run" / "draft", places[2] / "shipped"):
        assert models.card(draft)["target_hash"] == models.hash_of(places[0])
        models.check_made_for(draft, places[0])
        with pytest.raises(CourseError, match="was made for another model than"):
            models.check_made_for(draft, places[1])
        model, _ = models.load(draft, "bfloat16")
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_killed_run_resumes_with_what_it_had(places, monkeypatch):
    whole = distil(Run(arguments(places, "whole")))
    real, calls = distil_draft.loss_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(distil_draft, "loss_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(Run(arguments(places, "cut", save_steps=2)))
    monkeypatch.setattr(distil_draft, "loss_of", real)
    run = Run(arguments(places, "cut"))
    assert run.step == 4
    assert distil(run).losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(CourseError, match="other settings"):
        Run(arguments(places, "cut", epochs=2))


def test_the_loss_is_the_divergence_on_answer_tokens_alone():
    target, draft = tiny(), tiny(seed=1)
    example = Encoded([5, 9, 2, 30], [IGNORED, IGNORED, 2, 30])
    batch = collate([[example]], pad=0)
    p, q = (m(torch.tensor([example.ids])).logits[0, 1:3].float().log_softmax(-1) for m in (target, draft))
    wanted = (p.exp() * (p - q)).sum(-1).mean()
    torch.testing.assert_close(loss_of(draft, target, batch), wanted)
    assert loss_of(target, target, batch).item() == pytest.approx(0, abs=1e-6)


def test_two_processes_under_torchrun_end_with_the_weights_of_one(places):
    """Each takes its share of a step's sequences: of three the first has two. A draft of bfloat16 is left, so the
    weights are compared in the checkpoints."""
    common = dict(batch_size=3, epochs=2, warmup_steps=1, bf16="False", max_seq_length=256)
    one = distil(Run(arguments(places, "one", **common)))
    script = places[2] / "script.py"
    script.write_text(UNDER_TORCHRUN)
    two = arguments(places, "two", **common)
    two_processes([script, *(f"--{name}={value}" for name, value in vars(two).items())])
    saved = torch.load(two.checkpoints / "checkpoint.pt", weights_only=True)
    assert saved["step"] == one.step >= 4
    for name, weight in one.draft.state_dict().items():
        torch.testing.assert_close(saved["draft"][name], weight, atol=1e-4, rtol=1e-3)


def test_more_questions_are_new_ones_without_held_out_words():
    examples = training_examples(30, seed=1)
    assert len(examples) == 2130 and len({key(e) for e in examples}) == 2130
    assert not {key(e) for e in examples} & reserved_for_tests()
    assert not any(held_out(word) for e in examples[2100:] for word in e.words)
    json.dumps([e.answer for e in examples])
