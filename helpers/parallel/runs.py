"""What ranks are asked to do: each function runs in all of them, and returns what JSON can hold (notebook 06)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from helpers import models
from helpers.decoding.kv_cache import KVCache
from helpers.measuring.timing import take_turns
from helpers.models.first_layers import keep
from helpers.parallel import rings
from helpers.parallel.counted import Counted
from helpers.parallel.fsdp import Gathered, local_bytes, shard_fully, train
from helpers.parallel.library import parallelize_by_plan
from helpers.parallel.tensor_parallel import parallelize

WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "tensor_parallel": lambda model: parallelize(model, dist.get_rank(), dist.get_world_size()),
    "dtensor": parallelize_by_plan,
    "fsdp": shard_fully,
    "fsdp_pieces": lambda model: shard_fully(model, pieces=8),
}


def device() -> str:
    """Where this rank computes."""
    return f"cuda:{dist.get_rank()}" if dist.get_backend() == "nccl" else "cpu"


@dataclass(frozen=True)
class Which:
    """A model by name, or random weights of a named shape; its first layers, where not all are wanted."""

    name: str
    dtype: str = "float32"
    shape: bool = False
    layers: int | None = None

    def open(self, device: str = "cpu") -> nn.Module:
        """The model itself."""
        if self.shape:
            model = models.shape_only(self.name, self.dtype, device)
        else:
            model, _ = models.load(self.name, self.dtype, device)
        if self.layers is not None:
            keep(model, self.layers)
        return model


@torch.no_grad()
def greedy(model: nn.Module, tokens: Sequence[int], max_new_tokens: int) -> list[int]:
    """`plain_greedy` outside of inference mode, which FSDP's gathered parameters can't be left in."""
    cache, feed, written = KVCache.for_model(model, len(tokens) + max_new_tokens), list(tokens), []
    while len(written) < max_new_tokens:
        ids = torch.tensor([feed], device=device())
        logits = model(input_ids=ids, past_key_values=cache).logits
        feed = [int(logits[0, -1].argmax())]
        written += feed
    return written


@torch.no_grad()
def logits_of(model: nn.Module, tokens: Sequence[int]) -> torch.Tensor:
    """(n, vocabulary), float32."""
    return model(input_ids=torch.tensor([list(tokens)], device=device()), use_cache=False).logits[0].float()


def compare(way: str, which: dict, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> dict:
    """The model split in a way of WAYS against the whole one: the largest difference of any logit, how many answers
    are the same; bytes of parameters, of the whole model's, and of what is gathered at most; the calls and bytes of the
    collectives of a step that reads one token."""
    model = Which(**which).open(device())
    whole = sum(p.nbytes for p in model.parameters())
    exact = _of_first(lambda: [(logits_of(model, p), greedy(model, p, max_new_tokens)) for p in prompts])
    model = WAYS[way](model)
    gathered, off, same = Gathered(model), [], 0
    for prompt, (logits, answer) in zip(prompts, exact, strict=True):
        off.append((logits_of(model, prompt) - logits.to(device())).abs().max())
        same += greedy(model, prompt, max_new_tokens) == answer
    counted = _of_a_step(model, prompts[0])
    return dict(
        worst=_largest(off),
        same=same,
        of=len(prompts),
        local_bytes=local_bytes(model),
        gathered_bytes=gathered.peak,
        whole_bytes=whole,
        calls=dict(counted.calls),
        bytes=dict(counted.bytes),
    )


def time_ways(ways: Sequence[str], which: dict, context: int, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of steps that read one token after `context` tokens: of the whole model at the first rank, with all
    `threads` while the others wait, and cut in each of the ways. They take turns."""
    own, arms, first = torch.get_num_threads(), {}, dist.get_rank() == 0

    def step_of(model: nn.Module) -> Callable[[], object]:
        return _step(model, list(range(context)), KVCache.for_model(model, context + 1))

    for way in ways:
        arms[way] = step_of(WAYS[way](Which(**which).open(device())))
    of_whole = step_of(Which(**which).open(device())) if first else None

    def whole() -> None:
        if first:
            torch.set_num_threads(threads)
            of_whole()
            torch.set_num_threads(own)
        dist.barrier()

    arms["whole"] = whole
    return take_turns(arms, rounds, warmup=2, device=device(), before=lambda _: dist.barrier())


def compare_training(which: dict, batches: Sequence, learning_rate: float) -> dict:
    """FSDP against a process by itself, on the same batches: losses, the largest difference of any parameter after the
    last step, and the calls and bytes of all collectives."""
    batches = [torch.tensor(batch, device=device()) for batch in batches]
    alone = Which(**which).open(device()).train().requires_grad_(True)
    losses = train(alone, batches, learning_rate)
    model = shard_fully(Which(**which).open(device()).train().requires_grad_(True))
    with Counted() as counted:
        sharded = train(model, batches, learning_rate, dist.get_world_size())
    pairs = zip(model.parameters(), alone.parameters(), strict=True)
    worst = _largest([(_whole(p) - q).detach().abs().max() for p, q in pairs])
    return dict(alone=losses, sharded=sharded, worst=worst, calls=dict(counted.calls), bytes=dict(counted.bytes))


