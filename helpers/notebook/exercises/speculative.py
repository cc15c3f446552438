"""The exercises of notebook 07."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def loops() -> list[tuple]:
    """A model, a prompt's token ids, a function that guesses, how many tokens may be written."""
    from helpers.decoding.generate import plain_greedy
    from helpers.notebook.exercises.watched_guesses import Guesser, WatchedGuesses, wrong_token
    from helpers.notebook.exercises.watched_model import Watched

    prompt = [5, 17, 60, 8, 33]
    written = plain_greedy(Watched(), prompt, 24)
    late = next(place for place in range(5, 20) if written[place] not in written[:place])
    strays = [[*prompt, *written[:n], wrong_token(written[n])] for n in range(16)]
    after_wrong = [plain_greedy(Watched(), stray, 1)[0] for stray in strays]

    def case(num_tokens: int, eos: tuple[int, ...] = (), **guesses) -> tuple:
        guesser = Guesser(written, len(prompt), **guesses)
        return WatchedGuesses(guesser, eos=eos), prompt, guesser, num_tokens

    return [
        case(13, count=3),
        case(12, count=3, wrong=0),
        case(12, count=4, wrong=2),
        case(12, count=3, wrong=0, after_wrong=after_wrong),
        case(12, count=2, empty=True),
        case(8, count=6),
        case(20, count=8, eos=(written[late],)),
        case(1, count=3),
    ]


def two_distributions() -> list[tuple]:
    """The target's distribution p, the draft's q."""
    import torch

    pairs = (
        ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5]),
        ([0.7, 0.1, 0.1, 0.1], [0.1, 0.5, 0.2, 0.2]),
        ([0.5, 0.3, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4]),
        ([0.6, 0.4], [0.5, 0.5]),
    )
    return [tuple(torch.tensor(each, dtype=torch.float64) for each in pair) for pair in pairs]


def acceptances_and_lengths() -> list[tuple]:
    """The chance that a guess is accepted, guesses in a chain."""
    return [(0.5, 1), (0.8, 4), (0.0, 5), (1.0, 3), (0.9, 0)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "07.1",
        "helpers.speculation.draft_model:plain_speculative",
        loops,
        (
            "It is the greedy loop of 00.1, with three changes: what is fed has the guesses behind it; from one step "
            "several tokens may come; what was read in vain has to leave the cache.",
            "A step over n guesses gives the model's own choices at 1 + n places: own = logits[-len(guesses) - 1 :]"
            ".argmax(-1).tolist(). Count how many guesses agree with own from the first on; call it kept.",
            "Then cache.crop(len(known) + kept), and own[: kept + 1] are the new tokens, up to the end token or "
            "max_new_tokens. Feed [*known[cache.length :], *guesses] in the next step.",
        ),
        tolerance=0,
        case_names=(
            "all guesses are right",
            "the first guess is wrong each time",
            "the third guess is wrong each time",
            "the model agrees with a guess behind a wrong one",
            "there is no guess every other time",
            "more guesses than tokens are wanted",
            "the text ends within the guesses",
            "one token is wanted",
        ),
    ),
    Exercise(
        "07.2",
        "helpers.decoding.acceptance:residual",
        two_distributions,
        (
            "Where q is above p there is nothing left: (p - q).clamp(min=0).",
            "A distribution sums to 1: divide by the sum.",
        ),
        case_names=("three tokens", "only one token is left", "more and less of two tokens are left", "nearly equal"),
    ),
    Exercise(
        "07.3",
        "helpers.speculation.cost:expected_tokens",
        acceptances_and_lengths,
        (
            "The first guess is accepted with probability a, the second with a * a: only after the first.",
            "One token comes from the target in any case: 1 + a + a**2 + ... + a**k.",
        ),
        case_names=("one guess", "four good guesses", "a dead draft", "a perfect draft", "no guesses"),
    ),
)
