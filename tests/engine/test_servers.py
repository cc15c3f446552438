"""Static batches wait for their longest answer; the engine doesn't. Both do the work that the trace asks for."""

from helpers.decoding.generate import plain_greedy
from helpers.engine.engine import Engine
from helpers.engine.scheduler import Scheduler
from helpers.engine.servers import Continuous, RecomputingScheduler, Static, WholePrompts
from helpers.engine.traffic import Request, replay
from tests.tiny_models import tiny

TRACE = [Request(0.0, [5, 17, 60], 2), Request(0.0, [9], 9), Request(0.0, [70, 71, 3, 3], 1), Request(0.0, [8, 2], 4)]


def engine(**options):
    return Engine(tiny(), 40, block_size=4, **options)


def test_the_engine_writes_what_was_asked_for():
    server = Continuous(engine(max_sequences=2))
    done = replay(server, TRACE)
    assert [len(times) for times in done.tokens] == [2, 9, 1, 4]
    assert all(step.held <= step.reserved for step in server.occupancy)
    assert max(step.running for step in server.occupancy) == 2 and server.occupancy[-1] == (0, 0, 0)
    assert server.spans[0] == (0, 1) and server.spans[2][0] == 2  # the third takes the first one's place at once


def test_a_static_batch_ends_with_its_longest_answer():
    server = Static(engine(max_sequences=2), 2)
    done = replay(server, TRACE)
    assert len(server.occupancy) == 9 + 4 and len(set(done.tokens[0] + done.tokens[1])) == 1
    assert server.spans == {0: (0, 1), 1: (0, 8), 2: (9, 9), 3: (9, 12)}
    assert {step.reserved for step in server.occupancy[:9]} == {2 * (3 + 9)}
    assert server.occupancy[0].held == 3 + 1 + 1 + 1 and server.occupancy[8].held == 3 + 2 + 1 + 9


def test_who_recomputes_writes_the_same_with_more_reading():
    model, read = tiny(), {}
    for kind in (Scheduler, RecomputingScheduler):
        made = Engine(model, 40, block_size=4, max_sequences=2, share_prefixes=False, scheduler=kind)
        requests = [made.add(r.prompt, max_new_tokens=r.num_tokens) for r in TRACE]
        read[kind] = 0
        while made.busy:
            read[kind] += sum(len(one.feed) for one in made.step())
        assert [r.written for r in requests] == [plain_greedy(model, r.prompt, r.num_tokens) for r in TRACE]
    assert read[RecomputingScheduler] > read[Scheduler]


def test_whole_prompts_are_read_in_one_step_and_nobody_passes():
    model = tiny()
    made = Engine(model, 40, block_size=4, max_tokens=12, max_sequences=3, share_prefixes=False, scheduler=WholePrompts)
    long, longer, short = (made.add(range(3, 3 + n), max_new_tokens=2, eos=()) for n in (9, 10, 2))
    assert [(one.sequence.id, len(one.feed)) for one in made.step()] == [(long.id, 9)]  # 10 more don't fit, 2 would
    assert [(one.sequence.id, len(one.feed)) for one in made.step()] == [(long.id, 1), (longer.id, 10)]
    made.run()
    for request in (long, longer, short):
        prompt = request.known[: request.num_prompt_tokens]
        assert request.written == plain_greedy(model, prompt, 2)
