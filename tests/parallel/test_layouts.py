"""Which way of using several devices is said to be the better one."""

from dataclasses import replace

import pytest

from helpers.parallel.layouts import Device, Served, best_layout, layouts
from helpers.parallel.links import Link

NVLINK, NETWORK = Link(1e-6, 4e11), Link(5e-6, 5e10)
DEVICE = Device(80e9, 3e12, 1e15, 8, NVLINK, NETWORK)
SMALL = Served(8e9, 32, 4096, 2, 131_072)
LARGE = Served(70e9, 80, 8192, 2, 327_680)


def by_way(*args):
    return {one.way: one for one in layouts(*args)}


def test_one_device_is_the_same_in_all_ways():
    found = layouts(SMALL, DEVICE, 1, 8, 1000)
    assert len({(one.seconds, one.tokens_per_second, one.fits) for one in found}) == 1
    assert found[0].seconds == pytest.approx((16e9 + 8 * 1000 * 131_072) / 3e12)


def test_a_small_model_is_copied_and_a_large_one_is_cut():
    small = by_way(SMALL, DEVICE, 8, 64, 1000)
    assert small["replicas"].fits and small["tensor"].seconds < small["replicas"].seconds  # a user's token comes sooner
    large = by_way(LARGE, DEVICE, 8, 64, 1000)
    assert not large["replicas"].fits and large["tensor"].fits
    assert best_layout(list(large.values())).way == "tensor" and large["tensor in a node"] == replace(
        large["tensor"], way="tensor in a node"
    )


def test_with_users_enough_to_compute_replicas_serve_more_and_with_few_of_them_a_cut_does():
    many, few = (by_way(SMALL, DEVICE, 8, 8 * users, 200) for users in (1024, 8))
    assert many["replicas"].tokens_per_second > many["tensor"].tokens_per_second
    assert few["replicas"].tokens_per_second < few["tensor"].tokens_per_second


def test_between_nodes_a_pipeline_sends_less():
    wide = by_way(LARGE, DEVICE, 64, 512, 1000)
    assert wide["pipeline"].seconds < wide["tensor"].seconds
    assert best_layout(list(wide.values())).way == "tensor in a node"  # replicas of nodes
    assert best_layout(list(wide.values()), longest=1e-9) is None


def test_the_link_of_a_node_ends_with_it():
    assert DEVICE.link(8) is NVLINK and DEVICE.link(9) is NETWORK
