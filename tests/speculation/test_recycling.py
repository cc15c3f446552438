"""Token Recycling: the table holds what the model gave, the tree follows it, and no token changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.decoding.proposals import NOTHING
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation import recycling
from helpers.speculation.combine import FirstOf, Relay, Together
from helpers.speculation.ngram import PromptLookup
from helpers.speculation.recycling import DEEPEST, TOP, TokenRecycling, fixed_tree, grown
from helpers.speculation.top_tokens import top_tokens
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny

PROMPT = [5, 9, 2, 44]


def emitted(done):
    return [token for step in done for token in step.emitted]


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_changes_in_float32_and_a_second_answer_takes_fewer_steps(kind):
    model = tiny(kind).float()
    truth, proposer = greedy(model, PROMPT, 30), TokenRecycling()
    first = list(steps(model, PROMPT, max_new_tokens=30, proposer=proposer))
    again = list(steps(model, PROMPT, max_new_tokens=30, proposer=proposer))
    assert emitted(first) == emitted(again) == truth
    assert len(again) < 30  # what the model gave before is what it gives now, within the tree


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=10), st.integers(1, 40))
def test_any_prompt_and_any_tree_leave_the_tokens_as_they_are(model, prompt, size):
    proposer = TokenRecycling(fixed_tree(size))
    for ids in (prompt, prompt[::-1]):
        assert emitted(steps(model, ids, max_new_tokens=16, proposer=proposer)) == greedy(model, ids, 16)


def test_the_table_holds_what_the_model_gave_each_token_that_it_read(model):
    """A row for the token after which it was computed: one place further, and every guess would be of the wrong one."""
    proposer = TokenRecycling()
    done = list(steps(model, PROMPT, max_new_tokens=4, proposer=proposer))
    text = [*PROMPT, *emitted(done)]
    for place in range(len(PROMPT) - 1, len(text) - 2):  # the last step is not learned: nothing comes after it
        with torch.inference_mode():
            best = model(torch.tensor([text[: place + 1]])).logits[0, -1].topk(TOP).indices.tolist()
        if text[place] not in text[place + 1 : -2]:  # the last time counts
            assert proposer.successors[text[place]][0] == best[0] == text[place + 1]


def test_a_table_that_is_off_by_one_is_caught(model, monkeypatch):
    """It changes no answer, but it saves no step any more."""
    own = TokenRecycling._learn

    def shifted(self, one):
        one.read = one.read[1:] + one.read[:1]
        own(self, one)

    def second_time():
        proposer = TokenRecycling()
        return [list(steps(model, PROMPT, max_new_tokens=30, proposer=proposer)) for _ in range(2)][1]

    truth, right = greedy(model, PROMPT, 30), len(second_time())
    monkeypatch.setattr(TokenRecycling, "_learn", shifted)
    wrong = second_time()
    assert emitted(wrong) == truth and len(wrong) > right


def test_a_tree_grows_as_far_as_the_table_goes():
    table = {1: [2, 3], 2: [4, 5], 3: [6]}
    tree = fixed_tree(12)
    tokens, parents = grown(1, table, tree)
    ways = []
    for token, parent in zip(tokens, parents):
        ways.append([*(ways[parent] if parent >= 0 else []), token])
    assert ways[0] == [2] and [2, 4] in ways and [2, 5] in ways and [3] in ways and [3, 6] in ways
    assert grown(9, table, tree) == ([], []) and TokenRecycling().guess(9) == NOTHING


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9), unique=True, max_size=TOP)),
    st.integers(0, 9),
    st.integers(1, 60),
)
def test_every_guess_is_a_successor_of_its_parent_and_stands_once(table, token, size):
    tokens, parents = grown(token, table, fixed_tree(size))
    assert len(tokens) <= size and len(set(zip(tokens, parents))) == len(tokens)
    for guess, parent in zip(tokens, parents):
        assert guess in table[token if parent < 0 else tokens[parent]]


@settings(deadline=None)
@given(st.integers(1, 200))
def test_the_shape_has_its_size_its_parents_and_the_best_path_first(size):
    tree = fixed_tree(size)
    assert len(set(tree)) == len(tree) == size and all(path[:-1] in ((), *tree) for path in tree)
    assert tree == sorted(tree) and set(fixed_tree(max(1, size - 1))) <= set(tree)
    assert max(map(len, tree)) <= DEEPEST and max(rank for path in tree for rank in path) < TOP


@settings(deadline=None)
@given(st.integers(1, 4), st.sampled_from([97, 128, 1280, 1281, 2560]), st.integers(1, 8), st.integers(0, 99))
def test_top_tokens_are_those_of_topk(rows, vocabulary, k, seed):
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))
    assert top_tokens(logits, k).tolist() == logits.topk(k).indices.tolist()


def test_top_tokens_that_look_into_too_few_blocks_are_caught(monkeypatch):
    logits = torch.zeros(1, 2560)
    logits[0, 1280:1288] = torch.arange(8.0) + 1  # all of them in one block
    logits[0, 5] = 0.5
    assert top_tokens(logits, 8).tolist() == logits.topk(8).indices.tolist()
    best_of_each_block = logits.view(1, -1, 128).argmax(-1) + torch.arange(20) * 128  # the likely mistake
    assert best_of_each_block[0, logits.view(1, -1, 128).amax(-1).topk(8).indices[0]].tolist() != (
        logits.topk(8).indices[0].tolist()
    )


def test_sequences_share_the_table_and_release_forgets_what_belongs_to_one(model):
    proposer = TokenRecycling()
    list(steps(model, PROMPT, max_new_tokens=10, proposer=proposer))
    assert proposer.successors and not proposer.learned
    one, other = Sequence(PROMPT), Sequence([7, 1])
    one.read, one.logits = [44], torch.eye(VOCABULARY)[12:13]
    first, _ = proposer.propose([one, other])
    assert first.tokens[0] == 12 and proposer.successors[44][0] == 12 and set(proposer.learned) == {one.id}
    proposer.release(other)
    proposer.release(one)
    assert not proposer.learned and proposer.successors[44][0] == 12


def test_the_logits_of_a_step_are_learned_once(model, monkeypatch):
    calls = []
    monkeypatch.setattr(recycling, "top_tokens", lambda logits, k: calls.append(1) or top_tokens(logits, k))
    sequence, proposer = Sequence(PROMPT), TokenRecycling()
    sequence.read, sequence.logits = [44], torch.eye(VOCABULARY)[12:13]
    proposer.propose([sequence])
    proposer.propose([sequence.ahead([3])])  # as a relay asks
    assert len(calls) == 1


def test_it_goes_into_one_tree_and_into_a_relay_with_others(model):
    truth = greedy(model, PROMPT, 24)
    for way in (Together, FirstOf, Relay):
        proposer = way(PromptLookup(), TokenRecycling(fixed_tree(6)))
        assert emitted(steps(model, PROMPT, max_new_tokens=24, proposer=proposer)) == truth


@pytest.mark.parametrize("tree", [[], [()], [(0, 0)], [(0,), (1, 0)]])
def test_a_tree_without_its_parents_is_refused(tree):
    with pytest.raises(CourseError, match="fixed_tree"):
        TokenRecycling(tree)


def test_an_empty_shape_is_refused():
    with pytest.raises(CourseError, match="size >= 1"):
        fixed_tree(0)
