"""Shapes have their published size, and their random weights are made in their own dtype."""

import pytest
import torch

from helpers.errors import CourseError
from helpers.models import shapes
from helpers.models.shapes import SHAPES, shape_only

PUBLISHED = {
    "llama-1b": 1_235_814_400,
    "tinyllama-1.1b": 1_100_048_384,
    "llama-7b": 6_738_415_616,
    "llama-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "qwen2-0.5b": 494_032_768,
}


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "llama-tiny"])  # which promises no size
def test_shapes_have_the_published_size(name):
    model = shape_only(name, "bfloat16", device="meta")
    count = sum(p.numel() for p in model.parameters())
    if name in PUBLISHED:
        assert count == PUBLISHED[name]
    else:
        assert count == pytest.approx(float(name.removeprefix("llama-").removesuffix("m")) * 1e6, rel=0.06)


def test_random_weights_are_made_in_their_own_dtype_and_depend_on_the_seed(monkeypatch):
    monkeypatch.setitem(SHAPES, "tiny", shapes._llama(32, 64, 2, 4, 2, vocab_size=50))
    one, same, other = (shape_only("tiny", "bfloat16", seed=s) for s in (1, 1, 2))
    assert {p.dtype for p in one.parameters()} == {torch.bfloat16}
    assert torch.equal(one.lm_head.weight, same.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    with pytest.raises(CourseError, match="llama-300m"):
        shape_only("llama-300")


def test_no_tensor_of_a_shape_is_ever_wider_than_asked(monkeypatch):
    """Watches every tensor that is made on the way: none of a weight's size is float32."""
    from torch.utils._python_dispatch import TorchDispatchMode

    wide = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **kwargs or {})
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.numel() >= 32 * 32:
                wide.append(function)
            return out

    monkeypatch.setitem(SHAPES, "tiny", shapes._llama(32, 64, 2, 4, 2, vocab_size=50))
    with Watch():
        shape_only("tiny", "bfloat16")
    assert not wide
    with Watch():
        shape_only("tiny", "float32")
    assert wide
