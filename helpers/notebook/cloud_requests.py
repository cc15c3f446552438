"""What notebook 12 measures at its endpoints, through boto3: latency, answers, and a price over concurrency."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import psutil
from botocore.exceptions import WaiterError

from helpers.cloud import streams
from helpers.cloud.clients import Cloud, connect
from helpers.cloud.prices import Prices, blended_price, throughput_of
from helpers.errors import CourseError
from helpers.measuring.timing import speedup
from helpers.notebook import plots
from helpers.notebook.answers import Judged
from helpers.notebook.cloud_bench import CloudBench, create_model, pack_container, upload_models
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup
from helpers.serving import course_server
from helpers.serving.client import Told
from helpers.serving.load_test import Load, Sample

WORDS = {"base": "base", "fine_tuned": "fine-tuned", "medusa": "with heads"}


def ask(bench: CloudBench, name: str, prompt: str, **more) -> Told:
    return streams.invoke(bench.cloud.runtime, bench.named(name), prompt, **more)


def compare_endpoints(results: Results, bench: CloudBench) -> None:
    """The same requests to the fine-tuned model and to the one with heads, one after the other, in turns. Writes the
    mean and P90 of the latency, the ratio, and whether all answers are the same."""
    if not bench.heads:
        return print("There are no heads for this model: nothing to compare.")
    pair = bench.compared
    sizes, prompts = bench.sizes, bench.prompts[: bench.sizes.prompts]
    told: dict[str, list[Told]] = {name: [] for name in pair}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for name in pair:
        ask(bench, name, prompts[0], max_new_tokens=4)
    for number, prompt in enumerate(prompts):
        for name in pair if number % 2 else pair[::-1]:
            began = time.perf_counter()
            told[name].append(ask(bench, name, prompt, max_new_tokens=sizes.longest))
            seconds[name].append(time.perf_counter() - began)
    for name in pair:
        _note_latency(results, bench, name, told[name], seconds[name])
    gain = speedup(seconds["fine_tuned"], seconds["medusa"], of=np.mean)
    print("with heads:", note_speedup(results, "sagemaker.speedup", gain))
    same = sum(a.text == b.text for a, b in zip(*told.values(), strict=True))
    results.invariant("sagemaker.identical_outputs", same == len(prompts), same, len(prompts))
    print(f"{same} of {len(prompts)} answers are the same.")


def _note_latency(
    results: Results, bench: CloudBench, name: str, told: Sequence[Told], seconds: Sequence[float]
) -> None:
    mean, p90 = float(np.mean(seconds)), float(np.percentile(seconds, 90))
    results.metric(f"sagemaker.average_latency_s.{name}", mean, "s", n=len(seconds))
    results.metric(f"sagemaker.p90_latency_s.{name}", p90, "s", n=len(seconds))
    print(f"{WORDS[name]:12} mean {1e3 * mean:6.0f} ms, P90 {1e3 * p90:6.0f} ms")
    judged = Judged.of(bench.examples[: len(told)], [one.text for one in told])
    for example, one, took, right in zip(judged.examples, told, seconds, judged.right, strict=True):
        results.prompt(example.id, f"sagemaker.{name}", "float32", took, len(one.pieces), one.text, right)


def busy_throughput(load: Load) -> float:
    """Tokens per second while nobody's place is empty: from the first answer's end until the last request is sent.
    CourseError where all were sent at once."""
    begin, end = min(sample.pieces[-1] for sample in load.done), max(sample.due for sample in load.samples)
    if end <= begin:
        raise CourseError("Ask for more requests than there are users, twice as many at least.")
    return sum(begin < time <= end for sample in load.done for time in sample.pieces) / (end - begin)


def over_concurrency(bench: CloudBench, name: str) -> dict[int, Load]:
    """Streams of an endpoint at each number of users at a time, each time with other prompts."""
    count, more = bench.sizes.requests, dict(max_new_tokens=bench.sizes.longest)
    loads = {}
    for place, users in enumerate(bench.sizes.users):
        prompts, began = bench.prompts[place * count : (place + 1) * count], time.perf_counter()

        def one(prompt: str, began: float = began) -> Sample:
            due = time.perf_counter() - began
            told = streams.invoke_stream(bench.cloud.runtime, bench.named(name), prompt, **more)
            return Sample(due, tuple(time.perf_counter() - began for _ in told), 200)

        with ThreadPoolExecutor(users) as pool:
            loads[users] = Load(list(pool.map(one, prompts)))
    return loads


@dataclass(frozen=True)
class Price:
    """At so many users: tokens a second by the published formula and by the clock, and dollars for a million tokens by
    both."""

    users: int
    rates: tuple[float, float]
    prices: tuple[float, float]


def price_over_concurrency(
    results: Results, bench: CloudBench, prices: Prices, discount: float
) -> dict[str, list[Price]]:
    """Both endpoints, as if an hour of this machine cost what the instance type does. Writes what a million tokens cost
    at the most users, and how many times the formula's tokens a second are those of the clock."""
    per_hour, found = prices.of(bench.instance_type), {}
    kind = "simulated" if bench.cloud.backend == "local" else "measured"
    print(
        f"{bench.instance_type}: ${per_hour}/h ({prices.date}), {discount:.0%} off. Dollars are for a million tokens."
    )
    print(f"{'':28}{'by the formula':>20}{'by the clock':>20}")
    print(f"{'':22}{'users':>6}" + 2 * f"{'tokens/s':>12}{'$':>8}")
    for name in bench.compared:
        found[name] = []
        for users, load in over_concurrency(bench, name).items():
            rates = throughput_of(users, load.statistics("inter_token_latency")["p50"]), busy_throughput(load)
            dollars = tuple(blended_price(per_hour, rate, discount=discount) for rate in rates)
            found[name].append(Price(users, rates, dollars))
            pairs = "".join(f"{rate:12.0f}{price:8.2f}" for rate, price in zip(rates, dollars, strict=True))
            print(f"{WORDS[name]:22}{users:6}{pairs}")
        last, which = found[name][-1], {"fine_tuned": "baseline", "medusa": "optimized"}[name]
        for what, price in zip(("blended", "clock"), last.prices, strict=True):
            key = f"sagemaker.{what}_price.{which}"
            results.metric(key, price, "$ per million tokens", kind=kind, n=bench.sizes.requests)
    for plain, heads in zip(found["fine_tuned"], found.get("medusa", ()), strict=False):
        gain = heads.rates[1] / plain.rates[1]
        results.metric(f"sagemaker.throughput_gain.users_{plain.users}", gain, "ratio", n=bench.sizes.requests)
        print(f"{plain.users:3} users: {gain:.2f} times the tokens a second with heads, by the clock")
    last = found["fine_tuned"][-1]
    ratio = last.rates[0] / last.rates[1]
    results.metric("sagemaker.formula_over_clock", ratio, "ratio", n=bench.sizes.requests)
    print(f"With {last.users} users the formula has {ratio:.2f} times the tokens a second of the clock.")
    return found


