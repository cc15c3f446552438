"""The exercises of notebook 00."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def prompts() -> list[tuple]:
    """A model, a prompt's token ids, how many tokens may be written. Ends of the text are tokens that the model does
    write: its third, or its first."""
    from helpers.decoding.generate import plain_greedy
    from helpers.notebook.exercises.watched_model import Watched

    prompt = [5, 17, 60, 8, 33]
    written = plain_greedy(Watched(), prompt, 12)
    late = written.index(next(token for token in written[2:] if token not in written[:2]))
    return [
        (Watched(), prompt, 12),
        (Watched(seed=1), [9], 6),
        (Watched(eos=(written[late],)), prompt, 12),
        (Watched(eos=(96, written[0])), prompt, 12),
        (Watched(), prompt, 1),
    ]


def weights_and_bandwidths() -> list[tuple]:
    """Bytes of weights, bytes per second."""
    return [(40e6, 20e9), (14e9, 3.35e12), (500_000_000, 8e9)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "00.1",
        "helpers.decoding.generate:plain_greedy",
        prompts,
        (
            "The loop stays as it is. Only what the model is given changes: what has it not read yet, in the first "
            "step and in any later one?",
            "Make the cache before the loop, with room for the prompt and the answer. Keep a list of what to feed "
            "next: at first all tokens, after each step the token just written.",
            "The step is model(input_ids=torch.tensor([feed], device=model.device), past_key_values=cache).logits; "
            "after it, feed = written[-1:].",
        ),
        tolerance=0,
        case_names=(
            "a prompt of five tokens",
            "a prompt of one token",
            "the text ends before max_new_tokens",
            "the first token ends the text, and there are two such tokens",
            "one token is wanted",
        ),
    ),
    Exercise(
        "00.2",
        "helpers.measuring.cost_model:least_milliseconds",
        weights_and_bandwidths,
        (
            "How many seconds does it take to read so many bytes, at so many bytes per second?",
            "Bytes divided by bytes per second are seconds. A second has 1000 milliseconds.",
        ),
    ),
)
