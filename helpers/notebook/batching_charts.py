"""Who ran when, how full the batch and the memory were, how long people waited (notebook 05)."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from helpers.engine.servers import Occupancy
from helpers.engine.traffic import Replay, Request
from helpers.measuring.timing import Comparison
from helpers.notebook import plots

Spans = Mapping[int, tuple[int, int]]  # first and last step of each request


def draw_trace(requests: Sequence[Request]) -> None:
    """Lengths of prompts and answers, longest first, and what the few long ones take of all."""
    _, axes = plt.subplots(1, 2, figsize=(10, 2.8))
    for ax, what, lengths in (
        (axes[0], "prompts", sorted((len(request.prompt) for request in requests), reverse=True)),
        (axes[1], "answers", sorted((request.num_tokens for request in requests), reverse=True)),
    ):
        ax.bar(range(len(lengths)), lengths, width=1.0, color=plots.COLORS[0])
        tenth = sum(lengths[: max(1, len(lengths) // 10)]) / sum(lengths)
        ax.set(title=f"{what.capitalize()}: the longest tenth has {tenth:.0%} of all tokens")
        ax.set(xlabel="request, the longest first (count)", ylabel="tokens (count)")


def slots_of(spans: Spans) -> dict[int, int]:
    """A slot of the batch for each request: the lowest that is free when it begins."""
    free, taken, count, slots = [], [], 0, {}
    for number, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        while taken and taken[0][0] < first:
            heapq.heappush(free, heapq.heappop(taken)[1])
        if free:
            slot = heapq.heappop(free)
        else:
            slot, count = count, count + 1
        slots[number] = slot
        heapq.heappush(taken, (last, slot))
    return slots


def draw_timeline(spans_by_way: Mapping[str, Spans]) -> None:
    """A bar for each request, from its first step to its last token, in its slot; what is white is idle."""
    _, axes = plt.subplots(len(spans_by_way), 1, figsize=(10, 2.6 * len(spans_by_way)), sharex=True, squeeze=False)
    end = 1 + max(last for spans in spans_by_way.values() for _, last in spans.values())
    for ax, (name, spans) in zip(axes[:, 0], spans_by_way.items(), strict=True):
        slots = slots_of(spans)
        seats, steps = 1 + max(slots.values()), 1 + max(last for _, last in spans.values())
        busy = sum(last - first + 1 for first, last in spans.values()) / (seats * steps)
        for number, (first, last) in spans.items():
            look = dict(color=plots.COLORS[2 * (number % 2)], edgecolor="white", linewidth=0.5)
            ax.barh(slots[number], last - first + 1, left=first, height=0.9, **look)
        ax.set(title=f"{name}: {steps} steps, {busy:.0%} of the slots at work", ylabel="slot of the batch (number)")
        ax.set_xlim(0, end)
        ax.invert_yaxis()
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(visible=False)
    axes[-1, 0].set_xlabel("step (count)")


def draw_memory(occupancies: Mapping[str, Sequence[Occupancy]], bytes_per_token: int) -> None:
    """What is set aside and what is held over the steps, one panel for each way."""
    _, axes = plt.subplots(1, len(occupancies), figsize=(10, 3.2), sharey=True, squeeze=False)
    for ax, (name, steps) in zip(axes[0], occupancies.items(), strict=True):
        x = np.arange(len(steps))
        reserved, held = (
            [getattr(step, what) * bytes_per_token / 1e6 for step in steps] for what in ("reserved", "held")
        )
        ax.fill_between(x, reserved, step="mid", color="#d9d9d9", label="set aside")
        ax.fill_between(x, held, step="mid", color=plots.COLORS[0], label="holds tokens")
        ax.set(title=name, xlabel="step (count)")
    axes[0, 0].set_ylabel("KV cache (MB)")
    axes[0, 0].legend()


def draw_waiting(by_way: Mapping[str, Sequence[Replay]]) -> None:
    """For each way: what share of requests had to wait no longer than so many seconds for the first token, and what
    share of all tokens came no longer after the one before."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    for ax, what, label in (
        (axes[0], "to_first_token", "time to the first token (s)"),
        (axes[1], "between_tokens", "time between tokens (s)"),
    ):
        for place, (name, runs) in enumerate(by_way.items()):
            values = np.sort([each for one in runs for each in getattr(one, what)])
            share = 100 * np.arange(1, len(values) + 1) / len(values)
            look = dict(color=plots.COLORS[place], linestyle=("-", "--", ":", "-.")[place % 4], marker="")
            ax.plot(values, share, label=name, **look)
        ax.set(xlabel=label, ylim=(0, 101))
    axes[0].set(title="How long people wait for a beginning", ylabel="requests (%)")
    axes[1].set(title="... and from token to token", ylabel="tokens (%)", xscale="log")
    axes[0].set_xlim(left=0)
    axes[0].legend(loc="lower right")


def draw_users(by_users: Mapping[int, Replay]) -> None:
    """Tokens a second of all users together, and time between the tokens of one, over the number of users."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    users = list(by_users)
    rates = [one.tokens_per_second for one in by_users.values()]
    gaps = [1e3 * float(np.mean(one.between_tokens)) for one in by_users.values()]
    axes[0].plot(users, rates, color=plots.COLORS[0], marker="o", label="measured")
    axes[0].plot(
        users,
        [rates[0] * n / users[0] for n in users],
        color="#555555",
        linestyle=":",
        marker="",
        label="if users cost nothing",
    )
    axes[0].set(title="All users together", ylabel="tokens per second", ylim=(0, 1.3 * max(rates)))
    axes[0].legend()
    axes[1].plot(users, gaps, color=plots.COLORS[1], marker="s")
    axes[1].set(title="What one user sees", ylabel="time between tokens (ms)", ylim=(0, None))
    for ax in axes:
        ax.set_xlabel("users at a time (count)")


def draw_gains(gains: Mapping[int, Mapping[int, Comparison]]) -> None:
    """How many times as many tokens a second guesses bring, over the users, a line for each number of guesses; 1 is
    where they bring nothing."""
    _, ax = plt.subplots(figsize=(8, 3.2))
    for place, (count, by_users) in enumerate(gains.items()):
        ratios = [gain.ratio for gain in by_users.values()]
        below = [max(0, gain.ratio - gain.low) for gain in by_users.values()]
        above = [max(0, gain.high - gain.ratio) for gain in by_users.values()]
        look = {"color": plots.COLORS[place], "marker": plots.MARKERS[place], "linestyle": ("-", "--")[place % 2]}
        ax.errorbar(list(by_users), ratios, (below, above), capsize=3, label=f"{count} guesses", **look)
    ax.axhline(1, color="#555555", linewidth=1)
    ax.legend()
    users = list(next(iter(gains.values())))
    ax.set_xscale("log", base=2)
    ax.set_xticks(users, list(map(str, users)))
    ax.set(title="What guesses bring", xlabel="users at a time (count)", ylabel="with guesses over without (times)")
