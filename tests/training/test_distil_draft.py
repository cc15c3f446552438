"""Distillation: the draft comes nearer to its target, resumes, carries the target's hash, and is refused elsewhere."""

import copy
import json

import pytest
import torch

from helpers import models
from helpers.errors import CourseError
from helpers.models import first_layers
from helpers.text_to_sql.dataset import key, load_split, training_examples
from helpers.training import distil_draft, script, self_distillation
from helpers.training.completions import IGNORED, Encoded, encode
from helpers.training.distil_draft import Arguments, Run, _backward, cross_entropy, distil, loss_of, train
from helpers.training.packing import Tree, collate, tree_of
from helpers.training.self_distillation import Answer
from tests.tiny_models import tiny
from tests.training.tiny_llama import save_tiny_llama
from tests.training.torchrun import two_processes

UNDER_TORCHRUN = """
import sys
from helpers.text_to_sql.dataset import load_split
from helpers.training import distil_draft, script, self_distillation
from tests.training.test_distil_draft import reference_answers

distil_draft.training_examples = lambda more, seed: load_split("train", limit=12)
self_distillation.own_answers = reference_answers
script.run(distil_draft.train, distil_draft.Arguments, "")
"""


def states_of(model, ids, num_prompt):
    """The states from which a model says what follows the prompt."""
    with torch.no_grad():
        return model.base_model(torch.tensor([ids])).last_hidden_state[0, num_prompt - 1 : -1]


