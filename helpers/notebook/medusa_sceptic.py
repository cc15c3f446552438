"""What a sceptical engineer asks of a speedup, answered from what was measured (notebook 08)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from statistics import median

import torch

from helpers import models
from helpers.decoding.generate import steps
from helpers.errors import CourseError
from helpers.kernels.fastest_step import ways
from helpers.measuring import probes
from helpers.measuring.cost_model import Shape
from helpers.measuring.timing import Comparison, interleave, speedup
from helpers.notebook import results as kept
from helpers.notebook.equation import equation_here
from helpers.notebook.kernel_parts import LABELS
from helpers.notebook.lesson import Lesson
from helpers.notebook.medusa_bench import BFLOAT16, MedusaBench
from helpers.notebook.medusa_choice import FixedTree, Prices, halves
from helpers.notebook.medusa_duel import ALL, ALONE, GREEDY
from helpers.notebook.results import Results
from helpers.notebook.step_times import note_speedup
from helpers.profiling.step_time import step_seconds
from helpers.speculation.medusa import Medusa
from helpers.speculation.node_chances import Position
from helpers.speculation.plan import Costs, Plan, make_plan
from helpers.speculation.replay import chosen

MEMORY = "memory"


@dataclass(frozen=True)
class Ladder:
    """Seconds a token (prefill left out) by the kind of step and the way to guess, what bytes over bandwidth allow for
    a plain step, and each kind's gain by guessing."""

    token_seconds: dict[tuple[str, str], float]
    floor: float
    gains: dict[tuple[str, str], Comparison]

    @property
    def factors(self) -> tuple[float, float, float]:
        """Times the tokens a second: by the fastest step over the first, by the heads, by the other guessers."""
        kinds = [kind for kind, _ in self.token_seconds]
        steps = [(kinds[0], GREEDY), (kinds[-1], GREEDY), (kinds[-1], ALONE), (kinds[-1], ALL)]
        seconds = [self.token_seconds[step] for step in steps]
        return tuple(before / after if after else 1.0 for before, after in pairwise(seconds))

    @property
    def whole(self) -> float:
        """All three together."""
        return prod(self.factors)


def measure_ladder(bench: MedusaBench, found: FixedTree, plan: Plan, prompts: Sequence[list[int]]) -> Ladder:
    """Plain greedy decoding, heads and all guessers, in turns, on all kinds of step that there are here: transformers'
    own, with packed linears, fused in PyTorch, in C++."""
    proposers = {GREEDY: None, ALONE: Medusa(bench.heads[BFLOAT16], found.tree), ALL: bench.planned(plan, BFLOAT16)}
    arms = {
        (kind, name): partial(_decode, model, proposer, bench.sizes.longest)
        for kind, model in ways(bench.models[BFLOAT16], bench.sizes.turns).items()
        for name, proposer in proposers.items()
    }
    for answer in arms.values():  # on a prompt that is not timed: a guesser would know its answer
        answer(prompts[-1])
    prompts = prompts[:-1] or prompts
    device = bench.lesson.device
    memory = probes.Memory(device=device)
    reading = {MEMORY: lambda prompt: memory.read()}
    timed = interleave(arms | reading, prompts, warmup=0, device=device)
    del timed[MEMORY]
    decode = {arm: [seconds for _, seconds in one.results] for arm, one in timed.items()}
    tokens = {arm: sum(count for count, _ in one.results) for arm, one in timed.items()}
    gains = {}
    for kind, name in arms:
        if name != GREEDY and len(prompts) > 1:
            gains[kind, name] = speedup(timed[kind, GREEDY].seconds, timed[kind, name].seconds)
    floor = Shape.of(bench.models[BFLOAT16]).weight_bytes / memory.bandwidth
    return Ladder({arm: sum(decode[arm]) / max(1, tokens[arm]) for arm in arms}, floor, gains)


def _decode(model, proposer, max_new_tokens: int, prompt: Sequence[int]) -> tuple[int, float]:
    """(tokens of decode steps, their seconds)."""
    done = list(steps(model, prompt, max_new_tokens=max_new_tokens, proposer=proposer))[1:]
    return sum(len(step.emitted) for step in done), sum(step.seconds for step in done)


