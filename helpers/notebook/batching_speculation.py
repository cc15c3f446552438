"""What guesses bring when several people write at a time (notebook 05)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from helpers.decoding.in_batches import answers_in_batches
from helpers.engine.servers import Continuous
from helpers.engine.traffic import Request
from helpers.measuring.timing import Comparison
from helpers.notebook.batching_bench import BatchingBench, note_gain, replays
from helpers.notebook.results import Results
from helpers.profiling.arms import training_answers
from helpers.speculation.suffix import SuffixMatch
from helpers.text_to_sql.dataset import load_split
from helpers.weights.quantization.calibration import answer_pairs

LONGEST = 128  # tokens of an answer


def natural_requests(bench: BatchingBench, count: int) -> list[Request]:
    """Test questions with as many tokens as the model's own answer has: past an answer's end nobody would guess."""
    limit = bench.sizes.longest or LONGEST
    prompts = [prompt for prompt, _ in answer_pairs(bench.tokenizer, load_split("test", limit=count))]
    answers = answers_in_batches(bench.model, prompts, max_new_tokens=limit)
    return [Request(0.0, prompt, len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]


def compare_guessing(
    results: Results, bench: BatchingBench, counts: tuple[int, ...] = (4, 2)
) -> Mapping[int, Mapping[int, Comparison]]:
    """For each number of guesses and of users: tokens a second with guesses over those without; writes the ratios of
    the first number as `batching.speculation_gain.N`, and of the others with their number behind.

    Guesses are what followed the longest match in prompt, answer and the training split's answers (notebook 07). All
    arms share prefixes: what is read once for everybody is not what guesses are about.
    """
    sizes, earlier = bench.sizes, training_answers(bench.tokenizer)

    def served(users: int, guesses: int) -> Continuous:
        proposer = SuffixMatch(guesses, earlier=earlier) if guesses else None
        return Continuous(bench.engine(users, proposer, share_prefixes=True))

    asked = natural_requests(bench, sizes.by_users)
    gains: dict[int, dict[int, Comparison]] = {count: {} for count in counts}
    for users in sizes.users:
        servers = {guesses: partial(served, users, guesses) for guesses in (0, *counts)}
        kept, _ = replays(servers, asked, sizes.runs, users)
        for count in counts:
            key = f"speculation_gain.{users}" + ("" if count == counts[0] else f".guesses_{count}")
            gains[count][users] = note_gain(results, key, kept[0], kept[count])
            print(f"{users:>2} users, {count} guesses: {gains[count][users]}")
    return gains


def read_crossing(gains: Mapping[int, Mapping[int, Comparison]], guess: float) -> None:
    """For each number of guesses up to how many users they pay; the guess about the most users."""
    for count, by_users in gains.items():
        paying = [users for users, gain in by_users.items() if gain.low > 1]
        if paying:
            print(f"{count} guesses pay with {', '.join(map(str, paying))} users at a time.")
        else:
            print(f"{count} guesses can't be shown to pay with any number of users.")
    count, by_users = next(iter(gains.items()))
    ratio = by_users[max(by_users)].ratio
    print(f"With {max(by_users)} users and {count} guesses it is {ratio:.2f} times; you guessed {guess:g} for 16.")
