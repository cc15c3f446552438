"""What guesses bring when several people write at a time (notebook 05)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from helpers.decoding.in_batches import answers_in_batches
from helpers.decoding.proposer import Proposer
from helpers.engine.servers import Continuous
from helpers.engine.traffic import Request
from helpers.measuring.timing import Comparison
from helpers.notebook.batching_bench import BatchingBench, note_gain, replays
from helpers.notebook.results import Results
from helpers.profiling.arms import training_answers
from helpers.speculation.combine import Together
from helpers.speculation.recycling import TokenRecycling, fixed_tree
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


def guessing(bench: BatchingBench, count: int) -> Proposer:
    """What followed the longest match in prompt, answer and training answers, and what followed each token before:
    `count` guesses of each, in one tree (notebook 07)."""
    known = SuffixMatch(count, earlier=training_answers(bench.tokenizer))
    return Together(TokenRecycling(fixed_tree(count)), known)


def _served(bench: BatchingBench, users: int, guesses: int = 0) -> Continuous:
    return Continuous(bench.engine(users, guessing(bench, guesses) if guesses else None))


def compare_guessing(
    results: Results, bench: BatchingBench, counts: tuple[int, ...] = (4, 1)
) -> Mapping[int, Mapping[int, Comparison]]:
    """For each number of guesses and of users: tokens a second with guesses over those without; writes the ratios of
    the first number as `batching.speculation_gain.N`, and of the others with their number behind."""
    sizes = bench.sizes
    asked = natural_requests(bench, max(sizes.users) * sizes.per_user)
    gains: dict[int, dict[int, Comparison]] = {count: {} for count in counts}
    for users in sizes.users:
        servers = {"plain": partial(_served, bench, users)}
        servers |= {str(count): partial(_served, bench, users, count) for count in counts}
        kept, _ = replays(servers, asked[: users * sizes.per_user], sizes.runs, users)
        for place, count in enumerate(counts):
            key = f"speculation_gain.{users}" + (f".guesses_{2 * count}" if place else "")
            gains[count][users] = note_gain(results, key, kept["plain"], kept[str(count)])
            print(f"{users:>2} users, {2 * count} guesses: {gains[count][users]}")
    return gains


def read_crossing(gains: Mapping[int, Comparison]) -> None:
    """From how many users on guesses bring nothing any more."""
    lost = [users for users, gain in gains.items() if gain.low <= 1]
    if lost:
        print(f"From {min(lost)} users on nothing can be shown to be gained.")
    else:
        print(f"Even with {max(gains)} users at a time guesses still pay here.")
