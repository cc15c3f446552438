"""Wrong answers to the exercises of notebook 00."""

import torch

from helpers.decoding.forward import eos_tokens
from helpers.decoding.kv_cache import KVCache
from helpers.decoding.without_cache import greedy_without_cache


def greedy(model, tokens, max_new_tokens, *, room=0, again=False, stop=True, keep_end=True, place=-1, count=0):
    """The loop with one mistake in it."""
    cache = KVCache.for_model(model, len(tokens) + max_new_tokens - room)
    feed, written = list(tokens), []
    while len(written) < max_new_tokens + count:
        logits = model(input_ids=torch.tensor([feed]), past_key_values=cache).logits
        written.append(int(logits[0, place].argmax()))
        if stop and written[-1] in eos_tokens(model):
            return written if keep_end else written[:-1]
        feed = [*tokens, *written] if again else written[-1:]
    return written


def everything_again(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, again=True)


def never_stops(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, stop=False)


def end_left_out(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, keep_end=False)


def first_place(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, place=0)


def one_too_many(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, count=1)


def no_room(model, tokens, max_new_tokens):
    return greedy(model, tokens, max_new_tokens, room=max_new_tokens)


def prompt_too(model, tokens, max_new_tokens):
    return [*tokens, *greedy(model, tokens, max_new_tokens)]


def text_of_all_written(model, tokens, max_new_tokens):
    cache, feed, written = KVCache.for_model(model, 99), list(tokens), []
    while len(written) < max_new_tokens:
        written.append(int(model(input_ids=torch.tensor([feed]), past_key_values=cache).logits[0, -1].argmax()))
        feed = written
    return written


def cache_made_in_the_loop(model, tokens, max_new_tokens):
    feed, written = list(tokens), []
    while len(written) < max_new_tokens:
        cache = KVCache.for_model(model, 99)
        written.append(int(model(input_ids=torch.tensor([feed]), past_key_values=cache).logits[0, -1].argmax()))
        feed = written[-1:]
    return written


def flat_ids(model, tokens, max_new_tokens):
    return model(input_ids=torch.tensor(tokens), past_key_values=KVCache.for_model(model, 99))


def tensors(model, tokens, max_new_tokens):
    return [torch.tensor(token) for token in greedy(model, tokens, max_new_tokens)]


WRONG = {
    "00.1": [
        (greedy_without_cache, "ValueError: this step comes without a cache: give the model past_key_values=cache"),
        (everything_again, "ValueError: this step reads 6 tokens, and the cache holds 5 already: read only the newest"),
        (text_of_all_written, "ValueError: this step reads 2 tokens, and the cache holds 6 already"),
        (cache_made_in_the_loop, "ValueError: the cache of this step is empty: make it once, before the loop"),
        (flat_ids, "ValueError: input_ids has the shape (5,), and the model wants (1, tokens)"),
        (no_room, "CacheFullError: The cache holds"),
        (never_stops, "(the text ends before max_new_tokens), its length is 12, it should be"),
        (end_left_out, "(the text ends before max_new_tokens), its length is 2, it should be 3"),
        (first_place, "(a prompt of five tokens), at [0], it is"),
        (one_too_many, "(a prompt of five tokens), its length is 13, it should be 12"),
        (prompt_too, "its length is 17, it should be 12"),
        (tensors, "at [0], it is a tensor, it should be a number (.item() makes it one)"),
    ],
    "00.2": [
        (lambda size, bandwidth: size / bandwidth, "yours is 0.001 times that"),
        (lambda size, bandwidth: size / bandwidth * 1e6, "yours is 1e+03 times that"),
        (lambda size, bandwidth: size / bandwidth / 1e3, "yours is 1e-06 times that"),
        (lambda size, bandwidth: bandwidth / size * 1e3, "it is 500000, it should be 2"),
        (lambda size, bandwidth: 4 * size / bandwidth * 1e3, "yours is 4 times that"),
        (lambda size, bandwidth: size / bandwidth * 1e3 / 8, "yours is 0.125 times that"),
        (lambda size, bandwidth: size // bandwidth * 1e3, "it is 0, it should be 2"),
        (lambda size, bandwidth: round(size / bandwidth * 1e3), "in case 2 (weight_bytes=1.4e+10, bandwidth=3.35e+12)"),
        (lambda size, bandwidth: f"{size / bandwidth * 1e3:.1f} ms", "it is a string ('2.0 ms')"),
        (lambda size: size / 20e9 * 1e3, "it takes (size), it should take (weight_bytes, bandwidth)"),
    ],
}
