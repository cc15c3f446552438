"""A model's own answers: the very tokens that it generated, its end where it ended, and none where it was cut."""

import pytest
import torch

from helpers import models
from helpers.decoding import in_batches
from helpers.decoding.sequence_cache import CacheLayer
from helpers.kernels.fastest_step import fastest_step, is_our_own
from helpers.kernels.packed_linear import PackedLinear
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import self_distillation
from helpers.training.completions import IGNORED
from helpers.training.self_distillation import Answer, answered, greedy_answers, own_answers
from tests.tiny_models import tiny
from tests.training.tiny_llama import save_tiny_llama

EXAMPLES = load_split("train", limit=6)
PROMPTS = [[5, 9, 2, 30], [7, 41], [3, 8, 12, 60, 61, 9], [11], [13, 4], [90, 2, 2], [5, 9, 2, 31]]


def greedy_alone(model, prompt, max_new_tokens, end):
    """One prompt, one token at a time, without a cache."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        ids.append(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
        if ids[-1] in end:
            break
    return ids[len(prompt) :]


def with_ends(kind="llama"):
    """A model, and end-of-sequence tokens with which its answers end at different times, or not at all."""
    model = tiny(kind)
    endless = [greedy_alone(model, prompt, 12, end=()) for prompt in PROMPTS]
    end = endless[0][3], endless[2][6]
    model.generation_config.eos_token_id = list(end)
    return model, [greedy_alone(model, prompt, 12, end) for prompt in PROMPTS]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_prompts_that_join_where_others_end_are_answered_as_each_by_itself(batch_size):
    model, alone = with_ends()
    ends = set(model.generation_config.eos_token_id)
    assert len({len(answer) for answer in alone}) > 2 and {answer[-1] in ends for answer in alone} == {True, False}
    answers = greedy_answers(model, PROMPTS, 12, batch_size)
    assert [a.tokens for a in answers] == alone
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([prompt + answer.tokens])
        states = model(ids, output_hidden_states=True).hidden_states[-1][0, len(prompt) - 1 : -1]
        torch.testing.assert_close(answer.hidden, states, atol=1e-6, rtol=1e-6)
    assert greedy_answers(model, [], 12) == []


def test_the_fused_model_answers_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    model, alone = with_ends()
    weights = [p.clone() for p in model.parameters()]
    fast = fastest_step(model, turns=0)
    assert is_our_own(fast)
    assert [a.tokens for a in greedy_answers(fast, PROMPTS, 12, 3)] == alone
    assert not any(isinstance(m, PackedLinear) for m in model.modules())
    assert all(p.equal(before) for p, before in zip(model.parameters(), weights, strict=True))


@pytest.mark.parametrize("kind", ["mistral", "falcon"])
def test_a_model_without_a_fused_step_answers_by_itself(kind):
    model, alone = with_ends(kind)
    assert [a.tokens for a in greedy_answers(model, PROMPTS, 12, 3)] == alone


def test_a_model_that_reads_one_sequence_at_a_time_answers_one_after_the_other(monkeypatch):
    model, alone = with_ends()
    real, batch_sizes = in_batches.Forward, []

    class OneByOne(real):
        def __init__(self, model):
            super().__init__(model)
            self.support = self.support.__class__("", "", "other logits than without a cache")

        def __call__(self, feeds, cache):
            batch_sizes.append(len(feeds))
            return super().__call__(feeds, cache)

    monkeypatch.setattr(in_batches, "Forward", OneByOne)
    assert [a.tokens for a in greedy_answers(model, PROMPTS, 12, 3)] == alone
    assert set(batch_sizes) == {1}


def test_a_sequence_that_reads_on_in_another_s_row_is_caught(monkeypatch):
    model, alone = with_ends()
    monkeypatch.setattr(CacheLayer, "copy", lambda self, to, source: None)  # the mistake
    assert [a.tokens for a in greedy_answers(model, PROMPTS, 12, 3)] != alone


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr(self_distillation, "fastest_step", lambda model, turns: model)
    return models.load(save_tiny_llama(tmp_path / "target"))


def test_the_labels_are_the_tokens_that_the_model_generated(target, tmp_path, monkeypatch):
    """Ids that no tokenizer would make of their text, one answer with its end and one that was cut."""
    model, tokenizer = target
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "SELECT"]
    assert tokenizer(tokenizer.decode(letters), add_special_tokens=False).input_ids != letters  # the old way's mistake
    ended, cut = [*letters, tokenizer.eos_token_id], letters
    answers = [Answer(tokens, torch.zeros(len(tokens), 64)) for tokens in (ended, cut)]
    monkeypatch.setattr(self_distillation, "greedy_answers", lambda m, prompts, _: answers)
    first, second = answered(model, tokenizer, EXAMPLES[:2], tmp_path / "answers", "hash")
    for encoded, answer in ((first, ended), (second, cut)):
        learned = [label for label in encoded.labels if label != IGNORED]
        assert learned == answer and encoded.ids[-len(answer) :] == answer
    assert tokenizer.eos_token_id not in second.labels


def test_answers_are_those_of_the_model_in_the_order_of_the_questions(target, tmp_path, monkeypatch):
    monkeypatch.setattr(self_distillation, "SAVE_EVERY", 4)
    model, tokenizer = target
    answers = own_answers(model, tokenizer, EXAMPLES, tmp_path / "answers", "hash", max_new_tokens=4)
    for example, answer in zip(EXAMPLES, answers, strict=True):
        prompt = tokenizer(prompt_for(tokenizer, example), add_special_tokens=False).input_ids
        assert answer.tokens == greedy_alone(model, prompt, 4, end=(tokenizer.eos_token_id,))
        said = model.lm_head(answer.hidden).argmax(-1)  # the states can be learned from, and they made these tokens
        assert said.tolist() == answer.tokens and model.lm_head(answer.hidden).requires_grad


def test_only_the_same_model_s_answers_to_the_same_prompts_are_read_again(target, tmp_path, monkeypatch):
    asked = []

    def answers(model, prompts, max_new_tokens):
        asked.append(len(prompts))
        return [Answer([5, 6], torch.tensor([[1.0], [len(prompt)]])) for prompt in prompts]

    def ask(examples, model_hash="hash", **more):
        asked.clear()
        made = own_answers(*target, examples, tmp_path / "answers", model_hash, **more)
        assert [a.hidden[0].item() for a in made] == [1] * len(examples)
        return list(asked)

    monkeypatch.setattr(self_distillation, "greedy_answers", answers)
    monkeypatch.setattr(self_distillation, "SAVE_EVERY", 2)
    assert ask(EXAMPLES[:4]) == [2, 2] and ask(EXAMPLES[:4]) == []
    assert ask(EXAMPLES) == [2]  # only the new ones
    assert ask(EXAMPLES[:2]) == []
    assert ask(EXAMPLES[:2], "another") == [2]
    assert ask(EXAMPLES[:2], "another", max_new_tokens=7) == [2]
    assert ask(EXAMPLES[1:3], "another", max_new_tokens=7) == [2]
