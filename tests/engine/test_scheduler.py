"""Who reads what: arrival decides, nobody is overtaken, and what a step reads fits the budget and the blocks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.decoding.proposals import chain
from helpers.decoding.sequence import Sequence
from helpers.engine.paged_cache import PagedCache
from helpers.engine.scheduler import Scheduler, divide
from helpers.errors import CourseError


def scheduler(num_blocks=8, block_size=4, **options):
    return Scheduler(PagedCache(1, num_blocks, block_size), **options)


def request(n, max_new_tokens=4, first=1):
    return Sequence(range(first, first + n), max_new_tokens=max_new_tokens)


def done(plan, batch):
    """As if the model had read the batch: everybody who has read all that is known writes a 9."""
    if batch:
        plan.cache.begin([feed for _, feed in batch])
        plan.cache.blocks_of_step()
    for sequence, feed in batch:
        sequence.cached += feed.num_certain
        plan.cache.keep(sequence.id, sequence.cached, ())
        if sequence.cached == len(sequence.known):
            sequence.known.append(9)
            sequence.prefilling = False
        sequence.proposal = chain([], "")
    return {plan_id(sequence): len(feed) for sequence, feed in batch}


def plan_id(sequence):
    return sequence.num_prompt_tokens


def step(plan):
    return done(plan, plan.schedule())


def test_a_long_prompt_is_read_in_chunks_beside_those_who_write():
    plan = scheduler(max_tokens=6, max_sequences=3)
    plan.add(request(2))
    assert step(plan) == {2: 2}
    plan.add(request(11, first=20))
    assert step(plan) == {2: 1, 11: 5} and step(plan) == {2: 1, 11: 5} and step(plan) == {2: 1, 11: 1}


def test_half_is_the_oldest_prompt_s_and_the_shortest_share_the_rest():
    plan = scheduler(num_blocks=20, max_tokens=8, max_sequences=4)
    for n in (20, 7, 2, 3):
        plan.add(request(n, first=n))
    assert step(plan) == {20: 4, 2: 2, 3: 2}
    assert step(plan) == {20: 4, 2: 1, 3: 1, 7: 2}  # the short ones write: 2 has its token, 3 its last one


def test_what_others_don_t_need_is_the_oldest_one_s():
    plan = scheduler(num_blocks=20, max_tokens=8, max_sequences=4)
    for n in (20, 1):
        plan.add(request(n, first=n))
    assert step(plan) == {20: 7, 1: 1}


def test_a_token_of_everybody_who_writes_is_kept_free():
    """A prompt that came before them must not take their tokens: they would wait for all of it."""
    plan = scheduler(num_blocks=20, max_tokens=4, max_sequences=3)
    plan.add(request(20))
    plan.add(request(2, first=50))
    assert step(plan) == {20: 2, 2: 2} and step(plan) == {20: 3, 2: 1} and step(plan) == {20: 3, 2: 1}


def test_nobody_is_overtaken_by_a_short_request():
    plan = scheduler(num_blocks=4, max_tokens=16)
    plan.add(request(9, 3))
    step(plan)
    plan.add(request(8, first=50))
    plan.add(request(1, first=90))
    assert step(plan) == {9: 1} and [plan_id(s) for s in plan.waiting] == [8, 1]  # one block is free


def test_the_last_who_came_gives_way_and_goes_on_first():
    plan = scheduler(num_blocks=4, max_tokens=16)
    old, young = request(7, 9), request(6, 9, first=50)
    plan.add(old)
    plan.add(young)
    assert step(plan) == {7: 7, 6: 6}
    assert step(plan) == {7: 1, 6: 1} and step(plan) == {7: 1}  # the old one takes a third block
    assert plan.preemptions == 1 and young.prefilling and young.cached == 0 and list(plan.waiting) == [young]
    assert step(plan) == {7: 1} and young.known[6:] == [9, 9]  # what it had written is not lost
    plan.remove(old)
    assert step(plan) == {6: 4} and young.cached == 8  # its first block was still there


def test_guesses_take_nobody_s_blocks():
    plan = scheduler(num_blocks=3, max_tokens=16)
    old, young = request(3, 5), request(5, 3, first=50)
    plan.add(old)
    plan.add(young)
    step(plan)
    old.propose(chain([7, 7, 7], "draft"))
    assert step(plan) == {3: 1, 5: 1} and not plan.preemptions


def test_guesses_that_the_budget_has_no_room_for_are_left_out():
    plan = scheduler(max_tokens=4, max_sequences=2)
    for n in (3, 1):
        plan.add(request(n, 8, first=10 * n))
    step(plan)
    for sequence in plan.running:
        sequence.propose(chain([7, 7], "draft"))
    assert step(plan) == {3: 3, 1: 1}


def test_a_prompt_that_is_held_wholly_reads_its_last_token():
    plan = scheduler(max_tokens=16)
    plan.add(request(8))
    step(plan)
    plan.add(Sequence(range(1, 9), max_new_tokens=4))
    batch = plan.schedule()
    assert [len(feed) for _, feed in batch] == [1, 4] and batch[1][1].num_wanted == 1
    alone = scheduler(max_tokens=16, share_prefixes=False)
    alone.add(request(8))
    step(alone)
    alone.add(Sequence(range(1, 9), max_new_tokens=4))
    assert [len(feed) for _, feed in alone.schedule()] == [1, 8]


def test_a_request_that_could_never_end_is_refused_at_once():
    plan = scheduler(num_blocks=3)
    with pytest.raises(CourseError, match="may become 13 tokens long, which takes 4 blocks of 4, and the cache has 3"):
        plan.add(request(9, 4))
    plan.add(request(8, 4))
    with pytest.raises(CourseError, match="one sequence at least"):
        scheduler(max_tokens=2, max_sequences=3)


def test_whoever_leaves_gives_everything_back():
    plan = scheduler()
    first, second = request(5), request(5, first=50)
    plan.add(first)
    plan.add(second)
    step(plan)
    plan.remove(second)
    plan.remove(first)
    assert not plan.running and not plan.cache.lengths and len(plan.cache.pool.free) == 8
    plan.remove(first)  # again: nothing happens


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=6), st.integers(0, 60))
def test_the_budget_is_divided_wholly_and_the_oldest_goes_on(unread, budget):
    shares = divide(unread, budget)
    assert all(0 <= share <= n for share, n in zip(shares, unread, strict=True))
    assert sum(shares) == min(budget, sum(unread))
    if unread:
        assert shares[0] >= min(unread[0], budget // 2)
