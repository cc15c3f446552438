"""One tree of several guessers: it changes no token, holds the nodes that pay, and is replayed as it is decoded."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.generate import steps
from helpers.decoding.proposals import NOTHING, Proposal, chain
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.speculation.guessers import KnownSuffix, PromptTree, guesser
from helpers.speculation.medusa_confidence import ConfidentMedusa
from helpers.speculation.node_chances import Labelled, Position, count_chances, labels_of, rank_paths, right_nodes
from helpers.speculation.plan import Costs, Plan, make_plan
from helpers.speculation.recycling import TokenRecycling, fixed_tree
from helpers.speculation.replay import KnownAnswer, ReplayedStep, chosen, mean_emitted, record, replay
from helpers.speculation.worthwhile import Node, NodeChoice, WorthwhileTree, as_proposal, nodes_of, worthwhile
from tests.speculation.test_medusa import PROMPT, emitted, heads_for
from tests.speculation.test_reduced_heads import TOKEN_IDS, reduced_from
from tests.tiny_models import greedy

CHEAP = NodeChoice({}, lambda n: 1.0 + 0.01 * n, 1.0, most=40)


def test_a_kind_is_counted_where_all_before_it_was_right():
    tree = Proposal([7, 9, 8], [-1, -1, 0], ["head"] * 3)
    assert rank_paths(tree.parents) == [(0,), (1,), (0, 0)] == labels_of(tree)
    assert right_nodes(tree, [7, 8]) == [0, 2] and right_nodes(tree, [9, 8]) == [1] and right_nodes(tree, [7]) == [0]
    positions = [Position([tree], [7, 8]), Position([tree], [9, 8]), Position([tree, chain([9], "x")], [5])]
    chances = count_chances(positions, caution=0)
    assert chances == {(0, (0,)): 1 / 3, (0, (1,)): 1 / 3, (0, (0, 0)): 1 / 3, (1, (0,)): 0}
    assert count_chances(positions)[0, (0,)] == 1 / 7  # a kind seen three times is not trusted yet


def test_a_label_of_its_own_goes_before_the_rank():
    assert labels_of(Labelled([7], [-1], ["lookup"], labels=[(3, 1)])) == [(3, 1)]


def test_what_several_guessed_is_there_once_and_likelier_and_no_child_above_its_parent():
    first, second = Proposal([7, 8], [-1, 0], ["a"] * 2), chain([7, 9], "b")
    chances = {(0, (0,)): 0.5, (0, (0, 0)): 0.4, (1, (0,)): 0.5, (1, (0, 0)): 0.9}
    assert nodes_of([first, second], chances) == [
        Node(7, -1, "a", 0.75),
        Node(8, 0, "a", pytest.approx(0.4)),
        Node(9, 0, "b", 0.75),  # 0.9, if it were not behind a node of 0.75
    ]


chance = st.integers(0, 20).map(lambda n: n / 20)
costs = st.lists(st.integers(0, 30).map(lambda n: n / 10), min_size=1, max_size=7).map(lambda more: [0.0, *more])


@st.composite
def trees(draw):
    nodes = []
    for i in range(draw(st.integers(0, 6))):
        parent = draw(st.integers(-1, i - 1))
        before = nodes[parent].chance if parent >= 0 else 1.0
        nodes.append(Node(i, parent, "x", min(before, draw(chance))))
    return nodes


def gain(nodes, places, more, worth):
    return sum(nodes[i].chance for i in places) * worth - more[len(places)]


@settings(deadline=None)
@given(trees(), costs, st.sampled_from([0.5, 1.0, 3.0]))
def test_no_other_tree_gains_more(nodes, more, worth):
    best = worthwhile(nodes, more, worth)
    assert all(nodes[i].parent in (-1, *best[:at]) for at, i in enumerate(best))  # never without its parent
    whole = [
        [i for i, taken in enumerate(picked) if taken]
        for picked in product((False, True), repeat=len(nodes))
        if sum(picked) < len(more) and all(p < 0 or picked[p] for p, t in zip([n.parent for n in nodes], picked) if t)
    ]
    assert gain(nodes, best, more, worth) == pytest.approx(max(gain(nodes, some, more, worth) for some in whole))


def test_a_mistake_in_what_a_node_costs_would_be_seen():
    """The same sizes without the dip in the cost, as if each further token cost the same."""
    nodes = [Node(i, -1, "x", 0.3) for i in range(3)]
    assert worthwhile(nodes, [0.0, 0.5, 0.8, 0.6], 1.0) == [0, 1, 2]
    assert worthwhile(nodes, [0.0, 0.5, 0.8, 1.2], 1.0) == []


def test_the_likeliest_path_stands_in_one_piece():
    nodes = [Node(1, -1, "a", 0.9), Node(2, -1, "b", 0.3), Node(3, 0, "a", 0.8), Node(4, 1, "b", 0.2)]
    proposal = as_proposal(nodes, [0, 2, 1, 3])
    assert (proposal.tokens, proposal.parents) == ([1, 3, 2, 4], [-1, 0, -1, 2])
    assert as_proposal(nodes, []) is NOTHING


def makers(model, heads):
    known = [greedy(model, PROMPT[::-1], 30)]
    return [
        lambda: ConfidentMedusa(heads, 12, 4),
        PromptTree,
        lambda: KnownSuffix(known),
        lambda: TokenRecycling(fixed_tree(8)),
    ]


def fair(model, heads):
    """Guessers, and a choice that believes all of them."""
    guessers = [make() for make in makers(model, heads)]

    class Believing(NodeChoice):
        def tree(self, proposals):
            labels = {(g, label) for g, p in enumerate(proposals) for label in labels_of(p)}
            self.chances = dict.fromkeys(labels, 0.5)
            return super().tree(proposals)

    return WorthwhileTree(guessers, Believing({}, lambda n: 1.0 + 0.01 * n, 1.0, most=40))


@pytest.mark.parametrize("reduced", [False, True])
def test_not_one_token_changes(model, reduced):
    heads = heads_for(model)
    if reduced:
        heads = reduced_from(heads, model.get_output_embeddings().weight, TOKEN_IDS)
    proposer = fair(model, heads)
    for prompt in (PROMPT, PROMPT[::-1], PROMPT):  # the third time the guessers know it
        done = list(steps(model, prompt, max_new_tokens=30, proposer=proposer))
        assert emitted(done) == greedy(model, prompt, 30)
    assert max(len(step.proposal.tokens) for step in done) > 12 and len(done) < 30


def known_answer(model, prompt=PROMPT, count=30):
    tokens = greedy(model, prompt, count)
    states = model(torch.tensor([prompt + tokens]), output_hidden_states=True).hidden_states[-1][0]
    return KnownAnswer(prompt, tokens, states[len(prompt) - 1 : -1])


@torch.inference_mode()
def test_a_replay_is_what_decoding_does(model):
    answer, heads = known_answer(model), heads_for(model)
    guessers = [ConfidentMedusa(heads, 12, 4), PromptTree(), KnownSuffix([answer.tokens[3:]])]
    recorded = record(guessers, [answer])
    chances = count_chances(recorded[0], caution=0)
    choice = NodeChoice(chances, lambda n: 1.0 + 0.03 * n, 1.0, most=40)
    done = list(steps(model, PROMPT, max_new_tokens=30, proposer=WorthwhileTree(guessers, choice)))
    [replayed] = replay(recorded, choice.tree)
    assert [step.emitted for step in replayed] == [len(step.emitted) for step in done[1:]]
    half = len(replayed) // 2  # towards an answer's end there is room for fewer guesses than were made
    assert [step.guesses for step in replayed][:half] == [len(step.proposal.tokens) for step in done[1:]][:half]
    assert max(step.emitted for step in replayed) > 2


@torch.inference_mode()
def test_a_guesser_that_learns_from_logits_gets_them_in_a_record(model):
    answer, lm_head = known_answer(model), model.get_output_embeddings()
    [without] = record([TokenRecycling(fixed_tree(8))], [answer])
    [positions] = record([TokenRecycling(fixed_tree(8))], [answer, answer], logits_of=lm_head)[1:]
    assert all(position.proposals == [NOTHING] for position in without)
    right = [right_nodes(position.proposals[0], position.following) for position in positions]
    assert sum(map(bool, right)) > len(right) / 2  # it has seen these very tokens


def test_a_chosen_record_keeps_the_guessers_asked_for():
    one = Position([chain([1], "a"), chain([2], "b"), chain([3], "c")], [2])
    [[left]] = chosen([[one]], [2, 1])
    assert [p.tokens[0] for p in left.proposals] == [3, 2] and left.following == [2]


def test_sure_heads_take_the_likeliest_nodes_first(model):
    heads, hidden = heads_for(model), torch.randn(1, 64, dtype=torch.float64)
    ids, log_probs = heads.most_likely(hidden, 3)
    assert ids.equal(heads.best(hidden, 3))
    torch.testing.assert_close(log_probs[2], heads(hidden)[2].log_softmax(-1).topk(3).values)
    [proposal] = ConfidentMedusa(heads, 10, 3).propose([Sequence([1])], hidden)
    losses = []
    for token, parent, name in zip(proposal.tokens, proposal.parents, proposal.proposers):
        depth = int(name.split()[1]) - 1
        place = ids[depth, 0].tolist().index(token)
        losses.append((losses[parent] if parent >= 0 else 0.0) - log_probs[depth, 0, place].item())
    assert losses == sorted(losses) and len(proposal.tokens) == 10
    assert [label[0] for label in proposal.labels] == [int(name.split()[1]) for name in proposal.proposers]
    reduced = reduced_from(heads, model.get_output_embeddings().weight, TOKEN_IDS)
    ids, log_probs = reduced.most_likely(hidden, len(TOKEN_IDS))
    assert ids.equal(reduced.best(hidden, len(TOKEN_IDS)))
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(5, 1, dtype=torch.float64))


def test_copies_carry_how_many_tokens_matched():
    proposal = PromptTree(count=2, longest=2).guess([1, 2, 8, 7, 2, 9, 1, 2])
    assert (proposal.tokens, proposal.parents) == ([8, 7, 9, 1], [-1, 0, -1, 2])
    assert list(proposal.labels) == [(2, 1), (2, 2), (1, 1), (1, 2)]
    assert PromptTree().guess([1, 2, 3]) is NOTHING


def test_what_a_suffix_match_knows_does_not_grow_with_what_is_asked():
    """Programs that take turns ask a prompt twice: a guesser that learned would know the answer by heart."""
    proposer, sequence = KnownSuffix([[5, 6, 7]]), Sequence([1, 5])
    [proposal] = proposer.propose([sequence])
    assert proposal.tokens == [6, 7] and proposal.labels == [(1, 1), (1, 2)]
    sequence.known = [1, 5, 80, 81, 82]
    proposer.propose([sequence])
    proposer.release(sequence)
    [again] = proposer.propose([Sequence([3, 80])])
    assert not again.tokens


COSTS = Costs(5.0, {1: 1.0, 2: 1.1, 4: 1.2, 9: 2.0})


def test_requests_are_priced_by_prefill_steps_and_asking():
    answers = [[ReplayedStep(3, 2), ReplayedStep(1, 1)], [ReplayedStep(0, 4)]]
    assert COSTS.decode(answers[0], asking=0.5) == pytest.approx(1.2 + 1.1 + 1.0)
    assert COSTS.speedup(answers, 0.5) == pytest.approx((2 * 5 + 7) / (2 * 5 + 3.3 + 1.5))
    assert mean_emitted(answers) == pytest.approx(7 / 3)


def positions(rng_tokens):
    return [Position([chain([t, t], "x")], [t, t, 9][:2]) for t in rng_tokens]


def test_the_price_of_a_token_agrees_with_the_tree_made_for_it():
    recorded = [positions([1, 2, 3, 4, 5, 6])] * 3
    plan = make_plan(["lookup"], recorded, recorded, COSTS, asking=0.1)
    steps_of = replay(recorded, plan.tree([PromptTree()]).choice.tree)
    every = [step for answer in steps_of for step in answer]
    spent = COSTS.decode(every, 0.1) / sum(step.emitted for step in every)
    assert plan.token_seconds == pytest.approx(spent)
    assert plan.tokens_per_step == mean_emitted(steps_of) == 3 and plan.guesses_per_step == 2
    assert plan.speedup == pytest.approx(COSTS.speedup(steps_of, 0.1))


def test_a_plan_comes_back_from_its_file(tmp_path):
    recorded = [positions([1, 2, 3])]
    plan = make_plan(["lookup", "heads"], recorded, recorded, COSTS, 0.0)
    assert Plan.load(plan.save(tmp_path / "plan.json")) == plan
    with pytest.raises(CourseError, match="one guesser for each"):
        plan.tree([PromptTree()])
    (tmp_path / "bad.json").write_text('{"chances": 3}')
    for name in ("bad.json", "none.json"):
        with pytest.raises(CourseError, match="no plan of a tree to read"):
            Plan.load(tmp_path / name)


def test_no_tree_is_larger_than_the_steps_that_were_measured():
    nothing = [[Position([chain(range(20), "x")], list(range(20)))]]
    plan = make_plan(["lookup"], nothing, nothing, Costs(0.0, {1: 1.0, 4: 1.0}), 0.0)
    assert plan.guesses_per_step <= 3


def test_answers_of_one_token_need_no_plan():
    plan = make_plan(["lookup"], [[]], [[]], COSTS, 0.0)
    assert (plan.speedup, plan.tokens_per_step, plan.token_seconds) == (1.0, 0.0, 1.0)


def test_wrong_guessers_and_sizes_are_refused(model):
    for make in (lambda: guesser("heads"), lambda: guesser("nobody"), lambda: NodeChoice({}, float, 1.0, most=0)):
        with pytest.raises(CourseError):
            make()
    for make in (lambda: PromptTree(0), lambda: ConfidentMedusa(heads_for(model), 0)):
        with pytest.raises(CourseError):
            make()
