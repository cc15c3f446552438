"""Notebook 08b's tables, figure and sentences: who answers how fast, how near to the floor, and the same or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt

from helpers import models
from helpers.measuring.quality import wilson
from helpers.measuring.timing import Comparison
from helpers.notebook import plots
from helpers.notebook.opponents import NEAR_TIE, Findings
from helpers.notebook.results import Results
from helpers.notebook.sentences import say
from helpers.notebook.step_times import note_speedup
from helpers.profiling.agreement import margin
from helpers.profiling.fresh_runs import alike, gain_over_runs
from helpers.profiling.opponents import BATCH, DTYPE, FUSED, GUESSES, LONG, ONE
from helpers.text_to_sql.evaluate import right_answers

Q4 = "llama_cpp_q4_1"


def show_speeds(results: Results, found: Findings) -> dict[str, Comparison]:
    """A line for each contender, the fastest last: tokens per second, its floor, the share; writes the metrics."""
    results.metric("opponents.bandwidth", found.bandwidth / 1e9, "GB/s")
    rates = {key: found.rate(key) for key in found.contenders}
    runs = len(found.runs)
    print(f"{'single requests, tokens per second':36}{'measured':>9}{'interval':>16}{'floor':>8}{'share':>8}")
    for key in sorted(rates, key=lambda key: rates[key].ratio):
        rate, floor = rates[key], found.floor(key)
        ends = f"{rate.low:.0f} to {rate.high:.0f}"
        print(f"{found.contenders[key].words:36}{rate.ratio:9.0f}{ends:>16}{floor:8.0f}{rate.ratio / floor:8.0%}")
        interval = dict(low=rate.low, high=rate.high, n=rate.n)
        results.metric(f"opponents.{key}.tokens_per_second", rate.ratio, "tokens/s", **interval)
        shares = {name: getattr(rate, name) / floor for name in ("low", "high")}
        results.metric(f"opponents.{key}.share_of_floor", rate.ratio / floor, "share", **shares, n=rate.n)
    print(f"({rate.n} prompts, {runs} process{'es' * (runs > 1)} each; prefill and all)")
    return rates


def draw_speeds(found: Findings, rates: Mapping[str, Comparison]) -> None:
    """A bar for each contender, and its floor as an upright stroke; then what the figure says."""
    order = sorted(rates, key=lambda key: -rates[key].ratio)
    ax = plots.bars_with_intervals(
        [found.contenders[key].words for key in order],
        [rates[key].ratio for key in order],
        [(rates[key].low, rates[key].high) for key in order],
        title="Who answers how fast, and what one reading of the weights a token allows",
        value_label="speed of whole requests (tokens per second)",
    )
    floors = [found.floor(key) for key in order]
    look = dict(marker="|", markersize=22, linestyle="")
    ax.plot(floors, range(len(order)), color="white", markeredgewidth=6, **look)  # to be seen on a bar, too
    label = "the floor: bandwidth over bytes of the weights"
    ax.plot(floors, range(len(order)), color="black", markeredgewidth=2.5, label=label, **look)
    ax.set_xlim(0, 1.15 * max(*floors, *(rates[key].high for key in order)))
    ax.legend(loc="lower right", fontsize=9)
    plt.gcf().set_size_inches(9, 0.55 * len(order) + 1.6)
    _read_speeds(found, rates)


def _read_speeds(found: Findings, rates: Mapping[str, Comparison]) -> None:
    share = {key: rates[key].ratio / found.floor(key) for key in rates}
    plain = [key for key in rates if not found.contenders[key].guesses]
    nearest = max(plain, key=share.get)
    sentences = [f"Nearest to its floor without guesses: {found.contenders[nearest].words}, {share[nearest]:.0%}."]
    if share[GUESSES] > 1:
        sentences.append("With guesses ours is past its floor: a reading of the weights brings more than one token.")
    else:
        sentences.append(
            f"With guesses ours is at {share[GUESSES]:.0%} of the floor of plain decoding, and could go past it: a "
            "reading of the weights brings more than one token."
        )
    if Q4 in rates and rates[Q4].ratio > rates[GUESSES].ratio:
        less = found.contenders[Q4].weight_bytes / found.contenders[GUESSES].weight_bytes
        sentences.append(f"The 4-bit file wins all the same: it has {less:.0%} of the bytes to read for each token.")
    _say(sentences)


def strongest_greedy(found: Findings, rates: Mapping[str, Comparison]) -> str:
    """The fastest plain greedy decoding in our precision."""
    return max((key for key, one in found.contenders.items() if one.plain), key=lambda key: rates[key].ratio)


def show_key_ratios(
    results: Results, found: Findings, rates: Mapping[str, Comparison], guesses: Mapping[str, float]
) -> None:
    """Our guessed request against the strongest plain greedy one of the same precision, and against llama.cpp's on its
    4-bit file: your guess, the measurement, its reading; writes both."""
    timed, strongest = found.timed(), strongest_greedy(found, rates)
    pairs = {"medusa.speedup_over_strongest_greedy": strongest, "medusa.vs_llama_cpp_q4": Q4}
    for key, other in pairs.items():
        if other not in found.contenders:
            print(f"{key} is not measured: {other.replace('_', ' ')} took no part.")
            continue
        gain = note_speedup(results, key, gain_over_runs(timed, other, GUESSES))
        print(f"ours, all guessers, against {found.contenders[other].words}: {gain}; you guessed {guesses[key]:g}")
        _say([_verdict(found, other, gain)])


def _verdict(found: Findings, other: str, gain: Comparison) -> str:
    many = found.field.sizes.prompts
    less = found.contenders[other].weight_bytes / found.contenders[GUESSES].weight_bytes
    over = "all prompts" if gain.n == many else f"the {gain.n} prompts that both answered alike"
    if not gain.real:
        return f"Over {over} no difference is shown."
    if gain.ratio > 1:
        return f"Over {over} ours is the faster one, on {found.contenders[GUESSES].precision} weights."
    if less < 1:
        return f"Over {over} ours loses: the other reads {less:.0%} of its bytes for each token."
    return f"Over {over} ours loses: the other's step is faster by more than guesses bring."


def show_split(results: Results, found: Findings) -> None:
    """For each opponent: how many times as fast ours is; where that one decodes plainly, how much of it is the step and
    how much guessing. The two parts multiplied are the whole. Writes the whole."""
    timed = found.timed()
    print(f"{'ours over':36}{'whole':>8} = {'step':>6} x {'guessing':>8}   prompts")
    parts = {}
    for key in (key for key in found.contenders if key not in (FUSED, GUESSES)):
        places = alike(timed, key, FUSED, GUESSES)
        places = places if len(places) > 1 else range(found.field.sizes.prompts)
        total = {
            arm: sum(run[arm].seconds[place] for run in timed for place in places) for arm in (key, FUSED, GUESSES)
        }
        step, guessing = total[key] / total[FUSED], total[FUSED] / total[GUESSES]
        line = f"{found.contenders[key].words:36}{step * guessing:8.2f}   "
        if found.contenders[key].guesses:
            print(f"{line}{'it guesses, too':>17}{len(places):10}")
        else:
            parts[key] = step, guessing
            print(f"{line}{step:6.2f}   {guessing:8.2f}{len(places):10}")
        note_speedup(results, f"opponents.{key}.ours_faster", gain_over_runs(timed, key, GUESSES))
    _read_split(found, parts)


def _read_split(found: Findings, parts: Mapping[str, tuple[float, float]]) -> None:
    behind = [found.contenders[key].words for key, (step, _) in parts.items() if step < 1]
    sentences = []
    if behind:
        sentences.append(f"Without guesses our step is slower than {_listed(behind)}.")
    won_back = [found.contenders[key].words for key, (step, guess) in parts.items() if step < 1 < step * guess]
    if won_back:
        sentences.append(f"Guessing wins that back against {_listed(won_back)}.")
    if not behind and parts:
        sentences.append("Without guesses our step is the fastest here already, so guessing is not all of the gain.")
    _say(sentences)


def show_agreement(results: Results, found: Findings) -> None:
    """How many answers are those of our plain greedy decoding, token for token; where the others part, by how much the
    model in float32 prefers our token; how many are right. Writes the metrics."""
    model, tokenizer = models.load(found.field.bench.model_id, device=found.field.lesson.device)
    prompts, examples = found.field.loads[ONE].prompts, found.field.examples
    ours, of = found.runs[0][FUSED, ONE].token_ids, len(prompts)
    print(f"{'answers':36}{'equal':>12}{'near ties':>12}{'median gap':>12}{'right':>8}")
    near = {}
    for key, one in found.contenders.items():
        theirs = found.runs[0][key, ONE].token_ids
        same = sum(a == b for a, b in zip(ours, theirs))
        differ = [row for row in zip(prompts, ours, theirs) if row[1] != row[2]]
        gaps = [abs(gap) for row in differ[:30] if (gap := margin(model, *row)) is not None]
        near[key] = sum(gap < NEAR_TIE for gap in gaps), len(gaps), len(differ)
        texts = tokenizer.batch_decode(theirs, skip_special_tokens=True)
        right = sum(right_answers(examples, texts))
        gap = f"{median(gaps):.2f} nats" if gaps else ""
        ties = f"{near[key][0]} of {len(gaps)}" if gaps else ""
        print(f"{one.words:36}{f'{same} of {of}':>12}{ties:>12}{gap:>12}{right:>8}")
        _note_share(results, f"opponents.{key}.identical_share", same, of)
        _note_share(results, f"opponents.{key}.execution_accuracy", right, of)
    print(f"(Equal to our plain greedy decoding in {DTYPE}; a near tie: less than {NEAR_TIE} nats between the tokens.)")
    _read_agreement(found, near)


def _read_agreement(found: Findings, near: Mapping[str, tuple[int, int, int]]) -> None:
    sixteen = [key for key, one in found.contenders.items() if one.precision == DTYPE and near[key][2]]
    fewer = [key for key, one in found.contenders.items() if one.precision != DTYPE and near[key][2]]
    sentences = []
    if sixteen:
        ties, of = (sum(near[key][i] for key in sixteen) for i in (0, 1))
        sentences.append(f"With the same 16-bit weights {ties} of {of} differences begin at a near tie.")
        sentences.append("Engines add in another order, and where two tokens score the same that decides.")
    else:
        sentences.append("With the same 16-bit weights all answers are the same.")
    if fewer:
        ties, of = (sum(near[key][i] for key in fewer) for i in (0, 1))
        sentences.append(f"With fewer bits it is {ties} of {of}: there the weights themselves are others.")
    _say(sentences)


def show_batches_and_long(results: Results, found: Findings) -> None:
    """Tokens per second one by one, in batches and after long prompts, for those that can; writes the metrics."""
    size, loads = found.field.sizes.batch_size, found.field.loads
    tokens = median(map(len, loads[LONG].prompts))
    columns = {ONE: "one by one", BATCH: f"{size} at a time", LONG: f"after {tokens:.0f} tokens"}
    print(f"{'tokens per second':36}" + "".join(f"{words:>20}" for words in columns.values()))
    for key, one in found.contenders.items():
        rates = {load: found.rate(key, load) for load in columns if found.has(key, load)}
        cells = [f"{rates[load].ratio:.0f}" if load in rates else "-" for load in columns]
        print(f"{one.words:36}" + "".join(f"{cell:>20}" for cell in cells))
        for load, suffix in ((BATCH, f"batch_{size}"), (LONG, "long")):
            if load in rates:
                rate = rates[load]
                key_of, ends = f"opponents.{key}.tokens_per_second.{suffix}", dict(low=rate.low, high=rate.high)
                results.metric(key_of, rate.ratio, "tokens/s", **ends, n=rate.n)
    _read_batches(found, columns)


def _read_batches(found: Findings, columns: Mapping[str, str]) -> None:
    gains = {load: found.rate(GUESSES, load).ratio / found.rate(FUSED, load).ratio for load in columns}
    sentences = [
        f"What guessing is worth: {gains[ONE]:.2f} one by one, {gains[BATCH]:.2f} with {columns[BATCH]}, "
        f"{gains[LONG]:.2f} {columns[LONG]}."
    ]
    if gains[BATCH] < gains[ONE]:
        sentences.append("Others' tokens fill a step already, so that guesses cost more there.")
    if gains[LONG] < gains[ONE]:
        sentences.append(
            "A long prompt takes its time before the first token, and guesses shorten only what comes after."
        )
    fastest = {
        load: max((key for key in found.contenders if found.has(key, load)), key=lambda k: found.rate(k, load).ratio)
        for load in (BATCH, LONG)
    }
    for load, key in fastest.items():
        sentences.append(f"The fastest {columns[load]} is {found.contenders[key].words}.")
    _say(sentences)


def what_limits(found: Findings, rates: Mapping[str, Comparison]) -> str:
    """The closing sentence, from what was measured."""
    share = rates[FUSED].ratio / found.floor(FUSED)
    if share < 0.6:
        return f"Our step is at {share:.0%} of its floor: overhead limits it, and the next notebook compiles it away."
    return f"Our step is at {share:.0%} of its floor: what is left are the bytes, and fewer of them are notebook 02's."


def _note_share(results: Results, key: str, count: int, of: int) -> None:
    low, high = wilson(count, of)
    results.metric(key, count / of, "share", low=min(low, count / of), high=max(high, count / of), n=of)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _say(sentences: Sequence[str]) -> None:
    if sentences:
        say(*sentences)
