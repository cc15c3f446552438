"""What notebook 12 measures: endpoints asked through boto3, and what a million tokens would cost."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from helpers.cloud import streams
from helpers.cloud.clients import Cloud
from helpers.cloud.prices import Prices, blended_price, price_by_the_clock, throughput_of
from helpers.measuring.timing import speedup
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup

ENDPOINTS = ("fine_tuned", "medusa")


def endpoint_name(name: str) -> str:
    return f"course-{name.replace('_', '-')}"


def create_endpoint(
    cloud: Cloud, name: str, model: str, medusa: str | None = None, instance: str = "ml.g5.2xlarge"
) -> None:
    """Model, configuration and endpoint of one name, not waited for: several start at the same time."""
    name, environment = endpoint_name(name), {"HF_MODEL_ID": model, "OPTION_MAX_MODEL_LEN": "1024"}
    if medusa:
        speculation = {"method": "medusa", "model": medusa, "num_speculative_tokens": 4}
        environment["OPTION_SPECULATIVE_CONFIG"] = json.dumps(speculation)
    container = {"Image": "course", "Environment": environment}
    cloud.create("model", ModelName=name, PrimaryContainer=container, ExecutionRoleArn=cloud.role)
    variant = dict(VariantName="AllTraffic", ModelName=name, InitialInstanceCount=1, InstanceType=instance)
    cloud.create("endpoint_config", EndpointConfigName=name, ProductionVariants=[variant])
    cloud.create("endpoint", EndpointName=name, EndpointConfigName=name)


def wait_for(cloud: Cloud, names: Sequence[str]) -> None:
    """Until all are in service."""
    waiter = cloud.sagemaker.get_waiter("endpoint_in_service")
    for name in map(endpoint_name, names):
        waiter.wait(EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 1800})
        print(f"{name} is in service")


@dataclass(frozen=True)
class Asked:
    """Answers of an endpoint, and the seconds of each request."""

    texts: list[str]
    seconds: list[float]


def compare_endpoints(results: Results, cloud: Cloud, prompts: Sequence[str], longest: int) -> dict[str, Asked]:
    """The same requests to both endpoints, in turns; writes mean and P90 latency, the speedup and the invariant."""
    found = {name: Asked([], []) for name in ENDPOINTS}
    for name in ENDPOINTS:
        streams.invoke(cloud.runtime, endpoint_name(name), prompts[0], max_new_tokens=4)
    for number, prompt in enumerate(prompts):
        for name in ENDPOINTS if number % 2 else reversed(ENDPOINTS):
            began = time.perf_counter()
            told = streams.invoke(cloud.runtime, endpoint_name(name), prompt, max_new_tokens=longest)
            found[name].seconds.append(time.perf_counter() - began)
            found[name].texts.append(told.text)
    for name, asked in found.items():
        mean, p90 = float(np.mean(asked.seconds)), float(np.percentile(asked.seconds, 90))
        results.metric(f"sagemaker.average_latency_s.{name}", mean, "s", n=len(prompts))
        results.metric(f"sagemaker.p90_latency_s.{name}", p90, "s", n=len(prompts))
        print(f"{name:12} mean {1e3 * mean:6.0f} ms, P90 {1e3 * p90:6.0f} ms")
    plain, heads = found["fine_tuned"], found["medusa"]
    print(note_speedup(results, "sagemaker.speedup", speedup(plain.seconds, heads.seconds, of=np.mean)))
    same = sum(a == b for a, b in zip(plain.texts, heads.texts, strict=True))
    results.invariant("sagemaker.identical_outputs", same == len(prompts), same, len(prompts))
    print(f"{same} of {len(prompts)} answers are the same.")
    return found


@dataclass(frozen=True)
class Point:
    """At so many users: seconds between tokens at p50, seconds in all, tokens of answers, and of prompts, too."""

    users: int
    inter_token: float
    seconds: float
    written: int
    tokens: int


def over_concurrency(
    cloud: Cloud, name: str, prompts: Sequence[str], tokenizer, users: Sequence[int], longest: int
) -> list[Point]:
    """Streams of an endpoint at each number of users at a time."""

    def one(prompt: str) -> list[float]:
        told = streams.invoke_stream(cloud.runtime, endpoint_name(name), prompt, max_new_tokens=longest)
        return [time.perf_counter() for _ in told]

    points, read = [], sum(len(tokenizer(prompt).input_ids) for prompt in prompts)
    for count in users:
        began = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            times = list(pool.map(one, prompts))
        seconds = time.perf_counter() - began
        gaps = [(each[-1] - each[0]) / (len(each) - 1) for each in times if len(each) > 1]
        written = sum(map(len, times))
        points.append(Point(count, float(np.median(gaps)), seconds, written, written + read))
    return points


def note_prices(
    results: Results, points: Mapping[str, Sequence[Point]], prices: Prices, instance: str, discount: float
) -> None:
    """Dollars for a million tokens at each number of users, by the published formula and by the clock; writes those at
    the most users."""
    per_hour = prices.of(instance)
    print(f"{instance}, ${per_hour}/h ({prices.date}), {discount:.0%} off; dollars for a million tokens")
    print(f"{'':12}{'users':>6}{'tokens/s':>10}{'blended':>10}{'by the clock':>14}")
    for name, of_name in points.items():
        for point in of_name:
            rate = throughput_of(point.users, point.inter_token)
            blended = blended_price(per_hour, rate, discount=discount)
            clock = price_by_the_clock(per_hour, point.seconds, point.tokens, discount=discount)
            print(f"{name:12}{point.users:6}{rate:10.0f}{blended:10.2f}{clock:14.2f}")
        which = "baseline" if name == "fine_tuned" else "optimized"
        results.metric(f"sagemaker.blended_price.{which}", blended, "$", n=len(of_name))
        results.metric(f"sagemaker.clock_price.{which}", clock, "$", n=len(of_name))
