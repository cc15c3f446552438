"""Wrong answers to the exercises of notebook 06."""

from helpers.parallel.heads import split_evenly
from helpers.parallel.tensor_parallel import partial_products


def by_rows(x, weight, ranks):
    return [x @ weight[mine].T for mine in split_evenly(len(weight), ranks)]


def already_added(x, weight, ranks):
    return sum(partial_products(x, weight, ranks))


def all_of_x(x, weight, ranks):
    return [x @ weight.T for _ in range(ranks)]


def every_head_its_own(heads, group):
    return list(heads), list(range(len(heads)))


def numbers_of_the_model(heads, group):
    read = [head // group for head in heads]
    return sorted(set(read)), read


def kept_for_each(heads, group):
    read = [head // group for head in heads]
    return read, list(range(len(read)))


def without_the_embedding(layers, hidden, bytes_per_number):
    return 2 * layers * hidden * bytes_per_number


def one_a_layer(layers, hidden, bytes_per_number):
    return (layers + 1) * hidden * bytes_per_number


def all_sharded(parameters, ranks, stage):
    return 16 * parameters / ranks


def gradients_first(parameters, ranks, stage):
    shares = [1 / ranks if stage >= least else 1 for least in (3, 1, 2)]
    return parameters * (4 * shares[0] + 4 * shares[1] + 8 * shares[2])


def one_moment(parameters, ranks, stage):
    shares = [1 / ranks if stage >= least else 1 for least in (3, 2, 1)]
    return 4 * parameters * sum(shares)


def numbers_not_bytes(layers, hidden, bytes_per_number):
    return (2 * layers + 1) * hidden


def without_the_ring(place, step, n):
    return place - 1 - step


def its_own(place, step, n):
    return (place - step) % n


def to_the_left(place, step, n):
    return (place - 1 + step) % n


def every_to_every(num_bytes, ranks, latency, bandwidth):
    return (ranks - 1) * (latency + num_bytes / bandwidth)


def once_around(num_bytes, ranks, latency, bandwidth):
    return (ranks - 1) * (latency + num_bytes / ranks / bandwidth)


def latency_once(num_bytes, ranks, latency, bandwidth):
    return latency + 2 * (ranks - 1) / ranks * num_bytes / bandwidth


WRONG = {
    "06.1": [
        (by_rows, "(the example), at [0], its shape is (2, 2), it should be (2, 4)"),
        (already_added, "(the example), it is a tensor, it should be a list"),
        (all_of_x, "(the example), at [0]"),
    ],
    "06.2": [
        (every_head_its_own, "(the first of two ranks), at [0], its length is 5, it should be 2"),
        (numbers_of_the_model, "(the second of two), at [1][0], it is 1, it should be 0"),
        (kept_for_each, "(the first of two ranks), at [0]"),
    ],
    "06.3": [
        (without_the_embedding, "(the course's model), it is 138240, it should be 140544"),
        (one_a_layer, "(the course's model), it is 71424, it should be 140544"),
        (numbers_not_bytes, "(the course's model), it is 35136, it should be 140544"),
    ],
    "06.4": [
        (all_sharded, "(no sharding), it is 1.4e+10, it should be 1.12e+11"),
        (gradients_first, "(moments), it is"),
        (one_moment, "(no sharding), it is 8.4e+10, it should be 1.12e+11"),
    ],
    "06b.1": [
        (its_own, "(the first step of the example), it is 1, it should be 0"),
        (to_the_left, "(its second step), it is 1, it should be 2"),
        (without_the_ring, "(its second step), it is -1, it should be 2"),
    ],
    "06b.2": [
        (every_to_every, "(four ranks), it is 0.00303, it should be 0.00156"),
        (once_around, "(four ranks), it is 0.00078, it should be 0.00156"),
        (latency_once, "(four ranks), it is 0.00151, it should be 0.00156"),
    ],
}
