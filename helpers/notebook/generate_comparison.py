"""The course's plain greedy loop beside transformers' `generate`: identity and speed, printed and recorded (00)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers.measuring.timing import Comparison, Timed, speedup
from helpers.notebook.results import Results
from helpers.notebook.step_times import SUFFIX, note_speedup
from helpers.profiling.against_generate import AS_IT_COMES, OURS, SAME_LAYERS, identical

KEY = "start.decode_vs_hf_generate"


def show_same_twice(alone: Sequence[Timed], turns: Mapping[str, Timed]) -> None:
    """The same program timed twice: one after the other, and in turns with an interval; what that teaches."""
    first, second = (sum(one.seconds) for one in alone)
    print(f"one after the other: {first / second:.3f} times as fast, the second time")
    gain = speedup(*(one.seconds for one in turns.values()))
    print(f"in turns: {gain.ratio:.3f} ({gain.low:.3f} to {gain.high:.3f}, n = {gain.n})")
    print("It is the same program, so the true ratio is 1: all else is noise.", end=" ")
    if gain.real:
        print("Here not even the interval\nholds 1: over so few prompts it is too narrow. Take more of them.")
    else:
        print("The interval holds 1, and so it\nclaims nothing.")


def show_identity(results: Results, timed: Mapping[str, Timed]) -> None:
    """In float32: to how many prompts the loop answers as `generate` does, token by token; writes the invariant."""
    same, of = len(identical(timed, AS_IT_COMES, OURS)), len(timed[OURS].results)
    results.invariant("start.identical_to_hf_generate", same == of, same, of)
    tokens = sum(map(len, timed[OURS].results))
    print(f"float32: {same} of {of} answers identical, token for token ({tokens} tokens).")


def show_speed(results: Results, timed: Mapping[str, Timed], dtype: str) -> None:
    """How many times as fast the loop is, over the prompts that all arms answered alike; writes the ratios."""
    chosen, of = identical(timed, AS_IT_COMES, SAME_LAYERS, OURS), len(timed[OURS].results)
    results.metric(f"start.identical_share{SUFFIX[dtype]}", len(chosen) / of, "share", n=of)
    if len(chosen) < of:
        print(f"{dtype}: {of - len(chosen)} of {of} answers differ; the times are over the other {len(chosen)}.")
    if len(chosen) < 2:
        print("Too few are equal for a comparison.")
        return
    key = f"{KEY}{SUFFIX[dtype]}"
    whole = note_speedup(results, key, _gain(timed, AS_IT_COMES, chosen))
    layers = note_speedup(results, f"{key}.same_layers", _gain(timed, SAME_LAYERS, chosen))
    print(f"{dtype}, against generate as it comes")
    print(f"    {whole}")
    print(f"{dtype}, against generate with packed linears")
    print(f"    {layers}")
    print(_read(whole, layers))


def _gain(timed: Mapping[str, Timed], base: str, chosen: Sequence[int]) -> Comparison:
    return speedup(*([timed[arm].seconds[place] for place in chosen] for arm in (base, OURS)))


def _read(whole: Comparison, layers: Comparison) -> str:
    """Where the gain comes from."""
    if not whole.real or whole.ratio < 1:
        return "Here the loop and its fused step gain nothing that can be shown."
    if not layers.real or layers.ratio < 1:
        return "All of the gain comes from packing: with packed linears generate is as fast."
    packing = whole.ratio / layers.ratio
    return f"Packing is worth {packing:.2f}x of it in generate; the fused step and the leaner loop are the rest."


def record_answers(
    results: Results, ids: Sequence[str], timed: Timed, texts: Sequence[str], right: Sequence[bool], dtype: str
) -> None:
    """A line for each prompt in NN_name.prompts.jsonl."""
    for row in zip(ids, timed.seconds, map(len, timed.results), texts, right, strict=True):
        prompt_id, *answer = row
        results.prompt(prompt_id, "greedy", dtype, *answer)