def show_ladder(results: Results, ladder: Ladder) -> None:
    """Milliseconds a token of each kind and way, as a multiple of the floor too; writes them."""
    kinds = list(dict.fromkeys(kind for kind, _ in ladder.token_seconds))
    print(f"Bytes over bandwidth allow {1e3 * ladder.floor:.1f} ms for a step of one token (bfloat16).")
    print(f"{'ms a token (times that floor)':32}" + "".join(f"{name:>20}" for name in (GREEDY, ALONE, ALL)))
    results.metric("medusa.floor_ms", 1e3 * ladder.floor, "ms")
    for kind in kinds:
        row = ""
        for name in (GREEDY, ALONE, ALL):
            seconds = ladder.token_seconds[kind, name]
            row += f"{1e3 * seconds:13.1f} ({seconds / ladder.floor:4.1f})"
            key = f"medusa.token_ms.{kind}.{name.replace(' ', '_')}"
            results.metric(key, 1e3 * seconds, "ms")
            if (kind, name) in ladder.gains:
                note_speedup(results, f"medusa.step_speedup.{kind}.{name.replace(' ', '_')}", ladder.gains[kind, name])
        print(f"{'step: ' + LABELS.get(kind, kind):32}{row}")
    whole, (step, heads, rest) = ladder.whole, ladder.factors
    print(f"From transformers' plain loop to ours with all guessers: {whole:.2f} times the tokens a second =", end=" ")
    print(f"{step:.2f} by the step\nx {heads:.2f} by the heads x {rest:.2f} by the other guessers.")


def gain_of(
    costs: Costs, recorded: Sequence[Sequence[Position]], recorded_names: Sequence[str], plan: Plan, asking: float
) -> Plan:
    """The plan's guessers in a tree made for other costs, on the same validation answers: predicted. `recorded_names`
    are the guessers of the records, in their order."""
    places = [recorded_names.index(name) for name in plan.guessers]
    counted, tried = halves(chosen(recorded, places))
    return make_plan(plan.guessers, counted, tried, costs, asking)


