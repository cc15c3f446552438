"""Steps, operations and answers by each way: the right things are counted, and a difference is seen."""

import pytest
import torch

from helpers.kernels.fastest_step import ways
from helpers.kernels.grouped_attention import attend_in_groups
from helpers.measuring.cost_model import Shape
from helpers.profiling import model_steps
from helpers.profiling.against_generate import AS_IT_COMES, OURS, SAME_LAYERS, against_generate, identical
from helpers.profiling.attention_seconds import attention_seconds
from helpers.profiling.fused_parts import part_seconds
from helpers.profiling.model_steps import LARGEST, time_random_shapes, time_steps
from helpers.profiling.operations import operations_of, step_operations
from helpers.profiling.same_answers import same_answers
from tests.tiny_models import tiny

PROMPTS = [[5, 9, 33, 2, 71], [8, 4, 40]]


@pytest.fixture(scope="module")
def arms():
    return ways(tiny().float(), turns=0)


def test_steps_know_their_shape_dtype_and_points(arms):
    shape = Shape.of(arms["transformers"])
    steps = time_steps(arms, shape, (1, 8), context=4, rounds=2)
    assert list(steps) == list(arms)
    one = steps["fused"]
    assert one.dtype == "float32" and [n for n, _ in one.relative()] == [1, 8] and one.relative()[0][1] == 1
    assert [(p.name, p.num_tokens, p.context) for p in one.points()] == [("fused", 1, 4), ("fused", 8, 4)]
    assert one.share_of(shape.weight_bytes / one.median()) == pytest.approx(1)


def test_random_shapes_that_are_too_large_for_a_laptop_are_left_out():
    made = time_random_shapes(["llama-tiny", "llama-7b"], ["bfloat16"], (1, 2), turns=0, context=4, rounds=1)
    assert [(one.name, one.dtype) for one in made] == [("llama-tiny", "bfloat16")]
    assert made[0].shape.weight_bytes < LARGEST


def test_random_shapes_take_turns_and_every_round_counts(monkeypatch):
    held = []
    monkeypatch.setattr(model_steps.models, "shape_only", lambda name, *_, **__: held.append(name) or tiny())
    made = time_random_shapes(["one", "other"], ["float32"], (1, 2), turns=0, context=4, rounds=7)
    assert held[2:] == ["one", "other", "other", "one"]  # after the two that only have their sizes taken
    assert [one.name for one in made] == ["one", "other"] and all(len(one.seconds[2]) == 7 for one in made)


def test_operations_are_counted_without_views():
    x = torch.ones(2, 3)
    counts = operations_of(lambda: (x.T + 1).sum() + x.view(6)[:2].exp().sum())
    assert counts["add"] == 2 and counts["sum"] == 2 and counts["exp"] == 1
    assert not {"view", "t", "slice"} & set(counts)


@torch.inference_mode()  # as in a step: there these reach PyTorch whole
def test_what_moves_numbers_only_at_times_is_counted_only_then():
    x = torch.ones(2, 3)
    assert operations_of(lambda: (x.reshape(6), x.to(torch.float32), x.contiguous())).total() == 0
    counts = operations_of(lambda: (x.T.reshape(6), x.to(torch.float64), x.add_(1)))
    assert counts == {"reshape": 1, "to": 1, "add": 1}


def test_the_fused_step_starts_fewer_operations(arms):
    totals = {way: step_operations(model).total() for way, model in arms.items()}
    assert totals["fused"] < 0.7 * totals["transformers"]


def test_parts_and_attention_are_timed(arms):
    parts = part_seconds(arms["packed"], arms["fused"], rounds=2)
    assert len(parts) == 4 and all(own > 0 and fused > 0 for own, fused in parts.values())
    seconds = attention_seconds(4, 2, 8, (16, 32), attend_in_groups, rounds=2)
    assert all(list(times) == [16, 32] for times in seconds.values())


def test_answers_of_all_arms_are_compared(arms):
    three = (arms[way] for way in ("transformers", "packed", "fused"))
    timed = against_generate(*three, PROMPTS, max_new_tokens=6, warmup=0)
    assert identical(timed, AS_IT_COMES, SAME_LAYERS, OURS) == [0, 1]
    timed[OURS].results[1] = [*timed[OURS].results[1][:-1], 0]
    assert identical(timed, AS_IT_COMES, OURS) == [0] and identical(timed, AS_IT_COMES, SAME_LAYERS) == [0, 1]


def test_another_model_is_seen_in_the_answers(arms):
    assert same_answers(arms, PROMPTS, 6) == (2, 2)
    assert same_answers({**arms, "another": tiny(seed=3).float()}, PROMPTS, 6) == (0, 2)
