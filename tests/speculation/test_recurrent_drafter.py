"""The recurrent drafter: its states, its file, its tree; guesses that are wrong change no answer."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from helpers.decoding.generate import steps
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.drafted_tree import DraftedTree
from helpers.speculation.node_chances import labels_of
from helpers.speculation.recurrent_drafter import RecurrentDrafter, load, save
from tests.speculation.test_medusa import PROMPT, emitted
from tests.tiny_models import greedy, tiny

TOKEN_IDS = torch.arange(3, 90, 2)


def drafter_for(model, seed=0, width=24):
    torch.manual_seed(seed)
    tables = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    drafter = RecurrentDrafter(*(t.detach() for t in tables), TOKEN_IDS, width).eval()
    torch.nn.init.normal_(drafter.outer.weight, std=0.3)
    return drafter


@torch.no_grad()
def test_the_states_are_the_formula_s():
    model = tiny().float()
    drafter, state = drafter_for(model), torch.randn(1, 64)
    e = model.get_input_embeddings().weight[TOKEN_IDS[4]]
    e = e / e.square().mean().add(torch.finfo(torch.float32).eps).sqrt()
    inner = F.linear(torch.cat([state[0], e]), drafter.inner.weight, drafter.inner.bias)
    wanted = state[0] + drafter.outer.weight @ F.silu(inner)
    torch.testing.assert_close(drafter.next_state(state, torch.tensor([4]))[0], wanted)
    logits = drafter(state, torch.tensor([[4, 7]]))
    torch.testing.assert_close(logits[0, 0], model.get_output_embeddings().weight[TOKEN_IDS] @ wanted)
    assert logits.shape == (2, 1, len(TOKEN_IDS))


@torch.no_grad()
def test_it_begins_as_the_model_s_own_next_token():
    model = tiny().float()
    tables = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    drafter, state = RecurrentDrafter(*tables, TOKEN_IDS), torch.randn(3, 64)
    assert torch.equal(drafter.next_state(state, torch.tensor([0, 1, 2])), state)


def test_columns_of_tokens_that_it_does_not_know_are_the_first_one_s():
    drafter = drafter_for(tiny().float())
    assert drafter.columns(torch.tensor([3, 5, 4, 96, 0, 89])).tolist() == [0, 1, 0, 0, 0, len(TOKEN_IDS) - 1]


def test_it_is_read_as_it_was_written(tmp_path):
    model = tiny().bfloat16()
    drafter = drafter_for(model)
    save(drafter, tmp_path, "tiny")
    again = load(tmp_path, model)
    state, columns = torch.randn(2, 64).bfloat16(), torch.tensor([[1, 2], [3, 4]])
    assert torch.equal(again(state, columns), drafter(state, columns)) and not again.training
    assert torch.equal(again.token_ids, TOKEN_IDS)


def test_files_that_are_not_one_s_are_refused_in_a_sentence(tmp_path):
    model = tiny().float()
    with pytest.raises(CourseError, match="train_recurrent_drafter makes one"):
        load(tmp_path, model)
    save(drafter_for(model), tmp_path, "tiny")
    whole = (tmp_path / "recurrent_drafter.safetensors").read_bytes()
    (tmp_path / "recurrent_drafter.safetensors").write_bytes(whole[:-40])
    with pytest.raises(CourseError, match="train_recurrent_drafter makes one"):
        load(tmp_path, model)
    (tmp_path / "recurrent_drafter.safetensors").write_bytes(whole)
    state = torch.random.get_rng_state()
    load(tmp_path, model)
    assert torch.equal(torch.random.get_rng_state(), state)
    tensors = load_file(tmp_path / "recurrent_drafter.safetensors")
    save_file(tensors | {"inner.bias": torch.zeros(1)}, tmp_path / "recurrent_drafter.safetensors")
    with pytest.raises(CourseError, match=r"inner\.bias is"):
        load(tmp_path, model)
    (tmp_path / "recurrent_drafter.safetensors").write_bytes(whole)
    small = type(model)(type(model.config)(**(model.config.to_dict() | {"hidden_size": 32})))
    with pytest.raises(CourseError, match="for width 64, the model has 32"):
        load(tmp_path, small)


@pytest.mark.parametrize("ids", [[5, 3], [3, 3], [-1, 2], [3, 97], [[3]], []])
def test_token_ids_that_are_not_sorted_are_refused(ids):
    table = torch.randn(97, 8)
    with pytest.raises(CourseError, match="sorted int64 token ids below 97"):
        RecurrentDrafter(table, table, torch.tensor(ids, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
def test_the_tree_holds_the_likeliest_paths_with_their_probabilities(seed):
    model = tiny().float()
    drafter, states = drafter_for(model, seed), torch.randn(2, 64)
    sequences = [Sequence([5, last], max_new_tokens=9) for last in (9, 11)]
    trees = DraftedTree(drafter, depth=3, beam=3, width=4, least=0.0).propose(sequences, states)
    for tree, sequence, hidden in zip(trees, sequences, states):
        assert len(tree.tokens) == 4 + 12 + 12
        chances = []
        for i, label in enumerate(labels_of(tree)):  # each node's path, judged with the right tokens before it
            path, at = [], i
            while at >= 0:
                path.insert(0, tree.tokens[at])
                at = tree.parents[at]
            logits = drafter(hidden[None], drafter.columns(torch.tensor([[sequence.known[-1], *path[:-1]]])))
            shares = [logits[d, 0].log_softmax(-1)[drafter.columns(torch.tensor([t]))[0]] for d, t in enumerate(path)]
            chances.append(float(sum(shares)))
            assert label == (len(path), min(15, int(-chances[-1] / math.log(1.5)))), path
        by_depth = {d: [i for i, label in enumerate(labels_of(tree)) if label[0] == d] for d in (1, 2, 3)}
        for d in (1, 2):  # the likeliest are gone on from
            likeliest = sorted(by_depth[d], key=lambda i: -chances[i])[:3]
            assert {tree.parents[i] for i in by_depth[d + 1]} == set(likeliest)
        first = drafter(hidden[None], drafter.columns(torch.tensor([[sequence.known[-1]]])))[0, 0].topk(4).indices
        assert tree.tokens[:4] == TOKEN_IDS[first].tolist()


def test_unlikely_paths_are_not_gone_on_from():
    drafter = drafter_for(tiny().float())
    sequence = Sequence([5, 9], max_new_tokens=9)
    with torch.no_grad():
        [tree] = DraftedTree(drafter, depth=4, least=0.999).propose([sequence], torch.randn(1, 64))
    assert len(tree.tokens) == 4 and set(tree.parents) == {-1}
    with pytest.raises(CourseError, match="at most 128 guesses"):
        DraftedTree(drafter, depth=12)
    for wrong in (dict(depth=0), dict(beam=0), dict(width=0), dict(least=1.0)):
        with pytest.raises(CourseError, match="depth, beam and width"):
            DraftedTree(drafter, **wrong)


def test_answers_are_those_of_plain_decoding():
    model = tiny().float()
    truth = greedy(model, PROMPT, 20)
    assert emitted(steps(model, PROMPT, max_new_tokens=20, proposer=DraftedTree(drafter_for(model)))) == truth