def draw_prices(found: Mapping[str, Sequence[Price]]) -> None:
    """Throughput and price over the users at a time, as in the published charts, and the price by the clock."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    for place, (name, points) in enumerate(found.items()):
        users, look = [each.users for each in points], dict(color=plots.COLORS[place], marker=plots.MARKERS[place])
        for way, (words, line) in enumerate((("formula", "-"), ("clock", "--"))):
            label = f"{WORDS[name]}, by the {words}"
            axes[0].plot(users, [each.rates[way] for each in points], label=label, linestyle=line, **look)
            axes[1].plot(users, [each.prices[way] for each in points], label=label, linestyle=line, **look)
    axes[0].set(title="More users, more tokens", ylabel="throughput (tokens/s)", ylim=(0, None))
    axes[1].set(title="... and a lower price", ylabel="price of a million tokens ($)", yscale="log")
    for ax in axes:
        ax.set(xlabel="users at a time (count)", xscale="log")
        ax.set_xticks(users, [str(each) for each in users], minor=False)
        ax.minorticks_off()
        ax.legend(fontsize=8)


def two_on_one_endpoint(bench: CloudBench, options: Mapping[str, Mapping[str, str]]) -> None:
    """Base and fine-tuned model as inference components of one endpoint, asked the same."""
    cloud, endpoint = bench.cloud, bench.named("shared")
    if cloud.backend == "aws":
        return print("Left out on AWS: each component takes a GPU, and one more endpoint is not in the plan.")
    config = dict(EndpointConfigName=endpoint, ProductionVariants=[bench.variant()], ExecutionRoleArn=cloud.role)
    cloud.create("endpoint_config", **config)
    cloud.create("endpoint", EndpointName=endpoint, EndpointConfigName=endpoint)
    needs = {"NumberOfAcceleratorDevicesRequired": 1, "MinMemoryRequiredInMb": 2048}
    names = {name: bench.named(f"{name}_part") for name in ("base", "fine_tuned")}
    for of, name in names.items():
        model = create_model(bench, f"{of}_part", pack_container(bench, options[of]))
        what = {"ModelName": model, "ComputeResourceRequirements": needs}
        more = dict(VariantName="AllTraffic", RuntimeConfig={"CopyCount": 1}, Specification=what)
        cloud.create("inference_component", InferenceComponentName=name, EndpointName=endpoint, **more)
    for name in names.values():
        while (found := _component(cloud, name))["InferenceComponentStatus"] == "Creating":
            time.sleep(1)
        if reason := found.get("FailureReason"):
            raise CourseError(f"{name}: {reason}")
        told = streams.invoke(cloud.runtime, endpoint, bench.prompts[0], name, max_new_tokens=24)
        print(f"{name:26}{' '.join(told.text.split())[:70]}")


def _component(cloud: Cloud, name: str) -> dict:
    return cloud.sagemaker.describe_inference_component(InferenceComponentName=name)


def prove_clean_up(results: Results, bench: CloudBench) -> None:
    """Delete all, and look; then let a cell fail in the middle, and look again. Writes the invariant."""
    cloud = bench.cloud
    made = [entry.name for entry in cloud.records.all(cloud.backend, cloud.session) if entry.kind == "endpoint"]
    cloud.clean_up()
    count, gone = len(made), sum(_is_gone(cloud, name) for name in made)
    print(f"{gone} of {count} endpoints are gone.")
    if cloud.backend == "local":  # on AWS it would cost one more endpoint
        count, gone = count + 1, gone + _gone_after_an_error(bench)
    results.invariant("sagemaker.no_endpoints_left", gone == count, gone, count)


def _is_gone(cloud: Cloud, endpoint: str) -> bool:
    try:
        waiter = cloud.sagemaker.get_waiter("endpoint_deleted")
        waiter.wait(EndpointName=endpoint, WaiterConfig={"Delay": 10, "MaxAttempts": 90})
    except WaiterError:
        return False
    return True


def _gone_after_an_error(bench: CloudBench) -> bool:
    try:
        with connect("local", records=bench.cloud.records) as other:
            again = replace(bench, cloud=other)
            name = create_model(again, "broken", pack_container(again, upload_models(again)["fine_tuned"]))
            other.create("endpoint_config", EndpointConfigName=name, ProductionVariants=[again.variant(name)])
            other.create("endpoint", EndpointName=name, EndpointConfigName=name)
            other.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 1})
            print(f"{name} is in service, with {len(running_servers())} server.")
            raise ZeroDivisionError("a line that fails")
    except ZeroDivisionError as error:
        left, servers = other.records.all("local", other.session), running_servers()
        print(f"After {error}: {len(left)} resources are recorded, {len(servers)} servers run.")
    return not left and not servers


def running_servers() -> list[psutil.Process]:
    """The course's servers that this process has started."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if course_server.MODULE in child.cmdline()]
