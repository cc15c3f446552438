"""A model that is cut computes what the whole one does; mistakes are seen; bytes are those that are sent."""

from dataclasses import asdict

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.errors import CourseError
from helpers.parallel import runs
from helpers.parallel.fsdp import vocabulary_in_pieces
from helpers.parallel.ranks import RankError, on_ranks
from helpers.parallel.runs import Which
from helpers.parallel.tensor_parallel import bytes_reduced, parallelize
from tests.parallel import asked
from tests.tiny_models import spread, tiny
from tests.tiny_tokenizer import tiny_tokenizer

NEAR = 1e-4  # of float32 numbers
PROMPTS = [[5, 17, 60, 8, 33], [9, 2, 40]]
LAYERS, HIDDEN, VOCABULARY = 2, 72, 601  # no number of ranks divides it


@pytest.fixture(scope="module")
def which(tmp_path_factory):
    """As the course's model, 9 heads and 3 key-value heads."""
    folder = tmp_path_factory.mktemp("nine_heads")
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    spread(LlamaForCausalLM(config)).float().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return asdict(Which(str(folder)))


def compared(function, way, ranks, which, prompts=PROMPTS):
    asking = dict(way=way, which=which, prompts=prompts, max_new_tokens=6)
    return on_ranks(function, ranks, asking, show=False)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_cut_by_heads_it_is_the_same_function(which, ranks):
    for one in compared(runs.compare, "tensor_parallel", ranks, which):
        assert one["worst"] < NEAR and one["same"] == one["of"] == 2
        assert one["gathered_bytes"] == 0 and one["local_bytes"] < 0.6 * one["whole_bytes"]
        padded = -(-VOCABULARY // ranks) * ranks
        assert one["bytes"] == {"all_reduce": bytes_reduced(LAYERS, HIDDEN, 4), "all_gather": 4 * padded}
        assert one["calls"] == {"all_reduce": 2 * LAYERS + 1, "all_gather": 1}


@pytest.mark.parametrize("mistake", [asked.without_the_sum, asked.with_wrong_keys])
def test_a_mistake_is_seen(which, mistake):
    assert all(one["worst"] > 10 * NEAR for one in compared(mistake, "tensor_parallel", 2, which))


def test_the_plan_of_the_library_is_the_same_function_and_cuts_no_head(which):
    assert all(one["worst"] < NEAR and one["same"] == 2 for one in compared(runs.compare, "dtensor", 3, which))
    with pytest.raises(RankError, match=r"RuntimeError: shape .* is invalid for input of size"):
        compared(runs.compare, "dtensor", 2, which)


def test_fsdp_is_the_same_function_and_gathers_all_weights(which):
    whole = compared(runs.compare, "fsdp", 2, which)
    pieces = compared(runs.compare, "fsdp_pieces", 2, which)
    for one in (*whole, *pieces):
        assert one["worst"] < NEAR and one["same"] == one["of"] == 2
        assert one["local_bytes"] < 0.55 * one["whole_bytes"]
        embedding = 4 * VOCABULARY * HIDDEN  # pieces are gathered twice: to look up, and for logits
        twice = embedding if one in pieces else 0
        least = one["whole_bytes"] + twice
        assert least <= one["bytes"]["all_gather"] < 1.05 * least  # filled up to equal parts
    assert pieces[0]["gathered_bytes"] < whole[0]["gathered_bytes"] < whole[0]["whole_bytes"]


def test_fsdp_trains_as_one_process_does(which):
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randint(3, 90, (4, 9), generator=draw).tolist() for _ in range(3)]
    asking = dict(which=which, batches=batches, learning_rate=0.1)
    for one in on_ranks(runs.compare_training, 2, asking, show=False):
        assert one["worst"] < NEAR and one["alone"] == pytest.approx(one["sharded"], rel=1e-4)
        assert len(set(one["alone"])) == 3 and {"all_gather", "reduce_scatter"} <= set(one["bytes"])
    apart = on_ranks(asked.without_the_mean, 2, asking, show=False)
    assert max(one["worst"] for one in apart) > 10 * NEAR


def test_what_is_sent_is_counted():
    for one in on_ranks(asked.what_is_counted, 2, show=False):
        assert one["calls"] == {"all_reduce": 1, "all_gather": 1, "reduce_scatter": 1}
        assert one["bytes"] == {"all_reduce": 40, "all_gather": 80, "reduce_scatter": 40} and one["total"] == 160


def test_ways_take_turns_and_messages_are_timed():
    asking = dict(ways=["tensor_parallel", "fsdp"], which=asdict(Which("llama-tiny", shape=True)), context=4, rounds=2)
    for one in on_ranks(runs.time_ways, 2, asking | {"threads": 1}, show=False):
        assert {name: len(times) for name, times in one.items()} == {"whole": 2, "tensor_parallel": 2, "fsdp": 2}
    for one in on_ranks(runs.all_reduce_seconds, 2, dict(sizes=[64, 4096], repeats=2), show=False):
        assert set(one) == {"64", "4096"} and min(one.values()) > 0


def test_what_chunks_don_t_divide_is_filled_up():
    assert on_ranks(asked.sum_of_seven, 3, show=False) == [[3.0 * k for k in range(7)]] * 3


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mistral"])
def test_other_architectures_are_cut_as_well(tmp_path, kind):
    """Biases and an output layer of its own; norms of queries and keys; a window."""
    torch.manual_seed(0)
    model, tokenizer = tiny(kind).float(), tiny_tokenizer()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    long = asdict(Which(str(tmp_path)))
    for one in compared(runs.compare, "tensor_parallel", 2, long, [list(range(3, 20))]):
        assert one["worst"] < NEAR and one["same"] == one["of"] == 1


def test_what_cannot_be_cut_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(CourseError, match="Only layers like Llama's are cut into parts here"):
        parallelize(tiny("falcon"), 0, 2)
    with pytest.raises(CourseError, match="Its embedding and its output layer are two"):
        vocabulary_in_pieces(tiny("qwen2"), 2)


@pytest.mark.parametrize(("ranks", "members"), [(3, None), (4, [3, 1])])
def test_rings_give_the_numbers_of_torch(ranks, members):
    found = on_ranks(runs.compare_rings, ranks, dict(cases=5, seed=1, members=members), show=False)
    for rank, one in enumerate(found):
        if members is not None and rank not in members:
            assert one["of"] == 0
            continue
        n = len(members or range(ranks))
        assert one["same"] == one["of"] == 4 * 5
        assert one["shares"]["reduce_scatter"] == one["shares"]["all_to_all"] == pytest.approx((n - 1) / n)
        assert one["shares"]["all_reduce"] == pytest.approx(2 * (n - 1) / n)
        assert one["shares"]["all_gather"] == pytest.approx((n - 1) / n)