def reference_answers(model, tokenizer, examples, place, model_hash):
    """Answers as if the model had given the reference, so that nobody waits for random words."""
    answers = []
    for example in examples:
        encoded = encode(example, tokenizer)
        num_prompt = encoded.labels.count(IGNORED)
        answers.append(Answer(encoded.ids[num_prompt:], states_of(model, encoded.ids, num_prompt)))
    return answers


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a target that answers with the reference."""
    monkeypatch.setattr(distil_draft, "training_examples", lambda more, seed: load_split("train", limit=12))
    monkeypatch.setattr(self_distillation, "own_answers", reference_answers)
    save_tiny_llama(tmp_path / "target", layers=3)
    return tmp_path


def arguments(place, folder="run", **more):
    common = dict(model_id=str(place / "target"), output_dir=str(place / folder), layers=2, lora_r=8, lora_alpha=16)
    return Arguments(**common | dict(epochs=8, lr=5e-3, max_seq_length=512, eval_samples=0) | more)


@pytest.mark.parametrize("loss, share", [("kl", 0.9), ("ce", 0.99)])  # a random model learns words slowly
def test_the_draft_comes_nearer_to_its_target_and_is_left_with_a_card(place, loss, share):
    run = train(arguments(place, loss=loss, export=str(place / "shipped"), eval_samples=2))
    assert run.losses[-1] < share * run.losses[0]
    report = json.loads((place / "run" / "report.json").read_text())
    assert report["steps"] == run.step == len(run.losses) and report["loss"] == run.loss()
    save_tiny_llama(place / "another", seed=1)
    for folder in (place / "run" / "draft", place / "shipped"):
        card = models.card(folder)
        assert card["target_hash"] == models.hash_of(place / "target") and card["arguments"]["loss"] == loss
        assert 0 <= card["acceptance"] <= 1 <= card["tokens_per_step"] <= 5
        models.check_made_for(folder, place / "target")
        with pytest.raises(CourseError, match="was made for another model than"):
            models.check_made_for(folder, place / "another")
        model, _ = models.load(folder)
        ids = torch.tensor([[5, 6, 7]])
        with script.autocast(run.device, run.dtype):
            wanted = run.draft(ids).logits.float()
        torch.testing.assert_close(model(ids).logits, wanted, atol=0.05, rtol=0.05)  # it was rounded to bfloat16
    assert sum(f.stat().st_size for f in (place / "shipped").iterdir()) < 100_000


def test_two_steps_bring_the_draft_nearer(place):
    run = distil(Run(arguments(place, epochs=2, batch_size=100, warmup_steps=0, bf16="False")))
    first, second = run.losses
    assert second < first
    frozen = [p for p in run.draft.parameters() if not p.requires_grad]
    assert all(p.grad is None for p in frozen) and set(run.trained) < {n for n, _ in run.draft.named_parameters()}
    norms = [name for name in run.trained if "lora" not in name]
    assert len(norms) == 1 and not torch.equal(run.trained[norms[0]], run.target.model.norm.weight.float())


def test_a_killed_run_resumes_with_what_it_had(place, monkeypatch):
    whole = distil(Run(arguments(place, "whole")))
    real, calls = loss_of, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setitem(distil_draft.LOSSES, "kl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distil(Run(arguments(place, "cut", save_steps=2)))
    monkeypatch.setitem(distil_draft.LOSSES, "kl", real)
    run = Run(arguments(place, "cut", eval_samples=1))  # which changes nothing of the draft
    assert run.step == 4
    assert distil(run).losses == whole.losses
    for name, p in whole.trained.items():
        torch.testing.assert_close(run.trained[name], p, atol=1e-6, rtol=1e-5)
    with pytest.raises(CourseError, match="other settings"):
        Run(arguments(place, "cut", layers=1))
    with pytest.raises(CourseError, match="other settings"):
        Run(arguments(place, "cut", loss="ce"))


def test_the_loss_is_the_divergence_on_answer_tokens_alone():
    """Of two questions that share a row and their beginning, as each would have alone."""
    target, draft = tiny(), tiny(seed=1)
    draft.lm_head = target.lm_head
    examples = [Encoded([5, 9, 2, 30], [IGNORED] * 2 + [2, 30]), Encoded([5, 8, 41], [IGNORED, IGNORED, 41])]
    states = {"states": torch.cat([states_of(target, e.ids, 2) for e in examples])}
    kl, ce = [], []
    for e in examples:
        p, q = (m(torch.tensor([e.ids])).logits[0, 1:-1].float().log_softmax(-1) for m in (target, draft))
        kl.append((p.exp() * (p - q)).sum(-1))
        ce.append(-q[torch.arange(len(q)), torch.tensor(e.ids[2:])])
    for row in ([tree_of(examples)], [Tree((e,)) for e in examples]):
        batch = collate([row], pad=0)
        torch.testing.assert_close(loss_of(draft, batch | states), torch.cat(kl).mean())
        torch.testing.assert_close(cross_entropy(draft, batch), torch.cat(ce).mean())
        assert loss_of(target, batch | states).item() == pytest.approx(0, abs=1e-6)
        shifted = {"states": states["states"].roll(1, 0)}  # the planted mistake: another token's distribution
        assert loss_of(target, batch | shifted).item() > 0.01


def test_before_any_training_a_draft_that_is_its_target_has_nothing_to_learn(place):
    """Each token's state reaches its own place in rows of several schemas and questions."""
    run = Run(arguments(place, batch_size=3, bf16="False"))
    run.draft = first_layers.begin(copy.deepcopy(run.target), 3, 2, 4)
    run.guessing = run.draft.get_base_model()
    groups = run.answers(load_split("train", limit=12))
    for rows in run.batches(groups)[:4]:
        assert _backward(run, rows) == pytest.approx(0, abs=1e-5)
    for group in groups:
        for answer in group:
            answer.states.copy_(answer.states.roll(1, 0))  # the planted mistake
    assert _backward(run, run.batches(groups)[0]) > 1e-3


@pytest.mark.parametrize("loss", ["kl", "ce"])
def test_a_draft_learns_to_guess_only_the_tokens_of_answers(place, loss):
    run = distil(Run(arguments(place, loss=loss, epochs=2, bf16="False")))
    used = {token for group in run.answers(load_split("train", limit=12)) for answer in group for token in answer.ids}
    token_ids = run.guessing.token_ids.tolist()
    assert set(token_ids) < used and len(token_ids) < run.target.config.vocab_size
    folder = place / "draft"
    run.export(folder)
    assert models.card(folder)["guessed_tokens"] == len(token_ids)
    small = first_layers.for_guessing(models.load(folder)[0], folder)
    assert small.token_ids.tolist() == token_ids and small.lm_head.weight.shape[0] == len(token_ids)
    everything = Run(arguments(place, "all", vocabulary="all"))
    assert distil(everything).guessing is everything.draft.get_base_model()


