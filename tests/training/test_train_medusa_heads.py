"""Heads learn what the frozen model says next, and nothing else; a killed run resumes; the card names the target."""

import json
import os
import subprocess
import sys

import pytest
import torch

from helpers import files, models
from helpers.errors import CourseError
from helpers.models.loading import HEADS
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import distil_draft, train_medusa_heads
from helpers.training.completions import IGNORED, Encoded
from helpers.training.train_medusa_heads import Run, Settings, accuracy_of, features, loss_of, train
from tests.tiny_models import tiny
from tests.training.test_distil_draft import saved


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A target that answers with the reference, so that nobody waits for random words."""
    by_prompt = {}
    for split in ("train", "validation"):
        tokenizer = models.tokenizer_of("base")
        for e in load_split(split, limit=12):
            by_prompt[prompt_for(tokenizer, e)] = e.answer
    monkeypatch.setattr(train_medusa_heads, "training_examples", lambda more, seed: load_split("train", limit=12))
    monkeypatch.setattr(distil_draft, "answer_in_batches", lambda m, t, prompts, **_: [by_prompt[p] for p in prompts])
    return saved(tmp_path / "target", 2, 0)


def settings(place, **more):
    return Settings(
        **dict(model_id=place, epochs=3, lr=0.02, batch_positions=64, eval_samples=6, warmup_steps=2) | more
    )


def test_features_are_the_states_that_say_the_answer_and_labels_what_comes_after():
    model = tiny()
    one, other = Encoded([5, 9, 2, 30, 7], [IGNORED, IGNORED, 2, 30, 7]), Encoded([8, 3, 4], [IGNORED, 3, 4])
    hidden, labels = features(model, [one, other], 2, 0, length=16)
    ids = torch.tensor([one.ids])
    states = model(ids, output_hidden_states=True).hidden_states[-1][0]
    wanted = {(30, 7): states[1], (7, IGNORED): states[2], (4, IGNORED): None}
    assert {tuple(row) for row in labels.tolist()} == set(wanted)
    for state, row in zip(hidden, labels.tolist()):
        if wanted[tuple(row)] is not None:
            torch.testing.assert_close(state, wanted[tuple(row)], atol=1e-9, rtol=1e-9)


def test_the_loss_weighs_later_heads_less():
    model = tiny()
    heads, hidden = MedusaHeads(model.lm_head.weight, heads=2), torch.randn(4, 64, dtype=torch.float64)
    labels = torch.tensor([[1, 2], [3, IGNORED], [5, 6], [7, IGNORED]])
    logits = heads(hidden).float()
    first = torch.nn.functional.cross_entropy(logits[0], labels[:, 0])
    second = torch.nn.functional.cross_entropy(logits[1][[0, 2]], labels[[0, 2], 1])
    assert loss_of(heads, hidden, labels, 0.5).item() == pytest.approx((0.5 * first + 0.25 * second).item(), rel=1e-5)
    top = accuracy_of(heads, hidden, logits.argmax(-1).T, 2)
    assert top == [[1, 1], [1, 1]]


def test_heads_learn_and_the_model_stays_as_it_was(place, tmp_path):
    run = Run(settings(place, epochs=30, lr=0.05), tmp_path / "run", "cpu")
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    train(run)
    assert run.losses[-1] < 0.8 * run.losses[0] and len(run.accuracy) == 30
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    run.export(tmp_path / "heads", with_lm_head=True)
    models.check_made_for(tmp_path / "heads", place)
    heads = load(tmp_path / "heads", run.model)
    hidden = torch.randn(2, 64, dtype=run.dtype)
    torch.testing.assert_close(heads(hidden).float(), run.heads(hidden.float()), atol=0.05, rtol=0.05)


def test_a_killed_run_resumes_with_what_it_had(place, tmp_path, monkeypatch):
    whole = train(Run(settings(place), tmp_path / "whole", "cpu"))
    real, calls = train_medusa_heads.accuracy_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train_medusa_heads, "accuracy_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(Run(settings(place), tmp_path / "cut", "cpu"))
    monkeypatch.setattr(train_medusa_heads, "accuracy_of", real)
    run = Run(settings(place), tmp_path / "cut", "cpu")
    assert run.epoch == 1
    assert train(run).losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(CourseError, match="other settings"):
        Run(settings(place, epochs=2), tmp_path / "cut", "cpu")


def test_wrong_knobs_are_told(place, tmp_path):
    for change, told in ((dict(medusa_scheduler="x"), "--medusa_scheduler x is unknown; there are constant"),
                         (dict(lr_scheduler_type="x"), "--lr_scheduler_type"), (dict(answers="x"), "--answers"),
                         (dict(epochs=0), "--epochs"), (dict(medusa_num_heads=0), "at least one head")):  # fmt: skip
        with pytest.raises(CourseError, match=told):
            Run(settings(place, **change), tmp_path / "run", "cpu")


def test_torchrun_and_sagemaker_s_folders(place, tmp_path):
    given = dict(model_id=place, answers="reference", epochs=1, most=8, eval_samples=4, batch_positions=64)
    environment = os.environ | {"SM_MODEL_DIR": str(tmp_path / "model"), "OMP_NUM_THREADS": "1"}
    given["checkpoint_dir"] = str(tmp_path / "kept")
    environment["PYTHONPATH"] = str(files.ROOT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "helpers.training.train_medusa_heads", *(f"--{k}={v}" for k, v in given.items())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((tmp_path / "model" / "report.json").read_text())["losses"]
    assert (tmp_path / "model" / "heads" / HEADS).exists() and (tmp_path / "kept" / "checkpoint.pt").exists()
    assert not (tmp_path / "model" / "checkpoint.pt").exists()  # what is served has no optimizer in it
