"""What came out of notebook 07: speedups over all processes, answers, and what they say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib.pyplot as plt

from helpers.measuring.quality import paired
from helpers.measuring.timing import Comparison, Timed
from helpers.notebook import plots
from helpers.notebook.guess_bench import HF, Choice, Recorded
from helpers.notebook.guess_sizes import COMBINED, GREEDY, TRAINED
from helpers.notebook.guess_tables import WORDS
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import SUFFIX, note_speedup
from helpers.profiling.fresh_runs import alike, gain_over_runs, tokens_per_step
from helpers.text_to_sql.evaluate import right_answers
from helpers.text_to_sql.example import Example

Runs = Sequence[Mapping[str, Timed]]


def show_gains(results: Results, runs: Runs, choice: Choice, dtype: str) -> dict[str, Comparison]:
    """A line and a bar for each guesser, against plain greedy decoding of the same dtype by the same step; writes the
    metrics. `speculative.speedup` is that of the guesser which validation chose."""
    names = [name for name in runs[0] if name in choice.arms]
    gains = {name: gain_over_runs(runs, GREEDY, name) for name in names}
    of, per_request = len(runs[0][GREEDY].results), [mean(run[GREEDY].seconds) * 1e3 for run in runs]
    print(f"{dtype}, {of} prompts, {len(runs)} process{'es' * (len(runs) > 1)}; plain greedy takes", end=" ")
    print(f"{min(per_request):.0f} to {max(per_request):.0f} ms a request")
    for name, gain in gains.items():
        tokens, same = tokens_per_step(runs, name), len(alike(runs, GREEDY, name))
        note_speedup(results, f"speculative.speedup.{name}", gain)
        results.metric(f"speculative.accepted_per_step.{name}", tokens, "tokens", n=of)
        results.metric(f"speculative.identical_share.{name}{SUFFIX.get(dtype, '')}", same / of, "share", n=of)
        print(f"{WORDS[name]:16} {tokens:.2f} tokens a step, {gain}; same answer {same} of {of}")
    note_speedup(results, "speculative.speedup", gains[choice.best])
    plots.bars_with_intervals(
        [WORDS[name] for name in names],
        [gain.ratio for gain in gains.values()],
        [(gain.low, gain.high) for gain in gains.values()],
        title=f"Whole requests against plain greedy decoding, {dtype}",
        value_label="speed (times)",
    ).axvline(1, color="#555555", linestyle=":")
    plt.gcf().set_size_inches(8, 3.6)
    return gains


def read_gains(runs: Runs, gains: Mapping[str, Comparison], choice: Choice, guess: float) -> None:
    """What the bars say: the choice and its prediction, trained against untrained, warm against cold."""
    best, predicted = gains[choice.best], choice.predicted[choice.best]
    label = choice.combination if choice.best == COMBINED else WORDS[choice.best]
    sentences = [
        f"Validation chose: {label}.",
        f"It is {best.ratio:.2f} times as fast ({best.low:.2f} to {best.high:.2f}).",
        f"The cost model had predicted {predicted:.2f} ({predicted / best.ratio - 1:+.0%}), you {guess:g}.",
    ]
    luckiest = max(gains, key=lambda name: gains[name].ratio)
    if luckiest != choice.best:
        higher = f"{WORDS[luckiest]} came out higher here ({gains[luckiest].ratio:.2f})"
        sentences.append(f"{higher}: picked afterwards, that doesn't count.")
    untrained = [name for name in gains if name not in (TRAINED, COMBINED)]
    rival = max(untrained, key=choice.predicted.get)  # as validation ranked them
    duel = gain_over_runs(runs, TRAINED, rival)
    if duel.low > 1:
        sentences.append("The draft model loses to a guesser that nobody trained:")
        sentences.append(f"{WORDS[rival]} is {duel.ratio:.2f} times as fast.")
    elif duel.high < 1:
        sentences.append("The draft model is worth its training:")
        sentences.append(f"it is {1 / duel.ratio:.2f} times as fast as {WORDS[rival]}, the best of the untrained.")
    else:
        sentences.append(f"Draft model and {WORDS[rival]}, the best of the untrained, can't be told apart here.")
    losers = [WORDS[name] for name, gain in gains.items() if gain.high < 1]
    if losers:
        sentences.append(f"Slower than no guesses: {', '.join(losers)}. These guesses cost more than they bring.")
    warm, known = gain_over_runs(runs, "suffix.cold", "suffix.warm"), len(runs[0][GREEDY].results) - 1
    if warm.real:
        sentences.append(
            f"With the training split's answers and up to {known} of its own the suffix match is {warm.ratio:.2f} "
            "times as fast."
        )
    else:
        sentences.append(
            f"The training split's answers and up to {known} earlier ones gave the suffix match nothing that can be "
            "seen."
        )
    say(*sentences)


def show_against_transformers(results: Results, runs: Runs) -> None:
    """Ours against transformers' loop of the same kind, each at its best setting: on its own step, and on ours; writes
    the metrics, over prompts that both answered alike (so that they are ratios of tokens per second, too)."""
    kept = {}
    for kind, ours in HF.items():
        for suffix, words in (("", "its own step"), (".same_step", "our step in its loop")):
            key = f"speculative.vs_{kind}{suffix}"
            kept[key] = note_speedup(results, key, gain_over_runs(runs, kind + suffix, ours))
            same = len(alike(runs, kind + suffix, ours))
            print(f"{WORDS[kind]}, {words}: ours is {kept[key]};", end=" ")
            print(f"same answer {same} of {len(runs[0][ours].results)}")
    for kind in HF:
        whole, loop = (kept[f"speculative.vs_{kind}{suffix}"].ratio for suffix in ("", ".same_step"))
        print(f"Against {WORDS[kind]} the step is worth {whole / loop:.2f}x of it, cache, loop and guesses", end=" ")
        print(f"{loop:.2f}x.")


def record_answers(
    results: Results, runs: Runs, arms: Sequence[str], examples: Sequence[Example], tokenizer, dtype: str
) -> None:
    """How many answers guessing changed, and what it did to them; a line for each prompt and arm."""
    texts, right = {}, {}
    for name in (GREEDY, *arms):
        ids = [answer.token_ids for answer in runs[0][name].results]
        texts[name] = tokenizer.batch_decode(ids, skip_special_tokens=True)
        right[name] = right_answers(examples, texts[name])
        seconds = [mean(each) for each in zip(*(run[name].seconds for run in runs))]
        for example, each, tokens, text, good in zip(examples, seconds, ids, texts[name], right[name], strict=True):
            results.prompt(example.id, name, dtype, each, len(tokens), text, good)
    changed = {name: sum(a != b for a, b in zip(texts[name], texts[GREEDY])) for name in arms}
    judged = {name: paired(right[GREEDY], right[name]) for name in arms if changed[name]}
    print(f"{sum(right[GREEDY])} of {len(examples)} answers of plain greedy decoding are right.", end=" ")
    if not judged:
        print(f"In {dtype}, too, no guesser changed one.")
    for name, change in judged.items():
        print(f"{WORDS[name]}: {changed[name]} answers differ ({dtype} has ties); {change}.")


def show_elsewhere(results: Results, recorded: Mapping[str, Recorded], suffix: str, words: str) -> None:
    """Tokens a step in other texts than the test's; writes them."""
    parts = []
    for name, one in recorded.items():
        key = f"speculative.accepted_per_step.{name}.{suffix}"
        results.metric(key, one.tokens_per_step, "tokens", n=len(one.answers))
        parts.append(f"{WORDS[name]} {one.tokens_per_step:.2f}")
    say(f"{words} ({len(next(iter(recorded.values())).answers)}), tokens a step: {', '.join(parts)}")