def test_a_target_whose_later_layers_do_nothing_accepts_all_that_its_first_ones_guess(place):
    model, _ = models.load(place / "target")
    for p in model.parameters():  # so that it doesn't write one token for ever
        p.data.mul_(6 if p.ndim == 2 else 1)
    for layer in model.model.layers[1:]:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model.save_pretrained(place / "target")
    run = Run(arguments(place, layers=1, eval_samples=2, bf16="False"))
    first_layers.save(run.draft, place / "small", run.a.model_id, models.hash_of(run.a.model_id))
    quality = run.quality(place / "small")
    assert quality["acceptance"] == 1 and 4 < quality["tokens_per_step"] <= 5
    for p in run.trained.values():  # the planted mistake: a draft that is none
        p.data.normal_()
    first_layers.save(run.draft, place / "small", run.a.model_id, models.hash_of(run.a.model_id))
    assert run.quality(place / "small")["acceptance"] < 0.5


def test_questions_about_one_schema_share_a_row_and_each_is_learned_once_an_epoch(place):
    run = Run(arguments(place, epochs=2, batch_size=1))
    questions = [load_split("train", limit=4)[i] for i in (0, 3)]  # three to a schema
    questions.append(type(questions[0])(**vars(questions[0]) | {"question": "How many are there?"}))
    groups = run.answers(questions)
    assert [len(group) for group in groups] == [2, 1]
    batches = run.batches(groups)
    trees = [tree for rows in batches for row in rows for tree in row]
    learned = sorted(e.ids for tree in trees for e in tree.examples)
    assert learned == sorted(2 * [answer.ids for group in groups for answer in group])
    shared = [tree for tree in trees if tree.num_shared]
    pair = sorted(encode(questions[i], run.tokenizer).ids for i in (0, 2))
    assert len(shared) == 2 and all(sorted(e.ids for e in t.examples) == pair for t in shared)


@pytest.mark.parametrize("layers", [3, 4])
def test_a_draft_with_all_the_target_s_layers_is_refused(place, layers):
    with pytest.raises(CourseError, match=r"has 3 layers, and a draft must be cheaper: give fewer .* --layers"):
        Run(arguments(place, layers=layers))


def test_a_draft_without_layers_or_epochs_is_refused(place):
    with pytest.raises(CourseError, match="can't have 0: give fewer, at least 1"):
        Run(arguments(place, layers=0))
    with pytest.raises(CourseError, match="must be at least 1"):
        arguments(place, epochs=0)


def test_two_processes_under_torchrun_end_with_the_weights_of_one(place):
    """Each takes its share of a step's rows: of three the first has two. A draft of bfloat16 is left, so the weights
    are compared in the checkpoints."""
    common = dict(batch_size=3, epochs=2, warmup_steps=1, lr=1e-3, bf16="False")
    one = distil(Run(arguments(place, "one", **common)))
    script = place / "script.py"
    script.write_text(UNDER_TORCHRUN)
    two = arguments(place, "two", **common)
    two_processes([script, *(f"--{name}={value}" for name, value in vars(two).items())])
    saved = torch.load(two.checkpoints / "checkpoint.pt", weights_only=True)
    assert saved["step"] == one.step >= 2
    for name, weight in one.trained.items():
        torch.testing.assert_close(saved["trained"][name], weight, atol=1e-4, rtol=1e-3)


def test_more_questions_are_new_ones():
    examples = training_examples(30, seed=1)
    assert len(examples) == 2130 and len({key(e) for e in examples}) == 2130
    json.dumps([e.answer for e in examples])
