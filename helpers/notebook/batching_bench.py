"""What notebook 05 measures: the same requests by each way to batch, in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models
from helpers.decoding.generate import steps
from helpers.decoding.kv_cache import bytes_per_token
from helpers.decoding.proposer import Proposer
from helpers.engine import check, trace
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import BLOCK
from helpers.engine.servers import Continuous, OldestFirst, Static, WholePrompts
from helpers.engine.traffic import Replay, Request, Server, replay
from helpers.errors import CourseError
from helpers.kernels.fastest_step import fastest_step
from helpers.measuring.cost_model import kv_heads_of
from helpers.measuring.machine import describe_machine
from helpers.measuring.timing import Comparison, speedup, take_turns
from helpers.models.first_layers import keep
from helpers.notebook.batching_sizes import BatchingSizes
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import note_speedup

Replays = Mapping[str, Sequence[Replay]]


@dataclass(frozen=True)
class BatchingBench:
    """The model as it runs fastest here, its tokenizer and dtype, blocks for the whole trace, and the tokens that a
    step reads at most."""

    model: nn.Module
    tokenizer: object
    dtype: str
    name: str
    sizes: BatchingSizes
    num_blocks: int
    budget: int

    @classmethod
    def of(cls, lesson: Lesson, sizes: BatchingSizes, budget: int) -> BatchingBench:
        """The fine-tuned model, in bfloat16 where this machine computes in it; under `smoke` its first layers.

        Raises:
            CourseError: the budget has no token for each sequence.
        """
        if budget < sizes.seats:
            raise CourseError(f"BUDGET is {budget}: a step reads a token of each of {sizes.seats} sequences at least.")
        native = lesson.device == "cuda" or describe_machine().bf16_is_native
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        dtype = "bfloat16" if native else "float32"
        lesson.results.add_models(models.parts_of(name))
        model, tokenizer = models.load(name, dtype=dtype, device=lesson.device)
        if sizes.layers is not None:
            layers = min(sizes.layers, model.config.num_hidden_layers)
            keep(model, layers)
            print(f"Profile {lesson.profile}: only the first {layers} layers are kept. What they write means nothing.")
        longest = max(len(r.prompt) + r.num_tokens for r in trace.requests(tokenizer, sizes.requests, 1.0))
        num_blocks = max(sizes.seats, *sizes.static) * -(-longest // BLOCK)
        return cls(fastest_step(model, sizes.turns), tokenizer, dtype, name, sizes, num_blocks, budget)

    def engine(self, seats: int | None = None, proposer: Proposer | None = None, **options) -> Engine:
        """A fresh engine; prefixes are shared only where that is asked for: most engines below don't."""
        seats = seats or self.sizes.seats
        options = dict(max_tokens=max(self.budget, seats), share_prefixes=False) | options
        return Engine(self.model, self.num_blocks, proposer=proposer, max_sequences=seats, **options)

    def requests(self, per_second: float = float("inf")) -> list[Request]:
        return trace.requests(self.tokenizer, self.sizes.requests, per_second, self.sizes.longest)


def replays(
    servers: Mapping[str, Callable[[], Server]], requests: Sequence[Request], runs: int, users: int | None = None
) -> tuple[dict[str, list[Replay]], dict[str, Server]]:
    """Each server, made anew, gets the requests `runs` times, the servers taking turns; a few requests go before, off
    the clock. Returns what happened, and each one's last server."""
    kept: dict[str, list[Replay]] = {name: [] for name in servers}
    last: dict[str, Server] = {}
    warmup = [Request(0.0, request.prompt, 2) for request in requests[:2]]

    def run(name: str) -> Replay:
        last[name] = servers[name]()
        return replay(last[name], requests, users)

    for make in servers.values():
        replay(make(), warmup)
    arms = {name: (lambda name=name: run(name)) for name in servers}
    take_turns(arms, runs, after=lambda name, result: kept[name].append(result))
    return kept, last


def gain_of(slow: Sequence[Replay], fast: Sequence[Replay]) -> Comparison:
    """How many times as many tokens a second: the work is the same, so the times say it."""
    return speedup([one.seconds for one in slow], [one.seconds for one in fast], of=np.median)


def tokens_per_second(runs: Sequence[Replay]) -> float:
    return median(one.tokens_per_second for one in runs)


def best_static(bench: BatchingBench, requests: Sequence[Request]) -> int:
    """The size of static batches with the most tokens a second, of those that the profile tries."""
    servers = {str(n): (lambda n=n: Static(bench.engine(n), n)) for n in bench.sizes.static}
    kept, _ = replays(servers, requests, 1)
    for size, runs in kept.items():
        print(f"static batches of {size:>2}: {tokens_per_second(runs):6.0f} tokens/s")
    return int(max(kept, key=lambda size: tokens_per_second(kept[size])))


def compare_batching(bench: BatchingBench, requests: Sequence[Request]) -> tuple[Replays, Mapping[str, Server]]:
    """Static batches of their best size, and the engine, on the same requests."""
    size = best_static(bench, requests)
    servers = {
        "static": lambda: Static(bench.engine(size), size),
        "continuous": lambda: Continuous(bench.engine()),
    }
    return replays(servers, requests, bench.sizes.runs)


