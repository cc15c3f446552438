"""The exercises of notebooks 06 and 06b."""

from __future__ import annotations

from helpers.notebook.exercises.exercise import Exercise


def products() -> list[tuple]:
    """x (n, in), weight (out, in), ranks."""
    import torch

    draw = torch.Generator().manual_seed(4)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return [
        (some(2, 6), some(4, 6), 3),
        (some(1, 8), some(8, 8), 2),
        (some(3, 7), some(5, 7), 2),
        (some(2, 4), some(3, 4), 1),
    ]


def heads_and_groups() -> list[tuple]:
    """A rank's query heads, and how many share a key-value head."""
    return [
        (range(5), 3),
        (range(5, 9), 3),
        (range(3, 6), 3),
        (range(8, 12), 1),
        (range(2, 3), 4),
    ]


def sizes() -> list[tuple]:
    """Layers, numbers of a hidden state, bytes of a number."""
    return [(30, 576, 4), (1, 10, 2), (80, 8192, 2)]


def messages() -> list[tuple]:
    """Bytes, ranks, seconds of latency, bytes per second."""
    return [(1e6, 4, 1e-5, 1e9), (1e6, 2, 1e-5, 1e9), (1000, 64, 1e-5, 1e9), (1e6, 1, 1e-5, 1e9)]


def trainings() -> list[tuple]:
    """Parameters, ranks, stage."""
    return [(7e9, 8, 0), (7e9, 8, 1), (7e9, 8, 2), (7e9, 8, 3), (1e6, 1, 3)]


def places_and_steps() -> list[tuple]:
    """A rank's place, the step, how many ranks."""
    return [(1, 0, 3), (1, 1, 3), (0, 0, 3), (1, 0, 2), (2, 5, 8)]


EXERCISES: tuple[Exercise, ...] = (
    Exercise(
        "06.1",
        "helpers.parallel.tensor_parallel:partial_products",
        products,
        (
            "Which columns does a rank hold, and which numbers of x go with them?",
            "split_evenly(weight.shape[1], ranks) is a list of ranges: x[:, mine] are the numbers, weight[:, mine] the "
            "columns.",
            "x[:, mine] @ weight[:, mine].T for each of them, in a list.",
        ),
        case_names=("the example", "two ranks", "an odd number of columns", "one rank"),
    ),
    Exercise(
        "06.2",
        "helpers.parallel.heads:keys_of",
        heads_and_groups,
        (
            "Query head h reads key-value head h // group.",
            "Each of these is kept once, in order: sorted(set(...)).",
            "The place of a head's own is kept.index(head // group).",
        ),
        case_names=("the first of two ranks", "the second of two", "one of three", "no sharing", "one head"),
    ),
    Exercise(
        "06.3",
        "helpers.parallel.tensor_parallel:bytes_reduced",
        sizes,
        (
            "How many vectors are added up in all?",
            "Two in each layer and one for the embedding; each has hidden * bytes_per_number bytes.",
        ),
        case_names=("the course's model", "one layer", "70 billion weights"),
    ),
    Exercise(
        "06.4",
        "helpers.parallel.fsdp:training_bytes",
        trainings,
        (
            "What is sharded at each stage, and what isn't?",
            "4 bytes for weights, 4 for gradients, 8 for moments; what is sharded is divided by the ranks.",
            "Stage 1: 4 + 4 + 8 / ranks bytes for each parameter.",
        ),
        case_names=("no sharding", "moments", "gradients, too", "everything", "one rank"),
    ),
    Exercise(
        "06b.1",
        "helpers.parallel.rings:chunk_sent",
        places_and_steps,
        (
            "Who sends chunk k last? The rank to the left of place k, in step n - 2.",
            "In each step a rank sends on what it has just received: the number is one lower than before, and after 0 "
            "comes n - 1.",
            "(place - 1 - step) % n",
        ),
        case_names=("the first step of the example", "its second step", "the first place", "two ranks", "many ranks"),
    ),
    Exercise(
        "06b.2",
        "helpers.parallel.rings:ring_seconds",
        messages,
        (
            "How many messages does a rank send, one after the other, and how long is each?",
            "2 * (ranks - 1) messages of size / ranks bytes.",
            "Each takes latency + its bytes / bandwidth.",
        ),
        case_names=("four ranks", "two ranks", "many ranks, short messages", "one rank"),
    ),
)
