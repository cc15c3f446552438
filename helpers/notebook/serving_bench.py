"""What notebook 11 measures: the server beside its engine, many streams, answers in parts, confidence, load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
from torch import nn

from helpers import models
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import BLOCK
from helpers.kernels.fastest_step import fastest_step
from helpers.kernels.openmp_team import release_team
from helpers.measuring.machine import describe_machine
from helpers.models.first_layers import keep
from helpers.notebook.answers import Judged
from helpers.notebook.lesson import Lesson
from helpers.notebook.results import Results
from helpers.notebook.serving_sizes import ServingSizes
from helpers.serving import client
from helpers.serving.adapters import engine_with_adapters
from helpers.serving.calibration import Bin, calibration_error, reliability
from helpers.serving.load_test import Load, offer, tgi_piece
from helpers.serving.run import running
from helpers.serving.worker import Worker
from helpers.text_to_sql.dataset import Example, load_split
from helpers.text_to_sql.prompts import prompt_for

SEATS, ROOM = 16, 1024  # sequences at a time; tokens of each
MILLI = 1e3


@dataclass(frozen=True)
class ServingBench:
    """The model as it runs fastest here, and questions with their prompts."""

    name: str
    step: nn.Module
    tokenizer: object
    examples: Sequence[Example]
    prompts: Sequence[str]
    sizes: ServingSizes

    @classmethod
    def of(cls, lesson: Lesson, sizes: ServingSizes) -> ServingBench:
        """The fine-tuned model, in bfloat16 where this machine computes in it; under `smoke` its first layers."""
        native = lesson.device == "cuda" or describe_machine().bf16_is_native
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        lesson.results.add_models(models.parts_of(name))
        model, tokenizer = models.load(name, dtype="bfloat16" if native else "float32", device=lesson.device)
        if sizes.layers is not None:
            keep(model, sizes.layers)
            print(f"Profile {lesson.profile}: the first {sizes.layers} layers alone. What they write means nothing.")
        count = max(sizes.prompts, sizes.timed, sizes.chained, sizes.streams)
        examples = load_split("test", limit=count)
        prompts = [prompt_for(tokenizer, example) for example in examples]
        return cls(name, fastest_step(model, sizes.turns), tokenizer, examples, prompts, sizes)

    def engine(self, **options) -> Engine:
        return Engine(self.step, SEATS * ROOM // BLOCK, max_sequences=SEATS, **options)

    def worker(self, max_open: int = 128, **options) -> Worker:
        """A fresh engine in a thread of its own."""
        return Worker(self.engine(**options), self.tokenizer, max_open, ROOM)

    def bodies(self, count: int) -> list[dict]:
        """Requests of the container's schema, for streams."""
        parameters = {"max_new_tokens": self.sizes.longest}
        return [{"inputs": text, "parameters": parameters, "stream": True} for text in self.prompts[:count]]


def compare_overhead(results: Results, bench: ServingBench, url: str) -> None:
    """Time between the tokens of an answer by the engine alone and through the server, answers in turns, one user;
    writes both medians and their difference. (Of each answer the mean: what comes while a client reads comes at
    once.)"""
    alone, served, engine = [], [], bench.engine()
    for text in bench.prompts[: bench.sizes.timed]:
        ids = bench.tokenizer(text, add_special_tokens=False)["input_ids"]
        sequence, times = engine.add(ids, max_new_tokens=bench.sizes.longest), []
        while not sequence.finish_reason:
            engine.step()
            times.append(time.perf_counter())
        alone += _mean_gap(times)
        release_team()  # this thread has computed, and now the engine's does
        times = [time.perf_counter() for _ in client.stream(url, text, max_new_tokens=bench.sizes.longest)]
        served += _mean_gap(times)
    engine_ms, server_ms = (MILLI * statistics.median(times) for times in (alone, served))
    results.metric("serving.inter_token_ms.engine", engine_ms, "ms", n=len(alone))
    results.metric("serving.inter_token_ms.server", server_ms, "ms", n=len(served))
    results.metric("serving.overhead_ms", server_ms - engine_ms, "ms", n=len(served))
    print(
        f"between two tokens: {engine_ms:.2f} ms by the engine alone, {server_ms:.2f} ms through the server (medians)"
    )


def _mean_gap(times: Sequence[float]) -> list[float]:
    """The mean time between tokens; nothing for a single one."""
    return [(times[-1] - times[0]) / (len(times) - 1)] if len(times) > 1 else []


