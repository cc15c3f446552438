"""Linear layers are replaced everywhere, once, and nowhere else; what is stored keeps its dtype."""

import pytest
import torch
from torch import nn

from helpers.errors import CourseError
from helpers.weights.quantization.linear import Stored, replace_linears
from tests.tiny_models import tiny


class Halved(nn.Module):
    """Half of what a linear layer gives, to tell it from the original."""

    def __init__(self, linear):
        super().__init__()
        self.wrapped = [linear]  # in a list: no submodule, or it would be replaced in turn

    def forward(self, x):
        return self.wrapped[0](x) / 2


def test_all_layers_but_the_skipped_are_replaced():
    model = tiny()
    count = sum(isinstance(module, nn.Linear) for module in model.modules())
    head = model.get_output_embeddings()
    assert replace_linears(model, Halved, skip=[head]) == count - 1
    assert [module for module in model.modules() if isinstance(module, nn.Linear)] == [head]
    assert replace_linears(model, Halved) == 1 and model.get_output_embeddings() is not head


def test_a_layer_in_two_places_stays_one():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert replace_linears(model, Halved) == 1
    assert model[0] is model[2] and isinstance(model[0], Halved)


@pytest.mark.parametrize("weight", [torch.zeros(8, 1), torch.zeros(4, 4, dtype=torch.int8)])
def test_quantized_layers_stay_and_other_kinds_of_linear_go(weight):
    class Other(nn.Linear):
        """As bitsandbytes has it, and Falcon: an nn.Linear of its own kind."""

    quantized = Other(4, 4)
    quantized.weight = nn.Parameter(weight, requires_grad=False)
    model = nn.Sequential(quantized, Other(4, 4))
    assert replace_linears(model, Halved) == 1 and model[0] is quantized and isinstance(model[1], Halved)


@pytest.mark.parametrize("model", [nn.Sequential(nn.ReLU()), nn.Linear(2, 2)])
def test_nothing_to_replace_is_refused(model):
    with pytest.raises(CourseError, match=r"no nn\.Linear to replace"):
        replace_linears(model, Halved)


def test_stored_buffers_keep_their_dtype():
    class Bytes(Stored):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.ones(2))
            self.bias = nn.Parameter(torch.ones(2))

    module = Bytes().half()
    assert (module.scale.dtype, module.bias.dtype) == (torch.float32, torch.float16)
