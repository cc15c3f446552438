"""What the machine can do comes out in its order of magnitude, a linear layer for each arm and number of tokens."""

import pytest
import torch
from torch import nn

from helpers.measuring import probes


def test_the_bandwidth_is_of_the_middle_reading():
    memory = probes.Memory(megabytes=1)
    for _ in range(3):
        memory.read()
    assert len(memory.seconds) == 3 and min(memory.seconds) > 0 and memory.numbers.nbytes == 2**20
    memory.seconds = [1.0, 2.0, 8.0]
    assert memory.bandwidth == 2**19


def test_the_machine_s_limits_are_positive_and_of_their_order():
    assert 1e8 < probes.bandwidth(megabytes=16, repeats=3) < 1e13
    assert 1e8 < probes.matmul_rate(size=128, repeats=3) < 1e15


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no packed kernel in this build of torch")
def test_a_packed_product_is_the_product_and_is_left_out_where_there_is_none():
    x, weight = torch.randn(3, 64), torch.randn(32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(probes._packed_product(x, weight)["packed"](), x @ weight.T)
    assert probes._packed_product(x.double(), weight.double()) == {}


def test_the_fastest_way_counts(monkeypatch):
    monkeypatch.setattr(probes, "take_turns", lambda ways, *_, **__: {"slow": [3.0, 3.0, 9.0], "fast": [2.0, 1.0, 8.0]})
    assert probes._fastest({}, 3, "cpu") == 2.0


class Recording(nn.Linear):
    """Notes the tokens of each call."""

    def __init__(self, calls, dtype=torch.float32):
        super().__init__(4, 3, dtype=dtype)
        self.calls = calls

    def forward(self, x):
        self.calls.append((x.dtype, len(x)))
        return super().forward(x)


def test_each_arm_s_layers_are_called_with_each_number_of_tokens_in_turns():
    calls = []
    arms = {"full": [Recording(calls) for _ in range(2)], "half": [Recording(calls, torch.bfloat16)]}
    seconds = probes.layer_seconds(arms, (1, 5), rounds=3)
    assert {name: list(of_arm) for name, of_arm in seconds.items()} == {"full": [1, 5], "half": [1, 5]}
    assert all(value > 0 for of_arm in seconds.values() for value in of_arm.values())
    one_round = [(torch.float32, 1)] * 2 + [(torch.bfloat16, 1)] + [(torch.float32, 5)] * 2 + [(torch.bfloat16, 5)]
    assert calls == [*one_round, *reversed(one_round)] * 2  # the warm-up and three rounds


def test_seconds_are_those_of_one_layer(monkeypatch):
    monkeypatch.setattr(probes, "take_turns", lambda arms, *_, **__: {arm: [6.0, 8.0, 70.0] for arm in arms})
    four = [nn.Linear(4, 3) for _ in range(4)]
    assert probes.layer_seconds({"it": four}, (1,)) == {"it": {1: 2.0}}  # the median of four layers, over four
