"""Examples share sequences: each stands in one once, none too long, and sharing changes nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.training.completions import IGNORED, Encoded
from helpers.training.packing import collate, pack, separates_examples
from tests.tiny_models import tiny


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_packing_keeps_every_example_once_and_no_sequence_is_too_long(lengths):
    examples = [Encoded(list(range(n)), [IGNORED] * n) for n in lengths]
    packed = pack(examples, 30)
    assert sorted(len(e.ids) for sequence in packed for e in sequence) == sorted(lengths)
    assert all(sum(len(e.ids) for e in sequence) <= 30 for sequence in packed)


def test_an_example_that_is_too_long_is_refused():
    with pytest.raises(CourseError, match="1 examples are longer than 4 tokens"):
        pack([Encoded([1] * 5, [1] * 5)], 4)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_examples_in_one_sequence_don_t_see_each_other(kind):
    model = tiny(kind)
    examples = [Encoded([5, 9, 2, 30], [IGNORED, 9, 2, 30]), Encoded([7, 7, 41], [IGNORED, 7, 41])]
    batch = collate([examples], pad=0)
    together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
    apart = [model(torch.tensor([e.ids]), use_cache=False).logits[0] for e in examples]
    torch.testing.assert_close(together, torch.cat(apart))
    positions = torch.arange(7)[None]  # the planted mistake: one text, as if they belonged together
    wrong = model(input_ids=batch["input_ids"], position_ids=positions, use_cache=False).logits[0]
    assert not torch.allclose(wrong[4:], torch.cat(apart)[4:])


def test_no_label_crosses_from_one_example_to_the_next():
    sequence = [Encoded([5, 6], [5, 6]), Encoded([7, 8], [7, 8])]
    assert collate([sequence], pad=0)["labels"].tolist() == [[IGNORED, 6, IGNORED, 8]]


@pytest.mark.parametrize(("kind", "separate"), [("llama", True), ("qwen2", True), ("falcon", False)])
def test_models_that_would_mix_examples_in_a_sequence_are_known(kind, separate):
    assert separates_examples(tiny(kind).float()) == separate
