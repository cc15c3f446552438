"""The loop gives what `model.generate` gives, token by token."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.decoding.generate import Proposal, steps


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(**shape, num_key_value_heads=2, eos_token_id=None, bos_token_id=None, pad_token_id=None)
    return LlamaForCausalLM(config).double().eval()


def greedy(model, ids, count):
    out = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
    return out[0, len(ids) :].tolist()


class Guesser:
    """Guesses a tree around the truth: some right, some wrong."""

    def __init__(self, truth, start):
        self.truth, self.start = truth, start

    def propose(self, tokens, hidden):
        at = len(tokens) - self.start
        right = self.truth[at : at + 3]
        wrong = [(t + 1) % 97 for t in right]
        return Proposal(wrong + right, [-1, 0, 1][: len(right)] + [-1, 3, 4][: len(right)], ["test"] * 2 * len(right))


def test_greedy_equals_generate(model):
    prompt = [5, 9, 2, 44]
    made = [t for step in steps(model, prompt, max_new_tokens=40) for t in step.emitted]
    assert made == greedy(model, prompt, 40)


def test_guesses_change_the_steps_but_not_the_tokens(model):
    prompt = [7, 8, 9]
    truth = greedy(model, prompt, 40)
    done = list(steps(model, prompt, max_new_tokens=40, proposer=Guesser(truth + [0] * 4, len(prompt))))
    assert [t for step in done for t in step.emitted] == truth
    assert len(done) < 15