def complete_streams(results: Results, bench: ServingBench, url: str) -> None:
    """So many streams at once, each for a prompt of its own; writes how many are whole."""
    count = bench.sizes.streams
    bodies = [bench.bodies(len(bench.prompts))[k % len(bench.prompts)] for k in range(count)]
    load = offer(url + "/invocations", bodies, 1.0, tgi_piece, in_flight=count)
    results.metric("serving.completed", len(load.done), "streams", n=count)
    print(f"{len(load.done)} of {count} streams are whole, {load.output_token_throughput:.0f} tokens/s together")


def compare_chained(results: Results, bench: ServingBench, url: str, each: int = 8) -> None:
    """Answers in requests of `each` tokens against one long request; writes the invariant."""
    same, parts = 0, 0
    asked = bench.prompts[: bench.sizes.chained]
    for text in asked:
        one = client.ask(url, text, max_new_tokens=bench.sizes.longest)
        several = client.chained(url, text, each, bench.sizes.longest)
        same += one.text == "".join(part.text for part in several)
        parts += len(several)
    results.invariant("serving.chained_equals_one", same == len(asked), same, len(asked))
    print(f"{same} of {len(asked)} answers in requests of {each} tokens are those of one request;", end=" ")
    print(f"{parts / len(asked):.1f} requests an answer.")


def compare_beams(results: Results, bench: ServingBench, url: str, width: int = 4) -> None:
    """Answers by a beam search beside greedy ones, one request after the other: how many are right, and how long they
    take; writes the shares and the ratio of the times."""
    examples, seconds, found = bench.examples[: bench.sizes.beams], {}, {}
    for name, more in (("greedy", {}), ("beams", {"n": width, "use_beam_search": True})):
        body = dict(max_tokens=bench.sizes.longest, temperature=0) | more
        texts, began = [], time.perf_counter()
        for text in bench.prompts[: len(examples)]:
            answer = httpx.post(f"{url}/v1/completions", json=body | {"prompt": text}, timeout=client.TIMEOUT)
            texts.append(client.checked(answer).json()["choices"][0]["text"])
        seconds[name], found[name] = time.perf_counter() - began, texts
    for name, texts in found.items():
        right = sum(Judged.of(examples, texts).right)
        results.metric(f"serving.right.{name}", right / len(examples), "share", n=len(examples))
        print(f"{name:8}{right:4} of {len(examples)} right, {MILLI * seconds[name] / len(examples):6.0f} ms each")
    times = seconds["beams"] / seconds["greedy"]
    results.metric("serving.beam_search_time", times, "ratio", n=len(examples))
    other = sum(a != b for a, b in zip(*found.values(), strict=True))
    print(
        f"{width} beams take {times:.1f} times as long. {other} of {len(examples)} answers differ from the greedy ones."
    )


