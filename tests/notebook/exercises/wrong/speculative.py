"""Wrong answers to the exercises of notebook 07."""

import torch

from helpers.decoding.forward import eos_tokens
from helpers.decoding.generate import plain_greedy
from helpers.decoding.kv_cache import KVCache
from helpers.speculation.draft_model import agreed


def loop(feed_of=None, kept_of=None, cut=None, new_of=None, ends=True, guesses_of=None):
    """The loop with a piece of it replaced."""

    @torch.inference_mode()
    def speculative(model, tokens, guess, max_new_tokens):
        end = len(tokens) + max_new_tokens
        cache, known, guesses = KVCache.for_model(model, 4 * end), list(tokens), []
        while len(known) < end:
            feed = feed_of(known, cache, guesses) if feed_of else [*known[cache.length :], *guesses]
            before = cache.length
            logits = model(input_ids=torch.tensor([feed]), past_key_values=cache).logits[0]
            own = logits[-len(guesses) - 1 :].argmax(-1).tolist()
            kept = kept_of(guesses, own) if kept_of else agreed(guesses, own)
            if cut is None:
                cache.crop(len(known) + kept)
            else:
                cut(cache, known, kept, before)
            for token in new_of(guesses, own, kept) if new_of else own[: kept + 1]:
                known.append(token)
                if (ends and token in eos_tokens(model)) or (ends != "late" and len(known) == end):
                    return known[len(tokens) :]
            guesses = guess(known)
        return known[len(tokens) :]

    return speculative


def plain_loop(model, tokens, guess, max_new_tokens):
    return plain_greedy(model, tokens, max_new_tokens)


never_crops = loop(cut=lambda cache, known, kept, before: None)
crops_to_what_was_known = loop(cut=lambda cache, known, kept, before: cache.crop(len(known)))
crops_one_too_far = loop(cut=lambda cache, known, kept, before: cache.crop(len(known) + kept - 1))
keeps_every_match = loop(kept_of=lambda guesses, own: sum(g == o for g, o in zip(guesses, own)))
one_short = loop(kept_of=lambda guesses, own: max(0, agreed(guesses, own) - 1))
no_bonus = loop(new_of=lambda guesses, own, kept: own[: max(1, kept)])
trusts_the_guesses = loop(new_of=lambda guesses, own, kept: [*guesses, own[-1]])
last_token_alone = loop(feed_of=lambda known, cache, guesses: known[-1:] if cache.length else known)
beyond_the_end = loop(ends="late")
over_the_eos = loop(ends=False)


def not_a_distribution(p, q):
    return (p - q).clamp(min=0)


def negative(p, q):
    return p - q


def wrong_way_round(p, q):
    left = (q - p).clamp(min=0)
    return left / left.sum()


def the_target_itself(p, q):
    return p


def target_masked(p, q):
    left = p * (p > q)
    return left / left.sum()


def uniform(p, q):
    left = (p > q).to(p.dtype)
    return left / left.sum()


def all_to_the_largest(p, q):
    return torch.nn.functional.one_hot((p - q).argmax(), len(p)).to(p.dtype)


def relative_to_the_draft(p, q):
    left = (p / q - 1).clamp(min=0)
    return left / left.sum()


def largest_is_one(p, q):
    left = (p - q).clamp(min=0)
    return left / left.max()


def without_the_targets_own(acceptance, k):
    return sum(acceptance**i for i in range(1, k + 1))


def independent(acceptance, k):
    return 1 + k * acceptance


def one_too_many(acceptance, k):
    return sum(acceptance**i for i in range(k + 2))


def geometric_series(acceptance, k):
    return (1 - acceptance ** (k + 1)) / (1 - acceptance)


def last_guess_forgotten(acceptance, k):
    return 1 + sum(acceptance**i for i in range(1, k))


def all_or_nothing(acceptance, k):
    return 1 + k * acceptance**k


WRONG = {
    "07.1": [
        (plain_loop, "(all guesses are right), it raised ValueError: nobody was asked for guesses before this step"),
        (
            never_crops,
            "(the first guess is wrong each time), it raised ValueError: the cache holds 8 tokens",
        ),
        (crops_to_what_was_known, "(all guesses are right), it raised ValueError: 3 tokens read a second time"),
        (crops_one_too_far, "(all guesses are right), it raised ValueError: 1 token read a second time"),
        (keeps_every_match, "(the first guess is wrong each time), it raised ValueError: known has"),
        (one_short, "so it brings 4 tokens with the bonus token; known has grown by 3"),
        (no_bonus, "3 of the 3 guesses of that step were right"),
        (trusts_the_guesses, "as token 2 of the answer, and the model's own there is"),
        (last_token_alone, "it raised ValueError: this step reads no guesses: they come after what is certain"),
        (beyond_the_end, "(the third guess is wrong each time), its length is 13, it should be 12"),
        (over_the_eos, "(the text ends within the guesses), its length is 20, it should be 6"),
    ],
    "07.2": [
        (not_a_distribution, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 1 of 3 values differ"),
        (negative, "at [0], it is 0.3, it should be 1 (yours is 0.3 times that); 2 of 3 values differ"),
        (wrong_way_round, "at [0], it is 0, it should be 1; 2 of 3 values differ"),
        (target_masked, "(more and less of two tokens are left), at [0], it is 0.625, it should be 0.8"),
        (uniform, "(more and less of two tokens are left), at [0], it is 0.5, it should be 0.8"),
        (all_to_the_largest, "(more and less of two tokens are left), at [0], it is 1, it should be 0.8"),
        (relative_to_the_draft, "(more and less of two tokens are left), at [0], it is 0.888889"),
        (largest_is_one, "it is 1, it should be 0.8 (yours is 1.25 times that); 2 of 4 values differ"),
        (the_target_itself, "at [0], it is 0.5, it should be 1 (yours is 0.5 times that); 3 of 3 values differ"),
    ],
    "07.3": [
        (without_the_targets_own, "it is 0.5, it should be 1.5 (yours is 0.333 times that)"),
        (independent, "it is 4.2, it should be 3.3616 (yours is 1.25 times that)"),
        (one_too_many, "it is 1.75, it should be 1.5 (yours is 1.17 times that)"),
        (geometric_series, "(a perfect draft), it raised ZeroDivisionError"),
        (last_guess_forgotten, "(one guess), it is 1, it should be 1.5"),
        (all_or_nothing, "it is 2.6384, it should be 3.3616 (yours is 0.785 times that)"),
    ],
}
