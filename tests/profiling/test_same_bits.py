"""A text's last logits are compared bit by bit between the ways to read it, and a difference is seen."""

from dataclasses import replace

import pytest

from helpers.decoding.forward import Forward
from helpers.kernels.native import library
from helpers.kernels.native.native_llama import NativeLlama
from helpers.profiling.same_bits import ALL_AT_ONCE, AS_GUESSES, IN_A_BATCH, against_one_by_one
from tests.tiny_models import tiny

TEXTS = [[5, 9, 33, 2, 71], [8, 4, 40]]
needs_cpp = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))


@needs_cpp
def test_the_step_in_cpp_has_the_same_bits_however_a_text_is_read():
    found = against_one_by_one(NativeLlama(tiny().float()), TEXTS)
    assert list(found) == [ALL_AT_ONCE, AS_GUESSES, IN_A_BATCH]
    every = [each for differences in found.values() for each in differences]
    assert len(every) == 6 and all((d.numbers, d.of, d.largest) == (0, 97, 0.0) for d in every)


@needs_cpp
def test_one_other_bit_is_counted(monkeypatch):
    native = NativeLlama(tiny().float())
    read = native.read

    def depends(feeds, starts, cache):
        output = read(feeds, starts, cache)
        logits = output.logits.clone()
        logits[..., 7] += 1e-4 * (len(feeds[0]) > 1)
        return output._replace(logits=logits)

    monkeypatch.setattr(native, "read", depends)
    [first, second] = against_one_by_one(native, TEXTS)[ALL_AT_ONCE]
    assert first.numbers == second.numbers == 1 and 0 < first.largest < 2e-4


@pytest.mark.parametrize(
    ("seen", "touched"),
    [
        (lambda ids, mask: ids.shape[1] > 1, {ALL_AT_ONCE, AS_GUESSES, IN_A_BATCH}),
        (lambda ids, mask: mask is not None, {AS_GUESSES, IN_A_BATCH}),
        (lambda ids, mask: len(ids) > 1, {IN_A_BATCH}),
    ],
    ids=["several tokens", "a mask", "several sequences"],
)
def test_one_number_that_depends_on_what_is_read_with_a_token_is_seen(seen, touched, monkeypatch):
    model = tiny()
    forward = model.forward

    def depends(input_ids, attention_mask=None, **more):
        output = forward(input_ids=input_ids, attention_mask=attention_mask, **more)
        output.logits[..., 7] += 0.5 * seen(input_ids, attention_mask)
        return output

    Forward(model)  # what the model's kind can read is tried with its own forward
    monkeypatch.setattr(model, "forward", depends)
    found = against_one_by_one(model, TEXTS)
    assert {way for way, differences in found.items() if all(d.largest > 0.4 for d in differences)} == touched
    assert {way for way, differences in found.items() if all(d.largest < 1e-6 for d in differences)} == (
        found.keys() - touched
    )


def test_a_model_that_takes_no_masks_is_read_all_at_once_alone(monkeypatch):
    model = tiny()
    support = Forward(model).support
    monkeypatch.setattr("helpers.decoding.forward.support_of", lambda _: replace(support, guesses="no", batches="no"))
    assert list(against_one_by_one(model, TEXTS)) == [ALL_AT_ONCE]
