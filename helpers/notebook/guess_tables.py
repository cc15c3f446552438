"""What guesses cost and bring, as tables, figures and sentences (notebook 07)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import torch

from helpers import models
from helpers.decoding.completion import Completion
from helpers.decoding.generate import steps as decode_steps
from helpers.decoding.sampling import Sampling
from helpers.decoding.transcript import judged
from helpers.measuring.cost_model import Shape, StepTime
from helpers.measuring.timing import Timed
from helpers.notebook import plots
from helpers.notebook.guess_bench import HF, Choice, Recorded
from helpers.notebook.guess_sizes import COMBINED, TRAINED
from helpers.notebook.results import Results
from helpers.notebook.sentences import indented, say
from helpers.profiling.arms import Bench
from helpers.profiling.model_steps import Steps
from helpers.speculation.cost import (
    acceptance_of,
    accepted_per_step,
    best_k,
    break_even_acceptance,
    interpolated,
    predicted_speedup,
)
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.sampling_check import goodness_of_fit, pair_counts, unnormalised

WORDS = {
    TRAINED: "draft model",
    "prompt_lookup": "prompt lookup",
    "bigram": "bigram table",
    "recycling": "Token Recycling",
    "suffix.cold": "suffix, cold",
    "suffix.warm": "suffix, warm",
    COMBINED: "two combined",
    "hf_assisted": "assisted generation",
    "hf_prompt_lookup": "prompt lookup",
}


def show_verify_cost(equation: StepTime, steps: Steps) -> Callable[[int], float]:
    """A step's time by the tokens that it reads, as the equation predicts it and as it was measured. Returns the
    seconds of a step for any number of tokens, between the measured ones along a straight line."""
    lines = {f"measured, {steps.dtype}": steps.relative()}
    print(f"{'tokens in a step:':26}" + "".join(f"{n:7}" for n in steps.seconds))
    print(f"{'measured, ms':26}" + "".join(f"{steps.median(n) * 1e3:7.1f}" for n in steps.seconds))
    if steps.dtype in equation.bandwidth:
        predicted = {n: equation(steps.shape, steps.dtype, n, steps.context) for n in steps.seconds}
        lines["by the equation"] = [(n, seconds / predicted[1]) for n, seconds in predicted.items()]
        print(f"{'by the equation, ms':26}" + "".join(f"{seconds * 1e3:7.1f}" for seconds in predicted.values()))
    plots.step_time_vs_tokens(lines, title="What it costs to check several tokens in one step")
    plt.gcf().set_size_inches(8, 4)
    five = min(steps.seconds, key=lambda n: abs(n - 5))
    ratio = steps.median(five) / steps.median(1)
    say(
        f"Checking {five - 1} guesses makes a step {ratio:.2f} times as long.",
        f"It pays once the step brings more than {ratio:.2f} tokens on average, if guessing is free.",
    )
    return interpolated({n: steps.median(n) for n in steps.seconds})


def show_successors(successors: Mapping[int, Sequence[int]], tokenizer, words: Sequence[str], top: int = 4) -> None:
    """Rows of the table of Token Recycling, best successor first."""
    for word in words:
        token = tokenizer(word, add_special_tokens=False).input_ids[0]
        known = [repr(tokenizer.decode([t])) for t in successors.get(token, ())[:top]]
        print(f"{word!r:10} -> {', '.join(known) or 'not seen yet'}")


def show_steps(name: str, answer: Completion, tokenizer, most: int = 8) -> None:
    """An answer step by step: what each run of the model brought, who guessed it, and what was guessed in vain."""
    print(f"{name}: {len(answer.token_ids)} tokens in {len(answer.steps)} steps")
    for number, step in enumerate(answer.steps[:most]):
        emitted, rejected = judged(step)
        kept = " ".join(
            repr(tokenizer.decode([token])) + (f" ({who})" if who else " (model)") for token, who in emitted
        )
        vain = "  × " + " ".join(repr(tokenizer.decode([token])) for token in rejected[:4]) if rejected else ""
        more = f" and {len(rejected) - 4} more" if len(rejected) > 4 else ""
        print(f"  step {number}: {kept}{vain}{more}")
    if len(answer.steps) > most:
        print(f"  ... {len(answer.steps) - most} more steps")
    print()


def show_acceptance(recorded: Recorded, step_seconds: Callable[[int], float], longest: int = 8) -> float:
    """How often a chain's next guess is accepted, and what that predicts for chains of each length: with what a guess
    costs here, and if it were free. Returns the acceptance."""
    acceptance = acceptance_of(recorded.answers)
    guesses = sum(len(step.proposal.tokens) for answer in recorded.answers for step in answer.steps)
    cost = recorded.guess_seconds / max(1, guesses)
    ax = plt.subplots(figsize=(7, 3.4))[1]
    lines = {f"a guess takes {cost * 1e3:.1f} ms": cost, "if guessing were free": 0.0}
    for (label, each), marker in zip(lines.items(), plots.MARKERS):
        gains = [predicted_speedup(acceptance, k, step_seconds, each) for k in range(longest + 1)]
        ax.plot(range(longest + 1), gains, marker=marker, label=f"{label} (predicted)")
    ax.axhline(1, color="#555555", linestyle=":", marker="")
    ax.set(title=f"How many guesses are best at an acceptance of {acceptance:.0%}")
    ax.set(xlabel="guesses in a chain (tokens)", ylabel="speed of decode steps (times)")
    ax.legend(fontsize=9)
    best = best_k(acceptance, step_seconds, cost, range(longest + 1))
    even = break_even_acceptance(max(1, best), step_seconds, cost)
    print(
        f"The target accepts {acceptance:.0%} of the draft's guesses (validation; each counted if all before it",
        end=" ",
    )
    print(
        f"were right).\nA guess takes {cost * 1e3:.1f} ms, a step of the target {step_seconds(1) * 1e3:.1f}.", end=" "
    )
    if best:
        print(f"Chains of {best} are best, and break even at an acceptance of {even:.0%}.")
    else:
        print("At this price no chain pays: a draft has to be cheaper, or right more often.")
    return acceptance


def say_candidate(name: str, recorded: Recorded, gain: float) -> None:
    """A line for a candidate on validation."""
    options = {key: value for key, value in recorded.arm.items() if key not in ("make", "draft", "parts", "warm")}
    words = WORDS.get(name, name) + "".join(f", {k.replace('_', ' ')} {v}" for k, v in options.items())
    print(f"{words:52} {recorded.tokens_per_step:.2f} tokens a step, {gain:.2f}x (predicted)")


def show_choice(choice: Choice) -> None:
    """What was chosen, in a sentence."""
    label = choice.combination if choice.best == COMBINED else WORDS[choice.best]
    print(f"\nThe best combination: {choice.combination}. Least time by the cost model: {label}.")
    print(f"A whole request is predicted to be {choice.predicted[choice.best]:.2f} times as fast.")


def show_transformers(best: Mapping[str, Mapping], timed: Mapping[str, Timed]) -> None:
    """transformers' settings and their times; the best of each kind is named."""
    for name, one in timed.items():
        kind, _, setting = name.partition(" ")
        print(f"{WORDS[kind]:20} {setting:8} {1e3 * sum(one.seconds) / len(one.seconds):6.0f} ms a request")
    for kind in HF:
        settings = ", ".join(f"{k} {v}" for k, v in best[kind].items() if k not in ("make", "draft"))
        print(f"best for {WORDS[kind]}: {settings}")


