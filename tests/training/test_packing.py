"""Examples share rows, and what their prompts begin with: each is there once, and sharing changes nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.training.completions import IGNORED, Encoded
from helpers.training.packing import Tree, _logits, collate, pack, separates_branches, tree_of, trees_of
from tests.tiny_models import tiny


def example(prompt: list[int], answer: list[int]) -> Encoded:
    return Encoded(prompt + answer, [IGNORED] * len(prompt) + answer)


GROUP = [example([5, 9, 2, 30], [7, 1]), example([5, 9, 41], [8, 8, 1]), example([5, 9, 2, 6, 3], [1])]


@given(st.lists(st.lists(st.integers(3, 12), min_size=1, max_size=6), min_size=1, max_size=12))
def test_every_example_is_packed_once_and_no_row_is_too_long(lengths):
    # Equal prompts, too.
    groups = [[example([g, *range(50, 50 + n - 2)], [n]) for n in group] for g, group in enumerate(lengths)]
    rows = pack(trees_of(groups, 20), 20)
    packed = [e for row in rows for tree in row for e in tree.examples]
    assert sorted(map(str, packed)) == sorted(str(e) for group in groups for e in group)
    assert all(sum(map(len, row)) <= 20 for row in rows)


def test_an_example_that_is_too_long_is_refused():
    with pytest.raises(CourseError, match="1 examples are longer than 4 tokens"):
        pack(trees_of([[Encoded([1] * 5, [1] * 5)]], 4), 4)


def test_a_tree_shares_what_all_its_prompts_begin_with():
    tree = tree_of(GROUP)
    assert (tree.num_shared, len(tree)) == (2, 2 + 4 + 4 + 4)
    same = [example([5, 6], [7]), example([5, 6], [8])]
    assert tree_of(same).num_shared == 1  # the token before the answer is each one's own


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_examples_in_one_row_answer_as_each_does_alone(kind):
    model, other = tiny(kind), example([7, 7], [41])
    together = _logits(model, [[tree_of(GROUP), Tree((other,))]])[0]
    apart = [model(torch.tensor([e.ids]), use_cache=False).logits[0] for e in (*GROUP, other)]
    expected = torch.cat([apart[0], apart[1][2:], apart[2][2:], apart[3]])
    torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("name", ["attention_mask", "position_ids"])
def test_a_wrong_mask_or_wrong_positions_would_be_seen(name):
    model, batch = tiny("llama"), collate([[tree_of(GROUP)]], 0)
    batch.pop("labels")
    right = model(**batch, use_cache=False).logits
    n = batch["input_ids"].shape[1]
    plain = {
        "attention_mask": torch.ones(n, n, dtype=torch.bool).tril()[None, None],
        "position_ids": torch.arange(n)[None],
    }
    wrong = model(**batch | {name: plain[name]}, use_cache=False).logits
    assert not torch.allclose(wrong, right, atol=1e-3)


def test_a_label_is_the_next_token_of_the_same_branch():
    batch = collate([[tree_of(GROUP), Tree((Encoded([5, 6], [5, 6]),))]], 0)
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    assert ids == [5, 9, 2, 30, 7, 1, 41, 8, 8, 1, 2, 6, 3, 1, 5, 6]
    learned = {i for i, label in enumerate(labels) if label != IGNORED}
    assert learned == {4, 5, 7, 8, 9, 13, 15} and all(labels[i] == ids[i] for i in learned)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "falcon"])
def test_models_that_take_the_mask_are_known(kind):
    assert separates_branches(tiny(kind).float())


def test_a_model_that_forgets_the_mask_is_known(monkeypatch):
    model = tiny("llama").float()
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda attention_mask, position_ids, **inputs: forward(**inputs))
    assert not separates_branches(model)
