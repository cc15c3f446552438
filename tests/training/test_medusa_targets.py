"""States are those that made the tokens, and labels what comes after them, within one answer."""

import torch

from helpers.training.completions import IGNORED, Encoded
from helpers.training.medusa_targets import OUTSIDE, columns_of, reference_answers, targets, used_tokens
from helpers.training.self_distillation import Answer
from tests.tiny_models import tiny


@torch.no_grad()
def test_reference_answers_have_the_states_that_say_their_tokens():
    model = tiny()
    examples = [
        Encoded([5, 9, 2, 30, 7], [IGNORED, IGNORED, 2, 30, 7]),
        Encoded([8, 3, 4], [IGNORED, 3, 4]),
        Encoded([6, 1], [IGNORED, 1]),
    ]
    answers = reference_answers(model, examples, batch_size=2)
    assert [a.tokens for a in answers] == [[2, 30, 7], [3, 4], [1]]
    for e, answer in zip(examples, answers, strict=True):
        states = model(torch.tensor([e.ids]), output_hidden_states=True).hidden_states[-1][0]
        begin = len(e.ids) - len(answer.tokens) - 1
        torch.testing.assert_close(answer.hidden, states[begin:-1], atol=1e-9, rtol=1e-9)
        logits = model(torch.tensor([e.ids])).logits[0, begin:-1]
        torch.testing.assert_close(model.lm_head(answer.hidden), logits, atol=1e-9, rtol=1e-9)


def test_targets_are_what_comes_after_the_token_that_a_state_makes():
    answers = [Answer([2, 30, 7, 5], torch.arange(4.0)[:, None]), Answer([3, 4], torch.tensor([[10.0], [11.0]]))]
    answers.append(Answer([9], torch.tensor([[20.0]])))
    hidden, labels = targets(answers, 2)
    assert hidden.flatten().tolist() == [0, 1, 2, 10]
    assert labels.tolist() == [[30, 7], [7, 5], [5, IGNORED], [4, IGNORED]]
    hidden, labels = targets(answers[2:], 2)
    assert hidden.shape == (0, 1) and labels.shape == (0, 2)


def test_used_tokens_are_sorted_and_hold_the_end():
    answers = [Answer([30, 2, 30], torch.zeros(3, 1)), Answer([7], torch.zeros(1, 1))]
    assert used_tokens(answers, [1, 7]).tolist() == [1, 2, 7, 30]
    often = [Answer([5, 5, 9, 2], torch.zeros(4, 2)), Answer([5, 9], torch.zeros(2, 2))]
    assert used_tokens(often, [3], most=2).tolist() == [3, 5, 9]


def test_columns_are_places_among_the_tokens_and_others_are_outside():
    token_ids = torch.tensor([2, 7, 30])
    labels = torch.tensor([[30, 2], [7, IGNORED], [0, 31], [8, 7]])
    assert columns_of(labels, token_ids).tolist() == [[2, 0], [1, IGNORED], [OUTSIDE, OUTSIDE], [OUTSIDE, 1]]