def hello() -> int:
    """A rank says who it is, and adds its 1, 10 or 100 to those of the others."""
    mine = torch.tensor(10 ** dist.get_rank(), device=device())
    dist.all_reduce(mine)
    own, count = os.getpid(), dist.get_world_size()
    print(f"process {own}, one of {count}: the sum is {int(mine)}")
    return int(mine)


def lose_one(rank: int) -> None:
    """One rank is killed while the others wait for it."""
    if dist.get_rank() == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def all_reduce_seconds(sizes: Sequence[int], repeats: int) -> dict[str, float]:
    """The median time of an all-reduce of so many bytes, by the size; the sizes take turns."""
    tensors = {size: torch.zeros(size // 4, device=device()) for size in sizes}
    arms = {size: (lambda x=x: dist.all_reduce(x)) for size, x in tensors.items()}
    times = take_turns(arms, repeats, warmup=3, device=device(), before=lambda _: dist.barrier())
    return {str(size): median(each) for size, each in times.items()}


def compare_rings(cases: int, seed: int, members: Sequence[int] | None = None) -> dict:
    """Our four collectives against PyTorch's, on random whole numbers, whose sums are exact: how many are equal, and
    what this rank sent for each, as a share of the whole data: what is reduced, gathered, scattered or exchanged."""
    everybody = list(range(dist.get_world_size()))
    chosen = everybody if members is None else list(members)
    group = dist.new_group(chosen, sort_ranks=False)
    same, of, shares = 0, 0, {}
    if dist.get_rank() not in chosen:
        return dict(same=same, of=of, shares=shares)
    ring, n = rings.Ring(chosen), len(chosen)
    draw = torch.Generator().manual_seed(seed + 1000 * dist.get_rank())
    lengths = torch.Generator().manual_seed(seed)  # the same at every rank
    for _ in range(cases):
        length = int(torch.randint(1, 50, (), generator=lengths))
        chunks = torch.randint(-99, 99, (n, length), generator=draw).float().to(device())
        for name, ours, theirs in _pairs(chunks, ring, group):
            before = ring.bytes_sent
            same += torch.equal(ours(), theirs)
            of += 1
            whole = n * chunks.nbytes if name == "all_gather" else chunks.nbytes
            shares[name] = (ring.bytes_sent - before) / whole
    return dict(same=same, of=of, shares=shares)


def exchange(groups: Sequence[Sequence[int]], numbers: int, repeats: int) -> dict:
    """An all-to-all of so many numbers a rank in each of the groups, all of them at once: bytes that this rank sends,
    and its median time."""
    chosen = next(list(group) for group in groups if dist.get_rank() in group)
    ring = rings.Ring(chosen)
    chunks = torch.zeros(len(chosen), numbers // len(chosen), device=device())
    rings.all_to_all(chunks, ring)
    sent = ring.bytes_sent
    times = take_turns({"": lambda: rings.all_to_all(chunks, ring)}, repeats, warmup=2)
    return dict(bytes=sent, seconds=median(times[""]))


def _pairs(chunks: torch.Tensor, ring: rings.Ring, group) -> list[tuple]:
    """(name, our way, PyTorch's result) of each collective."""
    n = ring.size
    summed = chunks.clone()
    dist.all_reduce(summed, group=group)
    gathered = chunks.new_empty(n * len(chunks), chunks.shape[1])
    dist.all_gather_single(gathered, chunks, group=group)
    every = [torch.empty_like(chunks) for _ in range(n)]
    dist.all_gather(every, chunks, group=group)
    exchanged = torch.stack([one[ring.place] for one in every])
    return [
        ("all_reduce", lambda: rings.all_reduce(chunks, ring), summed),
        ("all_gather", lambda: rings.all_gather(chunks, ring), gathered.view(n, *chunks.shape)),
        ("reduce_scatter", lambda: rings.reduce_scatter(chunks, ring), summed[ring.place]),
        ("all_to_all", lambda: rings.all_to_all(chunks, ring), exchanged),
    ]


def _largest(values: Sequence[torch.Tensor]) -> float:
    return torch.stack(list(values)).max().item()  # Python's own max loses a NaN


def _whole(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def _of_first(make: Callable):
    """What the first rank makes, at all ranks."""
    made = [make() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made)
    return made[0]


def _step(model: nn.Module, tokens: Sequence[int], cache: KVCache) -> Callable[[], object]:
    """A step that reads one token after these, again and again."""
    ids = torch.tensor([list(tokens)], device=device())

    @torch.no_grad()
    def step():
        cache.crop(len(tokens))
        return model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits

    with torch.no_grad():
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    return step


def _of_a_step(model: nn.Module, tokens: Sequence[int]) -> Counted:
    step = _step(model, tokens, KVCache.for_model(model, len(tokens) + 1))
    with Counted() as counted:
        step()
    return counted