def show_batches(
    prices: Prices,
    recorded: Sequence[Sequence[Position]],
    plan: Plan,
    asking: float,
    users: Sequence[int] = (1, 2, 4, 8),
) -> dict[int, float]:
    """What is left of the gain where several users share a step, whose rows they all add to; predicted from the verify
    cost, each time with the tree that pays."""
    largest, gains = max(prices.costs.step), {}
    for count in (1, 2, 4, 8):
        step = {n: prices.costs.step_of(count * n) for n in range(1, largest // count + 1)}
        there = gain_of(Costs(prices.costs.prefill, step), recorded, prices.bench.guesser_names, plan, asking)
        gains[count] = there.speedup
        print(f"{count} at once: {there.guesses_per_step:4.1f} guesses a step for each,", end=" ")
        print(f"{there.tokens_per_step:.2f} tokens, {there.speedup:.2f} times as fast (predicted)")
    return gains


def show_long_contexts(bench: MedusaBench, plan: Plan, contexts: Sequence[int] = (128, 1024)) -> dict[int, float]:
    """What the plan's average step costs beside a plain one, by the context before it: measured."""
    reads, ratios = 1 + max(1, round(plan.guesses_per_step)), {}
    rounds = bench.sizes.rounds
    for context in contexts:
        times = step_seconds(bench.fast[BFLOAT16], (1, reads), context=context, rounds=rounds)
        one, many = median(times[1]), median(times[reads])
        ratios[context] = many / one
        print(
            f"after {context} tokens: a step of 1 token {1e3 * one:.1f} ms, of {reads} tokens {many / one:.2f} times",
            end=" ",
        )
        print(f"that; {plan.tokens_per_step:.2f} tokens a step would be worth {plan.tokens_per_step * one / many:.2f}x")
    return ratios


def show_large_model(
    lesson: Lesson, recorded: Sequence[Sequence[Position]], plan: Plan, prices: Prices, asking: float
) -> dict[str, float]:
    """The gain for the shape of a Llama of 7 billion weights, if its heads were right as often as these: predicted by
    notebook 00's equation, for the plan's guessers and for a draft of a tenth of the layers that is right as often."""
    equation = equation_here(lesson)
    with torch.device("meta"):
        shape = Shape.of(models.shape_only("llama-7b", BFLOAT16, "meta"))
    step = {n: equation(shape, BFLOAT16, n, 128) for n in prices.costs.step}
    scaled = asking / prices.costs.step_of(1) * step[1]  # heads grow with the model
    there = gain_of(Costs(equation(shape, BFLOAT16, 150), step), recorded, prices.bench.guesser_names, plan, scaled)
    key = "medusa.speedup.with_lookup.llama_7b.predicted"
    lesson.results.prediction(key, there.speedup, "x")
    print(f"7 billion weights, a step {1e3 * step[1]:.0f} ms: {there.guesses_per_step:.1f} guesses a step,", end=" ")
    print(f"{there.tokens_per_step:.2f} tokens, {there.speedup:.2f} times as fast (predicted)")
    ahead = there.tokens_per_step - 1
    draft = there.tokens_per_step * step[1] / (Costs(0.0, step).step_of(1 + round(ahead)) + 0.1 * ahead * step[1])
    print(
        f"A draft that is right as often and has a tenth of the layers: about {draft:.2f} times, decode alone", end=" "
    )
    print(
        "(predicted):\nit needs a step of its own for each guess, one after the other; heads need one product for all."
    )
    return {"heads": there.speedup, "draft": draft}


def answer_the_sceptic(
    lesson: Lesson,
    ladder: Ladder,
    batches: Mapping[int, float],
    contexts: Mapping[int, float],
    large: Mapping[str, float],
    *,
    gains: Mapping[str, Comparison],
    people: Mapping[str, Comparison],
    prose: Mapping[str, Comparison],
) -> None:
    """Question and answer, in the order in which they are asked; each answer is made from a result."""
    results, fastest = lesson.results, list(ladder.token_seconds)[-1][0]
    best, all_gain = ladder.token_seconds[fastest, ALL], gains[ALL]
    own = {kind: ladder.gains[kind, ALL].ratio for kind, name in ladder.gains if name == ALL}
    floor = f"{1e3 * ladder.floor:.1f} ms a plain step; our tree takes {1e3 * best:.1f} ms a token"
    below = "below it: several tokens share a reading" if best < ladder.floor else f"{best / ladder.floor:.1f} times it"
    _say("What is the floor, and how far is it?", f"{floor}, {below}.")
    _say("Where is llama.cpp? And heads inside vLLM, compiled?", _other_engines(lesson))
    first = results.metrics.get("medusa.head_accuracy.head_1", {}).get("value")
    unprepared = f"The first head is right {first:.0%} of the time here. " if first is not None else ""
    chat = f"On the untouched base's prose all guessers gain {prose[ALL].ratio:.2f}x." if prose else ""
    _say("Heads on a base that nobody prepared for them?", f"SmolLM2 was not. {unprepared}{chat}".strip())
    right = results.metrics.get("medusa.handwritten_execution_accuracy")
    words = f", and {right['value']:.0%} of {right['n']} answers are right" if right else ""
    _say("What speed on people's questions, and are the answers right?", f"{people[ALL].ratio:.2f}x{words}.")
    kernels = "; ".join(f"{LABELS.get(kind, kind)} {ratio:.2f}x" for kind, ratio in own.items())
    kernels = kernels or "too few prompts to say"
    _say("Is the gain owed to kernels that favour several tokens?", f"By the kind of step on both sides: {kernels}.")
    step, heads, rest = ladder.factors
    parts = (
        f"{ladder.whole:.2f} over transformers' plain loop = {step:.2f} step x {heads:.2f} heads x {rest:.2f} others"
    )
    _say("How much is heads, how much the step, how much lookup?", f"{parts}.")
    several = ", ".join(f"{count} at once {ratio:.2f}x" for count, ratio in batches.items())
    _say("Batches above one?", f"{several} (predicted; 08b measures them).")
    long = ", ".join(f"{ratio:.2f} times a plain one after {context} tokens" for context, ratio in contexts.items())
    _say("Long contexts?", f"A step with guesses costs {long}.")
    day = f"{all_gain.runs} process{'es' * (all_gain.runs > 1)} gave {all_gain.low:.2f} to {all_gain.high:.2f}"
    _say("Another day?", f"{day}, the interval over them and over {all_gain.n} prompts.")
    guessed, draft = (f"{large[name]:.2f}x" for name in ("heads", "draft"))
    verdict = (
        f"As right as these, heads promise {guessed} there and a draft of a tenth of the layers {draft} (predicted)"
    )
    _say("Why heads, if a draft model is predicted to win at 7B?", f"{verdict}; heads need no second model.")


def _say(question: str, answer: str) -> None:
    print(f"{question}\n   {answer}")


def _other_engines(lesson: Lesson) -> str:
    """What the extra 08b measured under this profile, or where it will."""
    try:
        names = [name for name in kept.load_all(lesson.profile, lesson.results.folder) if name.startswith("08b")]
        measured = kept.load(lesson.profile, names[0], lesson.results.folder)["metrics"] if names else {}
    except CourseError:
        measured = {}
    ratios = {
        "the fastest plain greedy decoding of the same precision": "medusa.speedup_over_strongest_greedy",
        "llama.cpp on its 4-bit file": "medusa.vs_llama_cpp_q4",
    }
    found = [f"{measured[key]['value']:.2f}x against {words}" for words, key in ratios.items() if key in measured]
    return f"{', '.join(found)} (08b)." if found else "The extra 08b measures them; it has not run here yet."