def compare_sharing(results: Results, bench: BatchingBench, requests: Sequence[Request]) -> None:
    """The engine with each beginning read once for all who have it, and with everybody's own; writes the ratio of their
    tokens a second, and the share of tokens that needn't be read."""
    servers = {
        "alone": lambda: Continuous(bench.engine()),
        "shared": lambda: Continuous(bench.engine(share_prefixes=True)),
    }
    kept, last = replays(servers, requests, bench.sizes.runs)
    saved = 1 - last["shared"].tokens_read / last["alone"].tokens_read
    results.metric("batching.tokens_saved.shared_prefixes", saved, "share", n=last["alone"].tokens_read)
    gain = note_gain(results, "shared_prefixes", kept["alone"], kept["shared"])
    say(f"Sharing what prompts have in common saves {saved:.0%} of the tokens that steps read: {gain}.")


def note_replays(results: Results, key: str, runs: Sequence[Replay]) -> None:
    """Write tokens a second, the time to the first token, and latency: p50, p90 and p99 of all requests and runs."""
    results.metric(f"batching.tokens_per_second.{key}", tokens_per_second(runs), "tokens/s", n=len(runs))
    first = [each for one in runs for each in one.to_first_token]
    whole = [each for one in runs for each in one.latencies]
    for percent in (50, 90, 99):
        value = float(np.percentile(first, percent))
        results.metric(f"batching.time_to_first_token.{key}.p{percent}", value, "s", n=len(first))
        value = float(np.percentile(whole, percent))
        results.metric(f"batching.latency.{key}.p{percent}", value, "s", n=len(whole))


def show_replays(results: Results, runs: Replays, words: Mapping[str, str] | None = None) -> None:
    """A line for each way, by its name or its `words`: tokens a second, waiting for the first token and for the whole
    answer; writes them."""
    print(f"{'':33}{'to the first token (s)':>25}{'to the whole answer (s)':>27}")
    print(f"{'':24}{'tokens/s':>9}" + 2 * f"{'p50':>11}{'p90':>7}{'p99':>7}")
    for name, of_name in runs.items():
        note_replays(results, name.replace(" ", "_"), of_name)
        first = np.percentile([each for one in of_name for each in one.to_first_token], (50, 90, 99))
        whole = np.percentile([each for one in of_name for each in one.latencies], (50, 90, 99))
        print(f"{(words or {}).get(name, name):24}{tokens_per_second(of_name):9.0f}", end="")
        print("".join(f"{p50:11.2f}{p90:7.2f}{p99:7.2f}" for p50, p90, p99 in (first, whole)))


def note_gain(results: Results, key: str, slow: Sequence[Replay], fast: Sequence[Replay]) -> Comparison:
    return note_speedup(results, f"batching.{key}", gain_of(slow, fast))


def waste_of(server: Static | Continuous) -> float:
    """The share of memory set aside that holds nothing, over all steps."""
    reserved = sum(step.reserved for step in server.occupancy)
    return 1 - sum(step.held for step in server.occupancy) / reserved


def show_memory(results: Results, bench: BatchingBench, static: Static, paged: Continuous) -> None:
    """What each way sets aside and doesn't use; writes it. And how many sequences the larger one's memory would hold
    in blocks."""
    for name, server in (("static", static), ("paged", paged)):
        share = waste_of(server)
        results.metric(f"batching.kv_waste.{name}", share, "share")
        print(f"{name}: {share:.1%} of the memory that is set aside holds nothing")
    a_token = bytes_per_token_of(bench)
    most = max(static.occupancy, key=lambda step: step.reserved)
    each = sum(step.reserved for step in paged.occupancy) / sum(step.running for step in paged.occupancy)
    print(f"A token takes {a_token / 1e3:.0f} kB in this cache.", end=" ")
    print(f"The largest static batch sets {most.reserved * a_token / 1e6:.0f} MB aside for {most.running} sequences;")
    print(f"in blocks they would hold {most.reserved / each:.0f} of the average size here at a time.")


