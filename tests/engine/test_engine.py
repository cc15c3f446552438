"""Every request gets the tokens that it gets alone, whatever joins, leaves, is preempted, cancelled, or guessed."""

import random

import pytest
import torch

from helpers.decoding.generate import plain_greedy
from helpers.engine.check import same_as_alone
from helpers.engine.engine import Engine
from helpers.engine.paged_cache import PagedCache
from helpers.engine.scheduler import Scheduler
from helpers.errors import CourseError
from helpers.speculation.draft_model import DraftModel
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.ngram import PromptLookup
from tests.tiny_models import tiny

PROMPTS = [[5, 17, 60, 8, 33], [9], [70, 71, 3, 3, 90, 12, 70, 71, 3], [5, 17, 60, 8, 2, 2]]


def engine(model=None, num_blocks=12, **options):
    return Engine(model or tiny(), num_blocks, block_size=4, **options)


def test_answers_are_those_of_requests_alone():
    model = tiny()
    engine_ = engine(model, max_tokens=8, max_sequences=3)
    requests = [engine_.add(prompt, max_new_tokens=6) for prompt in PROMPTS]
    engine_.run()
    assert [r.written for r in requests] == [plain_greedy(model, p, 6) for p in PROMPTS]
    assert all(r.finish_reason == "length" for r in requests)
    assert len(engine_.cache.pool.free) == 12 and not engine_.cache.lengths and engine_.step() == []


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("guessing", [False, True])
def test_random_schedules(kind, guessing):
    model = tiny(kind)
    assert all(same_as_alone(model, seed, guessing=guessing) for seed in range(25))


def test_they_meet_preemptions_shared_beginnings_chunks_and_cancellations(monkeypatch):
    seen = {"preempted": 0, "shared": 0, "chunks": 0, "cancelled": 0}
    preempt, share, cancel = Scheduler._preempt, PagedCache.share_prefix, Engine.cancel

    def counted(name, right, count):
        def method(self, *args):
            result = right(self, *args)
            seen[name] += count(result)
            return result

        return method

    monkeypatch.setattr(Scheduler, "_preempt", counted("preempted", preempt, lambda result: 1))
    monkeypatch.setattr(PagedCache, "share_prefix", counted("shared", share, lambda n: n > 0))
    monkeypatch.setattr(Engine, "cancel", counted("cancelled", cancel, lambda result: 1))
    schedule = Scheduler.schedule

    def with_chunks(self):
        batch = schedule(self)
        seen["chunks"] += sum(not feed.num_wanted for _, feed in batch)
        return batch

    monkeypatch.setattr(Scheduler, "schedule", with_chunks)
    model = tiny()
    assert all(same_as_alone(model, seed) for seed in range(30))
    assert min(seen.values()) >= 5, seen


@pytest.mark.parametrize(
    ("owner", "name", "mistake"),
    [
        (PagedCache, "share_prefix", lambda self, sequence_id, tokens: len(tokens) - 1),  # nothing is there
        (Scheduler, "_forget", lambda self, sequence: self.cache.free(sequence.id)),  # it doesn't read again
    ],
)
def test_a_mistake_is_seen(monkeypatch, owner, name, mistake):
    model = tiny()
    assert same_as_alone(model, 3)
    monkeypatch.setattr(owner, name, mistake)

    def fails(seed):
        try:
            return not same_as_alone(model, seed)
        except (CourseError, KeyError, IndexError):
            return True

    assert any(fails(seed) for seed in range(30))


def test_guesses_are_verified_for_each_sequence_by_itself():
    model = tiny()
    engine_ = engine(model, num_blocks=30, proposer=PromptLookup(3))
    requests = [engine_.add(prompt * 2, max_new_tokens=12) for prompt in PROMPTS]
    accepted = []
    while engine_.busy:
        accepted += [len(one.verified.accepted) for one in engine_.step()]
    assert [r.written for r in requests] == [plain_greedy(model, p * 2, 12) for p in PROMPTS]
    assert len(set(accepted)) > 1


def heads_of(model):
    torch.manual_seed(0)
    heads = MedusaHeads(model.get_output_embeddings().weight, heads=3)
    for parameter in heads.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return heads


@pytest.mark.parametrize("make", [
    lambda model: DraftModel(tiny(seed=1), model, count=3),
    lambda model: DraftModel(model, count=3),
    lambda model: Medusa(heads_of(model), [(0,), (1,), (0, 0), (0, 1), (0, 0, 0)]),
], ids=["draft", "its own draft", "heads"])  # fmt: skip
def test_whoever_guesses_the_tokens_stay(make):
    model = tiny()
    engine_ = engine(model, num_blocks=16, max_tokens=14, max_sequences=3, proposer=make(model))
    requests = [engine_.add(prompt, max_new_tokens=8) for prompt in PROMPTS]
    engine_.run()
    assert [r.written for r in requests] == [plain_greedy(model, p, 8) for p in PROMPTS]


def test_a_cancelled_request_leaves_at_once_and_others_stay():
    model = tiny()
    engine_ = engine(model)
    first, second, waiting = (engine_.add(prompt, max_new_tokens=6) for prompt in PROMPTS[:3])
    engine_.step()
    for one in (second, waiting):
        engine_.cancel(one)
    engine_.run()
    assert first.written == plain_greedy(model, PROMPTS[0], 6) and first.finish_reason == "length"
    assert second.finish_reason == waiting.finish_reason == "cancelled" and len(second.written) <= 1
    engine_.cancel(first)
    assert first.finish_reason == "length" and not engine_.cache.lengths


def test_an_interrupted_step_can_be_done_again(monkeypatch):
    model = tiny()
    engine_ = engine(model)
    requests = [engine_.add(prompt, max_new_tokens=5) for prompt in PROMPTS]
    engine_.step()

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine_.step()
    engine_.run()
    assert [r.written for r in requests] == [plain_greedy(model, p, 5) for p in PROMPTS]


def test_a_request_that_could_never_end_changes_nothing():
    engine_ = engine(num_blocks=2)
    with pytest.raises(CourseError, match="may become 9 tokens long"):
        engine_.add(PROMPTS[0], max_new_tokens=4)
    assert not engine_.busy


def test_nobody_starves_behind_long_prompts():
    """Each that writes gets a token in every step, while prompts of ten steps are read beside it."""
    engine_ = engine(num_blocks=60, max_tokens=4, max_sequences=3)
    writing = engine_.add([5], max_new_tokens=20)
    engine_.step()
    for seed in range(4):
        random.seed(seed)
        engine_.add([random.randrange(97) for _ in range(30)], max_new_tokens=2)
    for count in range(2, 20):
        engine_.step()
        assert len(writing.written) == count


def test_the_step_in_cpp_reads_blocks():
    from tests.kernels.test_native_llama import made

    _, native = made()
    engine_ = Engine(native, 40, max_tokens=24, max_sequences=4, proposer=PromptLookup(3))
    prompts = [[(7 * i + seed) % 97 for i in range(5 + 9 * seed)] for seed in range(6)]
    requests = [engine_.add(prompt, max_new_tokens=20) for prompt in prompts]
    engine_.run()
    assert [r.written for r in requests] == [plain_greedy(native, p, 20) for p in prompts]
    assert torch.get_num_threads() >= 1
