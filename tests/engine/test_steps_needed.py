"""Steps that batches take, by hand and by simulation."""

from hypothesis import given
from hypothesis import strategies as st

from helpers.engine.steps_needed import continuous_steps, static_steps

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


def test_by_hand():
    assert static_steps([2, 9, 1, 4], 2) == 9 + 4 and continuous_steps([2, 9, 1, 4], 2) == 9
    assert static_steps([3], 4) == continuous_steps([3], 4) == 3


@given(LENGTHS, st.integers(1, 6))
def test_continuous_is_what_a_simulation_says_and_never_worse(lengths, batch_size):
    waiting, running, steps = list(lengths), [], 0
    while waiting or running:
        while waiting and len(running) < batch_size:
            running.append(waiting.pop(0))
        running = [left - 1 for left in running if left > 1]
        steps += 1
    assert continuous_steps(lengths, batch_size) == steps <= static_steps(lengths, batch_size)
    assert steps >= max(max(lengths), -(-sum(lengths) // batch_size))
