"""What tests ask ranks to do, mistakes among it."""

import os
import time
from dataclasses import replace
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn import functional as F

from helpers.parallel import rings, runs, tensor_parallel
from helpers.parallel.counted import Counted
from helpers.parallel.heads import HeadShard, shard_heads


def sleep(seconds):
    time.sleep(seconds)


def environment(name):
    return os.environ.get(name)


def complain(rank):
    if dist.get_rank() == rank:
        raise ValueError("no sense in it")
    dist.barrier()


def number_of_threads():
    return [torch.get_num_threads(), os.getpid()]


def without_the_sum(**asked):
    """As compare, but partial sums are taken for whole ones."""
    with mock.patch.object(tensor_parallel.RowParallel, "forward", lambda self, x: F.linear(x, self.weight)):
        return runs.compare(**asked)


def with_wrong_keys(**asked):
    """As compare, but every head reads the first key-value head of its rank."""

    def shards(*shape):
        return [replace(shard, kv_of_head=[0] * len(shard.heads)) for shard in shard_heads(*shape)]

    with mock.patch.object(tensor_parallel, "shard_heads", shards), mock.patch.object(HeadShard, "even", False):
        return runs.compare(**asked)


def without_the_mean(**asked):
    """As compare_training, but each rank trains for itself."""
    with mock.patch.object(runs, "shard_fully", lambda model: model):
        return runs.compare_training(**asked)


def what_is_counted():
    """Calls and bytes of one collective of each kind, of ten float32 numbers a rank."""
    n, x = dist.get_world_size(), torch.ones(10)
    with Counted() as counted:
        dist.all_reduce(x)
        dist.all_gather_single(torch.empty(10 * n), x)
        dist.reduce_scatter_single(torch.empty(5), x)
    return dict(calls=dict(counted.calls), bytes=dict(counted.bytes), total=counted.total)


def sum_of_seven():
    """Our all-reduce of 0, 1, ..., 6."""
    return rings.all_reduce(torch.arange(7.0), rings.Ring()).tolist()