def ask_adapters(bench: ServingBench) -> None:
    """The same question to a server with one base: by the base alone, and by the adapter that it also has."""
    base, tokenizer = models.load("base", dtype=str(bench.step.dtype).removeprefix("torch."))
    longest = min(32, bench.sizes.longest)
    worker = Worker(engine_with_adapters(base, {"sql": "fine-tuned"}, ROOM // BLOCK), tokenizer, longest=ROOM)
    with running(worker, "base") as url:
        for name in ("base", "sql"):
            body = {"model": name, "prompt": bench.prompts[0], "max_tokens": longest, "temperature": 0}
            answer = client.checked(httpx.post(f"{url}/v1/completions", json=body, timeout=client.TIMEOUT)).json()
            print(f"{name + ':':6}{' '.join(answer['choices'][0]['text'].split())[:80]}")


def judge_confidence(results: Results, bench: ServingBench, url: str, bins: int = 10) -> list[Bin]:
    """All prompts asked, many at a time; each answer's confidence beside whether it is right. Writes the error of the
    calibration, and whether the confident half is right more often."""
    examples = bench.examples[: bench.sizes.prompts]
    told = client.ask_all(url, bench.prompts[: len(examples)], SEATS, max_new_tokens=bench.sizes.longest)
    judged = Judged.of(examples, [one.text for one in told])
    confidences = [one.confidence for one in told]
    found = reliability(confidences, judged.right, bins)
    error = calibration_error(found)
    results.metric("serving.calibration_error", error, "share", n=len(told))
    middle = statistics.median(confidences)
    halves = {
        "more": [right for c, right in zip(confidences, judged.right, strict=True) if c >= middle],
        "less": [right for c, right in zip(confidences, judged.right, strict=True) if c < middle],
    }
    for name, half in halves.items():
        if half:
            share = sum(half) / len(half)
            results.metric(f"serving.right.{name}_confident", share, "share", n=len(half))
            print(f"Of the {name} confident half {share:.0%} are right.")
    print(f"On average confidence and share of right answers differ by {100 * error:.0f} percentage points.")
    return found


def offer_loads(results: Results, bench: ServingBench, url: str) -> dict[float, Load]:
    """Requests at several rates, as shares of what the server answers when no seat is empty; writes the figures by
    AIPerf's names, and that capacity."""
    every = bench.bodies(len(bench.prompts))
    bodies = [every[k % len(every)] for k in range(bench.sizes.requests)]
    seats = min(SEATS, len(bodies) // 2)
    capacity = offer(url + "/invocations", bodies, 1.0, tgi_piece, in_flight=seats).capacity
    results.metric("serving.request_throughput.capacity", capacity, "requests/s", n=len(bodies))
    print(f"{seats} at a time, no seat empty: {capacity:.1f} requests/s. That is the capacity, 100 %.")
    print(f"{'load':>6}{'offered/s':>11}{'answered/s':>12}{'to first token (s)':>22}{'whole answer (s)':>20}")
    print(f"{'':29}" + 2 * f"{'p50':>12}{'p90':>8}")
    found = {}
    for share in bench.sizes.loads:
        load = found[share] = offer(url + "/invocations", bodies, share * capacity, tgi_piece)
        note_load(results, f"load_{round(100 * share)}", load)
        times = [load.statistics(what) for what in ("time_to_first_token", "request_latency")]
        print(f"{share:6.0%}{share * capacity:11.1f}{load.request_throughput:12.1f}", end="")
        print("".join(f"{t['p50']:12.2f}{t['p90']:8.2f}" for t in times))
    return found


def note_load(results: Results, key: str, load: Load) -> None:
    """Write a load's figures."""
    n = len(load.samples)
    results.metric(f"serving.request_throughput.{key}", load.request_throughput, "requests/s", n=n)
    results.metric(f"serving.output_token_throughput.{key}", load.output_token_throughput, "tokens/s", n=n)
    for what in ("time_to_first_token", "inter_token_latency", "request_latency"):
        for name, value in load.statistics(what).items():
            results.metric(f"serving.{what}.{key}.{name}", value, "s", n=n)


def read_knee(results: Results, found: Mapping[float, Load], guess: float, most: float = 3.0) -> None:
    """How many times as long one in ten waits at each load as at the lowest, the guess about 75 %, and between which
    loads the knee lies: up to it that is at most `most` times. Writes the ratio at 75 % and the load before the
    knee."""
    p90 = {share: load.statistics("time_to_first_token")["p90"] for share, load in found.items()}
    least, *others = sorted(p90)
    for share in others:
        times, guessed = p90[share] / p90[least], ""
        if share == 0.75:
            guessed = f"; you guessed {guess:g}"
            results.metric("serving.waiting_ratio", times, "ratio", n=len(found[share].samples))
        print(f"At {share:.0%} one in ten waits {times:.1f} times as long as at {least:.0%}{guessed}.")
    past = next((share for share in others if p90[share] > most * p90[least]), None)
    before = max(share for share in p90 if past is None or share < past)
    results.metric("serving.load_before_the_knee", before, "share", n=len(p90))
    if past is None:
        print(f"Up to {before:.0%} there is no knee: nobody waits {most:g} times as long.")
    else:
        print(f"The knee lies between {before:.0%} and {past:.0%}: there waiting grows to over {most:g} times.")


def show_refusals(bench: ServingBench, max_open: int = 4) -> None:
    """Many at once to a server that takes a few."""
    bodies = bench.bodies(4 * max_open)
    with running(bench.worker(max_open), "crowded") as url:
        load = offer(url + "/invocations", bodies, 1e6, tgi_piece)
    refused = sum(sample.status == 429 for sample in load.samples)
    print(
        f"{len(bodies)} at once to a server that takes {max_open}: {len(load.done)} answered, {refused} refused (429)"
    )
