"""Wrong answers to the exercises of notebook 08."""


def one_after_the_other(parents):
    return [i + 1 for i in range(len(parents))]


def from_zero(parents):
    depths = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return depths


def deeper_with_each_new_parent(parents):
    depths, last = [], None
    for parent in parents:
        depths.append((depths[-1] if depths else 0) + (parent != last))
        last = parent
    return depths


def parents_counted(parents):
    return [len(set(parents[: i + 1])) for i in range(len(parents))]


def parent_before_it_assumed(parents):
    return [parent + 2 for parent in parents]


def all_the_same(parents):
    return [1] * len(parents)


def as_a_chain(proposal, own_token):
    accepted = []
    for i, token in enumerate(proposal.tokens):
        if token != own_token(i):
            return accepted, own_token(i)
        accepted.append(i)
    return accepted, own_token(len(proposal.tokens))


def every_right_guess(proposal, own_token):
    pairs = enumerate(zip(proposal.tokens, proposal.parents))
    accepted = [i for i, (token, parent) in pairs if token == own_token(parent + 1)]
    return accepted, own_token(accepted[-1] + 1 if accepted else 0)


def rows_from_the_guess(proposal, own_token):
    accepted, here = [], -1
    while True:
        token = own_token(max(here, 0))
        after = [i for i, p in enumerate(proposal.parents) if p == here and proposal.tokens[i] == token]
        if not after:
            return accepted, token
        here = after[0]
        accepted.append(here)


def without_looking_at_parents(proposal, own_token):
    accepted, here = [], -1
    while True:
        token = own_token(here + 1)
        after = [i for i in range(here + 1, len(proposal.tokens)) if proposal.tokens[i] == token]
        if not after:
            return accepted, token
        here = after[0]
        accepted.append(here)


def first_child_only(proposal, own_token):
    accepted, here = [], -1
    while True:
        token = own_token(here + 1)
        after = [i for i, p in enumerate(proposal.parents) if p == here][:1]
        if not after or proposal.tokens[after[0]] != token:
            return accepted, token
        here = after[0]
        accepted.append(here)


def tokens_for_places(proposal, own_token):
    accepted, here = [], -1
    while True:
        token = own_token(here + 1)
        after = [i for i, p in enumerate(proposal.parents) if p == here and proposal.tokens[i] == token]
        if not after:
            return accepted, token
        here = after[0]
        accepted.append(token)


def without_a_bonus(proposal, own_token):
    accepted, here = [], -1
    while True:
        token = own_token(here + 1)
        after = [i for i, p in enumerate(proposal.parents) if p == here and proposal.tokens[i] == token]
        if not after:
            return accepted
        here = after[0]
        accepted.append(here)


WRONG = {
    "08.1": [
        (one_after_the_other, "at [1], it is 2, it should be 1"),
        (from_zero, "at [0], it is 0, it should be 1"),
        (deeper_with_each_new_parent, "(two branches side by side), at [3], it is 3, it should be 2"),
        (parents_counted, "(two branches side by side), at [3], it is 3"),
        (parent_before_it_assumed, "(a tree), at [4], it is 4, it should be 3"),
        (all_the_same, "at [1], it is 1, it should be 2"),
    ],
    "08.2": [
        (as_a_chain, "(the second of two rivals is right)"),
        (every_right_guess, "(the same token follows two different guesses), at [0], its length is 4"),
        (rows_from_the_guess, "(a chain of which two are right)"),
        (without_looking_at_parents, "(the same token follows two different guesses), at [0], its length is 2"),
        (first_child_only, "(the second of two rivals is right), at [0]"),
        (tokens_for_places, "at [0][0], it is 7, it should be 0"),
        (without_a_bonus, "(a chain of which two are right), it is a list, it should be a tuple"),
    ],
}
