"""Which way of using several devices is said to be the better one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.parallel.layouts import Device, Served, costs, largest, layouts
from helpers.parallel.links import Link

NVLINK, NETWORK = Link(1e-6, 4e11), Link(5e-6, 5e10)
DEVICE = Device(80e9, 3e12, 1e15, 8, NVLINK, NETWORK)
SMALL = Served(8e9, 32, 4096, 32, 8, 2, 131_072)
LARGE = Served(70e9, 80, 8192, 64, 8, 2, 327_680)


def by_way(model, devices, context=1000, longest=0.05):
    return {one.way: one for one in layouts(model, DEVICE, devices, context, longest)}


def test_one_device_is_the_same_in_all_ways():
    found = layouts(SMALL, DEVICE, 1, 1000, 0.05)
    assert len({(one.alone, one.users, one.seconds) for one in found}) == 1
    assert found[0].alone == pytest.approx((16e9 + 1000 * 131_072) / 3e12)
    assert found[0].users == int((80e9 - 16e9) / (1000 * 131_072))  # the memory is the bound


def test_a_large_model_fits_when_it_is_cut():
    assert all(one.users == 0 and one.tokens_per_second == 0 for one in layouts(LARGE, DEVICE, 1, 1000, 0.05))
    eight = by_way(LARGE, 8)
    assert eight["replicas"].users == 0 and eight["tensor"].users > 0
    assert eight["tensor"].alone < eight["pipeline"].alone  # all memories are read at once


def test_more_users_fit_where_patience_is_longer_and_all_of_them_wait_no_longer():
    few, many = (by_way(SMALL, 8, longest=seconds) for seconds in (0.008, 0.02))
    for way in few:
        assert 0 < few[way].users < many[way].users and few[way].seconds <= 0.008 < many[way].seconds <= 0.02


def test_a_user_alone_is_served_faster_by_a_cut_and_many_by_replicas():
    found = by_way(SMALL, 8, context=200, longest=0.05)
    assert found["tensor"].alone < found["replicas"].alone
    assert found["tensor"].tokens_per_second < found["replicas"].tokens_per_second


def test_between_nodes_a_cut_waits_for_the_network():
    wide = by_way(LARGE, 64)
    assert wide["tensor"].alone > wide["tensor in a node"].alone
    assert wide["tensor in a node"].tokens_per_second == pytest.approx(8 * by_way(LARGE, 8)["tensor"].tokens_per_second)
    assert DEVICE.link(8) is NVLINK and DEVICE.link(9) is NETWORK


def test_more_ranks_than_key_value_heads_hold_copies_of_them():
    assert LARGE.held(10, 1000, 64) == pytest.approx(140e9 / 64 + 10 * 1000 * 327_680 / 8)
    (copies, cost) = costs(LARGE, DEVICE, 64, 1000)["tensor in a node"]
    assert copies == 8 and cost(10)[1] == LARGE.held(10, 1000, 8)


def test_there_are_no_more_ranks_than_heads():
    assert "tensor" in by_way(SMALL, 32) and "tensor" not in by_way(SMALL, 64)
    assert {"replicas", "tensor in a node", "pipeline"} == set(by_way(SMALL, 64))


@given(st.integers(0, 10_000))
def test_the_largest_number_that_is_good_is_found(bound):
    assert largest(lambda number: number <= bound) == bound