def check_identity(results: Results, bench: BatchingBench, tiny: nn.Module) -> None:
    """The trace's first requests in float32 against each alone; random schedules of everything on a tiny model in
    float64, with guesses and without. Writes the invariant, every request counted."""
    exact = fastest_step(models.load(bench.name)[0] if bench.sizes.layers is None else tiny, 0)
    asked = bench.requests()[: bench.sizes.exact]
    if bench.sizes.layers is not None:
        asked = [Request(0.0, [t % tiny.config.vocab_size for t in r.prompt[:20]], r.num_tokens) for r in asked]
    longest = max(len(r.prompt) + r.num_tokens for r in asked)
    engine = Engine(exact, 6 * -(-longest // BLOCK), max_sequences=8, max_tokens=64)
    sequences = [engine.add(r.prompt, max_new_tokens=r.num_tokens, eos=()) for r in asked]
    engine.run()
    same = 0
    for request, sequence in zip(asked, sequences, strict=True):
        alone = steps(exact, request.prompt, max_new_tokens=request.num_tokens, eos=())
        same += sequence.written == [token for step in alone for token in step.emitted]
    print(f"In float32 {same} of {len(asked)} requests get the tokens that they get alone", end=" ")
    print(f"({engine.scheduler.preemptions} preemptions).")
    good = sum(check.same_as_alone(tiny, seed, guessing=seed % 2 == 1) for seed in range(bench.sizes.schedules))
    print(f"A tiny model: {good} of {bench.sizes.schedules} random schedules, every request as alone.")
    of = len(asked) + bench.sizes.schedules
    results.invariant("batching.identical_outputs", same + good == of, same + good, of)


def compare_chunks(results: Results, bench: BatchingBench, at_once: Sequence[Replay], load: float = 0.8) -> Replays:
    """Whole prompts, chunks of the oldest prompt first, and chunks as `divide` shares them out, while people come at
    `load` times the rate that the engine served when all were there. Writes how the times to the first token and those
    between tokens compare, of the last way to the first."""
    requests = bench.requests()
    per_second = load * len(requests) / median(one.seconds for one in at_once)
    longest = max(len(request.prompt) for request in requests)
    ways = {
        "whole prompts": dict(max_tokens=bench.sizes.seats + longest, scheduler=WholePrompts),
        "chunks oldest first": dict(scheduler=OldestFirst),
        "chunks shared out": dict(),
    }
    servers = {name: (lambda options=options: Continuous(bench.engine(**options))) for name, options in ways.items()}
    kept, _ = replays(servers, bench.requests(per_second), bench.sizes.runs)
    short = [number for number, request in enumerate(requests) if len(request.prompt) <= bench.budget]
    print(f"{per_second:.1f} requests a second: {load:.0%} of what the engine serves at most.", end=" ")
    print(f"{len(requests) - len(short)} of {len(requests)} prompts are longer than {bench.budget} tokens.")
    for what, key, percent, numbers in (
        ("to_first_token", "time_to_first_token_p90_ratio", 90, range(len(requests))),
        ("to_first_token", "time_to_first_token_p99_ratio", 99, range(len(requests))),
        ("to_first_token", "time_to_first_token_p99_ratio.short_prompts", 99, short),
        ("between_tokens", "between_tokens_p99_ratio", 99, None),
        ("between_tokens", "longest_pause_ratio", 100, None),
    ):
        times = {name: _percentile(runs, what, percent, numbers) for name, runs in kept.items()}
        whole, oldest, shared = times.values()
        n = bench.sizes.runs * len(numbers or requests)
        results.metric(f"batching.{key}", shared / whole, "ratio", n=n)
        results.metric(f"batching.{key}.oldest_first", oldest / whole, "ratio", n=n)
        of_whom = " of short prompts" if numbers is short else ""
        seconds = "; ".join(f"{name} {1e3 * each:.0f} ms" for name, each in times.items())
        which = "the longest" if percent == 100 else f"p{percent}"
        say(f"{WAITING[what]}{of_whom}, {which}: {seconds}. Shared out over whole: {shared / whole:.2f}.")
    return kept


WAITING = {"to_first_token": "Time to the first token", "between_tokens": "Time between tokens"}


def _percentile(runs: Sequence[Replay], what: str, percent: int, numbers: Sequence[int] | None) -> float:
    """Of all runs together; of these requests alone, where `numbers` names some."""
    every = [getattr(one, what) for one in runs]
    chosen = every if numbers is None else [[values[k] for k in numbers] for values in every]
    return float(np.percentile([value for values in chosen for value in values], percent))


def by_users(results: Results, bench: BatchingBench) -> dict[int, Replay]:
    """The same requests by so many users at a time, one replay each; writes tokens a second and the time between a
    user's tokens."""
    found, requests = {}, bench.requests()[: bench.sizes.by_users]
    for users in bench.sizes.users:
        kept, _ = replays({"": lambda users=users: Continuous(bench.engine(users))}, requests, 1, users)
        one = found[users] = kept[""][0]
        gap = 1e3 * float(np.mean(one.between_tokens))
        results.metric(f"batching.tokens_per_second.users_{users}", one.tokens_per_second, "tokens/s", n=len(requests))
        results.metric(f"batching.between_tokens_ms.users_{users}", gap, "ms", n=len(one.between_tokens))
        print(f"{users:>3} users: {one.tokens_per_second:6.0f} tokens/s together, {gap:5.1f} ms between one's tokens")
    fewest, most = min(found), max(found)
    gain = found[most].tokens_per_second / found[fewest].tokens_per_second
    print(f"{most} users get {gain:.1f} times as many tokens a second together as {fewest} alone.")
    return found


def bytes_per_token_of(bench: BatchingBench) -> int:
    """Bytes that a token takes in this model's KV cache."""
    config = bench.model.config.get_text_config()
    heads, size = kv_heads_of(config)
    return bytes_per_token(config.num_hidden_layers, heads, size, bench.model.dtype.itemsize)


def tiny_model(seed: int = 0) -> nn.Module:
    """A Llama of two layers with random weights, in float64, whose answers vary."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    model = LlamaForCausalLM(config).double().eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.mul_(6)
    return model
