"""A model's own answers: the very tokens that it generated, its end where it ended, and none where it was cut."""

import json

import pytest
import torch

from helpers import models
from helpers.text_to_sql.dataset import load_split
from helpers.text_to_sql.prompts import prompt_for
from helpers.training import self_distillation
from helpers.training.completions import IGNORED
from helpers.training.self_distillation import answered, greedy_tokens
from tests.tiny_models import tiny
from tests.training.tiny_llama import save_tiny_llama

EXAMPLES = load_split("train", limit=6)


def greedy_alone(model, prompt, max_new_tokens, end):
    """One prompt, one token at a time, without a cache."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        ids.append(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
        if ids[-1] in end:
            break
    return ids[len(prompt) :]


def test_a_batch_answers_as_each_prompt_by_itself_and_ends_at_its_end():
    model = tiny()
    prompts = [[5, 9, 2, 30], [7, 41], [3, 8, 12, 60, 61, 9], [11]]
    endless = [greedy_alone(model, p, 8, end=()) for p in prompts]
    end = endless[0][3]  # some answers end with it, and the others are cut
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = [end, 0], end
    answers = greedy_tokens(model, prompts, 8)
    assert answers == [greedy_alone(model, p, 8, end=(end, 0)) for p in prompts]
    assert answers[0][-1] == end and len(answers[0]) <= 4
    assert any(len(a) == 8 and a[-1] not in (end, 0) for a in answers)


@pytest.fixture
def target(tmp_path):
    return models.load(save_tiny_llama(tmp_path / "target"))


def test_the_labels_are_the_tokens_that_the_model_generated(target, tmp_path, monkeypatch):
    """Ids that no tokenizer would make of their text, one answer with its end and one that was cut."""
    model, tokenizer = target
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "SELECT"]
    assert tokenizer(tokenizer.decode(letters), add_special_tokens=False).input_ids != letters  # the old way's mistake
    ended, cut = [*letters, tokenizer.eos_token_id], letters
    monkeypatch.setattr(self_distillation, "greedy_tokens", lambda m, prompts, _: [ended, cut][: len(prompts)])
    first, second = answered(model, tokenizer, EXAMPLES[:2], tmp_path / "answers.json", "hash")
    for encoded, answer in ((first, ended), (second, cut)):
        learned = [label for label in encoded.labels if label != IGNORED]
        assert learned == answer and encoded.ids[-len(answer) :] == answer
    assert tokenizer.eos_token_id not in second.labels


def test_answers_are_those_of_the_model_in_the_order_of_the_questions(target, tmp_path, monkeypatch):
    monkeypatch.setattr(self_distillation, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(self_distillation, "BATCH_SIZE", 2)
    monkeypatch.setattr(self_distillation, "SAVE_EVERY", 4)
    model, tokenizer = target
    encoded = answered(model, tokenizer, EXAMPLES, tmp_path / "answers.json", "hash")
    for example, e in zip(EXAMPLES, encoded, strict=True):
        prompt = tokenizer(prompt_for(tokenizer, example), add_special_tokens=False).input_ids
        answer = greedy_alone(model, prompt, 4, end=(tokenizer.eos_token_id,))
        assert e.ids == prompt + answer and e.labels == [IGNORED] * len(prompt) + answer


def test_only_the_same_model_s_answers_to_the_same_prompts_are_read_again(target, tmp_path, monkeypatch):
    asked, cache = [], tmp_path / "answers.json"

    def generate(model, prompts, max_new_tokens):
        asked.append(len(prompts))
        return [[5, 6]] * len(prompts)

    monkeypatch.setattr(self_distillation, "greedy_tokens", generate)
    answered(*target, EXAMPLES[:4], cache, "hash")
    assert asked == [4] and len(answered(*target, EXAMPLES[:3], cache, "hash")) == 3 and asked == [4]
    answered(*target, EXAMPLES, cache, "hash")
    assert asked == [4, 2]  # only the new ones
    answered(*target, EXAMPLES, cache, "another")
    assert asked == [4, 2, 6]
    answered(*target, EXAMPLES[1:], cache, "another")
    assert asked == [4, 2, 6, 5]
    monkeypatch.setattr(self_distillation, "MAX_NEW_TOKENS", 7)
    answered(*target, EXAMPLES[1:], cache, "another")
    assert asked == [4, 2, 6, 5, 5]
    assert len(json.loads(cache.read_text())["answers"]) == 5