def predict_elsewhere(
    equation: StepTime, shape: Shape, dtype: str, acceptance: float, draft_share: float, users: int = 1
) -> tuple[int, float]:
    """By the equation: the best length of a chain, and how many times as fast decode steps get with it.

    Args:
        draft_share: what a guess costs, as a share of the target's step for one token.
        users: sequences in a batch; each has guesses of its own, so a step reads users x (1 + guesses) tokens.
    """

    def seconds(num_tokens: int) -> float:
        return equation(shape, dtype, users * num_tokens, 128 * users)

    cost = draft_share * seconds(1)
    best = best_k(acceptance, seconds, cost, range(13))
    return best, predicted_speedup(acceptance, best, seconds, cost)


def check_sampling(results: Results, draws: int, seed: int, level: float = 1e-3) -> None:
    """Whether sampling with guesses fits the target's distribution, and a wrong residual is rejected; writes both."""
    fit = goodness_of_fit(pair_counts(draws, seed), seed)
    wrong = goodness_of_fit(pair_counts(draws, seed, left=unnormalised), seed)
    agrees, rejected = fit > level, wrong < level
    results.invariant("speculative.sampling_matches_target", agrees, draws * agrees, draws)
    results.invariant("speculative.sampling_test_rejects_a_wrong_residual", rejected, int(rejected), 1)
    print(f"{draws} draws: p-value {fit:.3f}; with the wrong residual {wrong:.1e} (rejected below {level})")


def show_suppositions(
    results: Results, equation: StepTime, steps: Steps, drafted: Recorded, users: Sequence[int] = (1, 4, 16, 64)
) -> None:
    """By the equation, with this draft's acceptance and its share of a step: more users, and 7 billion weights."""
    acceptance, dtype = acceptance_of(drafted.answers), steps.dtype
    guesses = sum(len(step.proposal.tokens) for answer in drafted.answers for step in answer.steps)
    share = drafted.guess_seconds / max(1, guesses) / steps.median(1)
    if dtype not in equation.bandwidth:
        print(f"The equation was not fitted in {dtype}: nothing to predict with.")
        return
    with torch.device("meta"):
        seven = Shape.of(models.shape_only("llama-7b", dtype, "meta"))
    print(f"Suppose {acceptance:.0%} accepted and a guess at {share:.0%} of a step; decode steps, by the equation:")
    for shape, words in ((steps.shape, "this model"), (seven, "7 billion weights")):
        parts = []
        for n in users:
            k, gain = predict_elsewhere(equation, shape, dtype, acceptance, share, n)
            parts.append(f"{n} user{'s' * (n > 1)}: {gain:.2f}x with {k} guess{'es' * (k != 1)}")
            if n == 1 and shape is seven:
                results.metric("speculative.decode_speedup.llama_7b", gain, "x", kind="predicted")
        print(indented(", ".join(parts), f"{words:18} "))


def show_sampled(
    bench: Bench, draft: str, prompts: Sequence[Sequence[int]], seed: int, temperatures: Sequence[float] = (0.5, 1.5)
) -> None:
    """Tokens a step when both models draw by chance, with chains of three guesses."""
    for temperature in temperatures:
        sampling = Sampling(temperature, seed=seed)
        proposer = DraftModel(bench.draft(draft).guessing, bench.fast, count=3, sampling=sampling)
        options = dict(max_new_tokens=min(40, bench.max_new_tokens), sampling=sampling, proposer=proposer)
        done = [Completion(len(ids), steps=list(decode_steps(bench.fast, ids, **options))) for ids in prompts]
        print(f"drawn at temperature {temperature}: {accepted_per_step(done):.2f} tokens a step, chains of 3")
