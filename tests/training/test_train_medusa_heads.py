"""Heads learn what the frozen model says next, and nothing else; a killed run resumes; the card names the target."""

import json
import math
from collections import Counter

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.models.places import HEADS
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads, ReducedMedusaHeads
from helpers.text_to_sql.dataset import load_split
from helpers.training import self_distillation, train_medusa_heads
from helpers.training.completions import IGNORED, encode
from helpers.training.medusa_targets import OUTSIDE, reference_answers
from helpers.training.train_medusa_heads import Arguments, Run, accuracy_of, loss_of, train
from tests.tiny_models import tiny
from tests.tiny_tokenizer import tiny_tokenizer
from tests.training.tiny_llama import save_tiny_llama
from tests.training.torchrun import options, two_processes


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A target that answers with the reference, so that nobody waits for random words."""
    encoded, tokenizer = {}, tiny_tokenizer()
    for example in (*load_split("train", limit=12), *load_split("validation", limit=12)):
        e = encode(example, tokenizer)
        encoded[tuple(e.ids[: e.labels.count(IGNORED)])] = e

    def answers(fast, prompts, max_new_tokens):
        return reference_answers(target, [encoded[tuple(prompt)] for prompt in prompts])

    monkeypatch.setattr(train_medusa_heads, "training_examples", lambda more, seed: load_split("train", limit=12))
    monkeypatch.setattr(self_distillation, "fastest_step", lambda model, turns: model)
    monkeypatch.setattr(self_distillation, "greedy_answers", answers)
    folder = save_tiny_llama(tmp_path / "target")
    target, _ = models.load(folder)
    return folder


def arguments(place, folder, **more):
    common = dict(model_id=place, output_dir=str(folder), epochs=3, lr=0.02, batch_positions=64, eval_samples=6)
    return Arguments(**common | dict(warmup_steps=2, bf16="False") | more)


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


def test_the_accuracy_of_fewer_tokens_than_guesses_is_a_share():
    heads, hidden = MedusaHeads(torch.eye(2), heads=1), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert accuracy_of(heads, hidden, torch.tensor([[0], [0]])) == [[0.5, 1, 1, 1, 1]]


def test_heads_learn_and_the_model_stays_as_it_was(place, tmp_path):
    run = Run(arguments(place, tmp_path / "run", epochs=30, lr=0.05))
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.train_heads()
    assert run.losses[-1] < 0.8 * run.losses[0] and len(run.accuracy) == 30
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    run.export(tmp_path / "heads", with_lm_head=True)
    models.check_made_for(tmp_path / "heads", place)
    heads, hidden = load(tmp_path / "heads", run.model), torch.randn(2, 64)
    assert isinstance(heads, ReducedMedusaHeads) and heads.token_ids.equal(run.token_ids)
    torch.testing.assert_close(heads(hidden)[..., run.token_ids], run.heads(hidden), atol=0.05, rtol=0.05)


def test_heads_over_the_used_tokens_learn_as_those_over_all_that_are_masked(place, tmp_path):
    """The same steps on the same positions, where the others' logits are minus infinity."""

    def trained(**more):
        return Run(arguments(place, tmp_path / "run", epochs=1, **more)).train_heads()

    used = trained()
    assert used.token_ids.tolist() == sorted({t for a in used.answers for t in a.tokens})
    assert used.tokenizer.eos_token_id in used.token_ids.tolist()
    everything = Run(arguments(place, tmp_path / "all", epochs=1, vocabulary="all"))
    assert everything.token_ids is None and everything.heads.lm_head.out_features == len(everything.tokenizer)
    masked = torch.full((len(everything.tokenizer),), -torch.inf)
    masked[used.token_ids] = 0
    everything.heads.lm_head.register_forward_hook(lambda module, args, logits: logits + masked)
    everything.train_heads()
    assert used.losses == pytest.approx(everything.losses, rel=1e-3)
    # What the heads never guess counts as wrong: a share is of all validation labels.
    for i, (of_used, of_all) in enumerate(zip(used.accuracy[0], everything.accuracy[0])):
        assert of_used == pytest.approx(of_all, abs=0.01), i
    assert {t for a in used.validation for t in a.tokens} - set(used.token_ids.tolist())


