"""Heads learn what the frozen model says next, and nothing else; a killed run resumes; the card names the target."""

import json

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.models.places import HEADS
from helpers.speculation.medusa_files import load
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.text_to_sql.dataset import load_split
from helpers.training import self_distillation, train_medusa_heads
from helpers.training.completions import IGNORED, Encoded, encode
from helpers.training.train_medusa_heads import Arguments, Run, accuracy_of, features, loss_of, train, train_heads
from tests.tiny_models import tiny
from tests.training.tiny_llama import save_tiny_llama
from tests.training.torchrun import options, two_processes


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A target that answers with the reference, so that nobody waits for random words."""
    answers, tokenizer = {}, models.tokenizer_of("base")
    for example in (*load_split("train", limit=12), *load_split("validation", limit=12)):
        e = encode(example, tokenizer)
        start = e.labels.count(IGNORED)
        answers[tuple(e.ids[:start])] = e.ids[start:]
    monkeypatch.setattr(train_medusa_heads, "training_examples", lambda more, seed: load_split("train", limit=12))
    monkeypatch.setattr(self_distillation, "greedy_tokens", lambda m, prompts, _: [answers[tuple(p)] for p in prompts])
    return save_tiny_llama(tmp_path / "target")


def arguments(place, folder, **more):
    common = dict(model_id=place, output_dir=str(folder), epochs=3, lr=0.02, batch_positions=64, eval_samples=6)
    return Arguments(**common | dict(warmup_steps=2) | more)


def test_features_are_the_states_that_say_the_answer_and_labels_what_comes_after():
    model = tiny()
    one, other = Encoded([5, 9, 2, 30, 7], [IGNORED, IGNORED, 2, 30, 7]), Encoded([8, 3, 4], [IGNORED, 3, 4])
    hidden, labels = features(model, [one, other], 2, 0, length=16)
    ids = torch.tensor([one.ids])
    states = model(ids, output_hidden_states=True).hidden_states[-1][0]
    wanted = {(30, 7): states[1], (7, IGNORED): states[2], (4, IGNORED): None}
    assert {tuple(label) for label in labels.tolist()} == set(wanted)
    for state, label in zip(hidden, labels.tolist()):
        if wanted[tuple(label)] is not None:
            torch.testing.assert_close(state, wanted[tuple(label)], atol=1e-9, rtol=1e-9)


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
    run = Run(arguments(place, tmp_path / "run", epochs=30, lr=0.05))
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    train_heads(run)
    assert run.losses[-1] < 0.8 * run.losses[0] and len(run.accuracy) == 30
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    run.export(tmp_path / "heads", with_lm_head=True)
    models.check_made_for(tmp_path / "heads", place)
    heads = load(tmp_path / "heads", run.model)
    hidden = torch.randn(2, 64, dtype=run.dtype)
    torch.testing.assert_close(heads(hidden).float(), run.heads(hidden.float()), atol=0.05, rtol=0.05)


def test_a_killed_run_resumes_with_what_it_had(place, tmp_path, monkeypatch):
    whole = train_heads(Run(arguments(place, tmp_path / "whole")))
    real, calls = train_medusa_heads.accuracy_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(train_medusa_heads, "accuracy_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_heads(Run(arguments(place, tmp_path / "cut")))
    monkeypatch.setattr(train_medusa_heads, "accuracy_of", real)
    run = Run(arguments(place, tmp_path / "cut"))
    assert run.epoch == 1
    assert train_heads(run).losses == pytest.approx(whole.losses, rel=1e-3)
    with pytest.raises(CourseError, match="other settings"):
        Run(arguments(place, tmp_path / "cut", epochs=2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(medusa_scheduler="x"), "--medusa_scheduler x is unknown; there are constant"),
        (dict(lr_scheduler_type="x"), "--lr_scheduler_type"),
        (dict(answers="x"), "--answers"),
        (dict(epochs=0), "--epochs"),
        (dict(medusa_num_heads=0), "at least one head"),
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

    one = train_heads(Run(Arguments(**common, output_dir=str(tmp_path / "one")))).heads.state_dict()
    two = torch.load(tmp_path / "checkpoints" / "checkpoint.pt", weights_only=True)["heads"]
    same = all(torch.allclose(two[name], weight, atol=1e-4, rtol=1e-3) for name, weight in one.items())
    assert same != mistake