def test_tokens_that_no_head_guesses_teach_nothing(place, tmp_path):
    heads, hidden = MedusaHeads(torch.randn(6, 8), heads=2), torch.randn(3, 8)
    torch.nn.init.normal_(heads.first.weight)
    labels = torch.tensor([[2, OUTSIDE], [OUTSIDE, OUTSIDE], [1, IGNORED]])
    known = loss_of(heads, hidden[[0, 2]], labels[[0, 2]], 0.5)
    assert torch.equal(loss_of(heads, hidden, labels, 0.5), known)
    few = Run(arguments(place, tmp_path / "few", epochs=1, guessed_tokens=9)).train_heads()
    counts = Counter(t for a in few.answers for t in a.tokens)
    rare = min(counts[t] for t in few.token_ids.tolist() if t != few.tokenizer.eos_token_id)
    assert 9 <= len(few.token_ids) <= 10 and all(counts[t] <= rare for t in set(counts) - set(few.token_ids.tolist()))
    assert few.losses and all(map(math.isfinite, few.losses))
    nothing = Run(arguments(place, tmp_path / "none", epochs=1, guessed_tokens=1))
    nothing.learned = (hidden.new_zeros(2, nothing.heads.first.in_features), torch.full((2, 5), OUTSIDE))
    assert nothing.backward(torch.tensor([0, 1]), 0.5) == 0


def test_labels_that_are_not_mapped_to_columns_are_caught(place, tmp_path, monkeypatch):
    monkeypatch.setattr(train_medusa_heads, "columns_of", lambda labels, token_ids: labels)  # the mistake
    with pytest.raises(IndexError, match="out of bounds"):
        Run(arguments(place, tmp_path / "run")).train_heads()


def test_a_killed_run_resumes_with_what_it_had(place, tmp_path, monkeypatch):
    whole = Run(arguments(place, tmp_path / "whole")).train_heads()
    real, calls = train_medusa_heads.accuracy_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train_medusa_heads, "accuracy_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Run(arguments(place, tmp_path / "cut")).train_heads()
    monkeypatch.setattr(train_medusa_heads, "accuracy_of", real)
    run = Run(arguments(place, tmp_path / "cut"))
    assert run.epoch == 1
    assert run.train_heads().losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(CourseError, match="other settings"):
        Run(arguments(place, tmp_path / "cut", epochs=2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(medusa_scheduler="x"), "--medusa_scheduler x is unknown; there are constant"),
        (dict(lr_scheduler_type="x"), "--lr_scheduler_type"),
        (dict(answers="x"), "--answers"),
        (dict(epochs=0), "--epochs"),
        (dict(medusa_num_heads=0), "--medusa_num_heads must be at least 1"),
        (dict(max_new_tokens=0), "--max_new_tokens must be at least 1"),
        (dict(vocabulary="x"), "--vocabulary x is unknown; there are used, all"),
        (dict(own_lm_heads=True), "add --vocabulary all"),
        (dict(more_examples=1, train_dataset_path="x"), "leave --train_dataset_path out"),
    ],
)
def test_wrong_options_get_one_sentence(place, tmp_path, change, says):
    with pytest.raises(CourseError, match=says):
        Run(arguments(place, tmp_path / "run", **change))


def test_an_empty_data_set_gets_one_sentence(place, tmp_path):
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(CourseError, match="look at --train_dataset_path"):
        train(arguments(place, tmp_path / "run", train_dataset_path=str(tmp_path)))


MEAN_OF_MEANS = """
import torch.distributed as dist
from helpers.training import script, train_medusa_heads

def mean_of_means(parameters, counts):
    for p in parameters:
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()

train_medusa_heads.average_gradients = mean_of_means
script.run(train_medusa_heads.train, train_medusa_heads.Arguments, "")
"""


@pytest.mark.parametrize("mistake", [False, True])
def test_two_processes_under_torchrun_end_with_the_weights_of_one(place, tmp_path, mistake):
    """Each step sees all positions; the two processes have different numbers of them, and of labels for each head."""
    common = dict(
        model_id=place,
        answers="reference",
        max_examples=7,
        epochs=4,
        batch_positions=100_000,
        lr=0.02,
        warmup_steps=1,
        eval_samples=4,
        bf16="False",
    )
    command = ["-m", "helpers.training.train_medusa_heads"]
    if mistake:
        command = [tmp_path / "mistake.py"]
        command[0].write_text(MEAN_OF_MEANS)
    given = options(common | dict(checkpoint_dir=tmp_path / "checkpoints"))
    two_processes([*command, *given], SM_MODEL_DIR=str(tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "report.json").read_text())["accuracy"]
    assert (tmp_path / "two" / "heads" / HEADS).exists() and (tmp_path / "checkpoints" / "checkpoint.pt").exists()
    assert not list((tmp_path / "two").rglob("checkpoint.pt"))  # what is served has no optimizer in it

    one = Run(Arguments(**common, output_dir=str(tmp_path / "one"))).train_heads().heads.state_dict()
    two = torch.load(tmp_path / "checkpoints" / "checkpoint.pt", weights_only=True)["trained"]
    same = all(torch.allclose(two[name], weight, atol=1e-4, rtol=1e-3) for name, weight in one.items())
    assert same != mistake
