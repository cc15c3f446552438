"""Reduced heads guess what heads over all tokens would, were these masked; the way back to tokens is exact."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.decoding.generate import steps
from helpers.decoding.sequence import Sequence
from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.models.places import HEADS
from helpers.speculation.medusa import Medusa
from helpers.speculation.medusa_files import load, save
from helpers.speculation.medusa_heads import MedusaHeads, ReducedMedusaHeads
from helpers.speculation.tree_choice import ranks_of
from tests.speculation.test_medusa import PROMPT, TREE, emitted, heads_for
from tests.tiny_models import VOCABULARY, greedy, tiny

TOKEN_IDS = torch.tensor([0, 3, 8, 11, 12, 40, 41, 60, 77, 96])


def pair(model, **shape):
    """Heads over the whole vocabulary, and reduced ones with the same blocks."""
    full = heads_for(model, **shape)
    return full, reduced_from(full, model.get_output_embeddings().weight, TOKEN_IDS)


@torch.no_grad()
def reduced_from(full, lm_head, token_ids):
    reduced = ReducedMedusaHeads(lm_head, token_ids, full.count, full.layers).eval()
    for ours, theirs in zip(reduced.trained(), full.trained(), strict=True):
        ours.copy_(theirs)
    return reduced


def masked(logits):
    only = torch.full_like(logits, -torch.inf)
    only[..., TOKEN_IDS] = logits[..., TOKEN_IDS]
    return only


def same_guesses(full, reduced):
    """Whether logits and best guesses are those of the masked heads."""
    hidden = torch.randn(7, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    wanted = masked(full(hidden))
    logits = reduced(hidden)
    if logits.shape != wanted.shape or not torch.allclose(logits, wanted, atol=1e-9):
        return False
    return all(reduced.best(hidden, k).equal(wanted.topk(k, dim=-1).indices) for k in (1, 3, len(TOKEN_IDS)))


@pytest.mark.parametrize("shape", [dict(), dict(heads=3), dict(layers=2)])
def test_they_guess_what_masked_heads_over_all_tokens_guess(model, shape):
    full, reduced = pair(model, **shape)
    assert same_guesses(full, reduced) and reduced.lm_head.weight.shape == (len(TOKEN_IDS), 64)
    assert set(reduced.best(torch.randn(50, 64, dtype=torch.float64), 4).flatten().tolist()) <= set(TOKEN_IDS.tolist())


def test_heads_over_all_tokens_have_their_best_guesses_too(model):
    heads, hidden = heads_for(model), torch.randn(3, 64, dtype=torch.float64)
    assert heads.best(hidden, 2).equal(heads(hidden).topk(2, dim=-1).indices)


@torch.no_grad()
def test_a_way_back_that_is_left_out_or_wrong_rows_are_caught(model):
    lm_head = model.get_output_embeddings().weight

    class Unmapped(ReducedMedusaHeads):
        def best(self, hidden, k):
            return MedusaHeads.forward(self, hidden).topk(k, dim=-1).indices  # the mistake

    full, reduced = pair(model)
    reduced.__class__ = Unmapped
    assert not same_guesses(full, reduced)
    full, reduced = pair(model)
    reduced.lm_head.weight.copy_(lm_head[: len(TOKEN_IDS)])  # the mistake: the first rows, not those of the tokens
    assert not same_guesses(full, reduced)
    full, reduced = pair(model)
    reduced.token_ids = TOKEN_IDS.flip(0)  # the mistake: an order that isn't the rows'
    assert not same_guesses(full, reduced)


@pytest.mark.parametrize(
    "token_ids",
    [
        torch.tensor([3, 0, 8]),
        torch.tensor([0, 3, 3]),
        torch.tensor([-1, 3]),
        torch.tensor([0, VOCABULARY]),
        torch.tensor([0.0, 3.0]),
        torch.tensor([[0, 3]]),
        torch.tensor([], dtype=torch.int64),
    ],
)
def test_unsorted_and_other_wrong_ids_are_refused(model, token_ids):
    with pytest.raises(CourseError, match=r"sorted int64 token ids below 97, each once"):
        ReducedMedusaHeads(model.get_output_embeddings().weight, token_ids)


@pytest.mark.parametrize("own_lm_heads", [False, True])
def test_a_tree_wider_than_the_tokens_that_heads_guess_among_is_refused(model, own_lm_heads):
    lm_head, hidden = model.get_output_embeddings().weight[:20], torch.randn(2, 64, dtype=torch.float64)
    for heads in (pair(model)[1], MedusaHeads(lm_head, own_lm_heads=own_lm_heads)):
        most = heads.num_guessable
        wide = [(rank,) for rank in range(most)]
        proposals = Medusa(heads, wide).propose([Sequence([1]), Sequence([2])], hidden)
        assert all(len(set(proposal.tokens)) == most for proposal in proposals)
        for use in (lambda: Medusa(heads, [*wide, (most,)]), lambda: heads.best(hidden, most + 1)):  # noqa: B023
            with pytest.raises(CourseError, match=f"no {most + 1} guesses among {most} tokens: take a narrower tree"):
                use()


def test_decoders_and_trees_take_them_as_any_heads(model):
    full, reduced = pair(model)
    hidden = torch.randn(2, 64, dtype=torch.float64)
    proposals = Medusa(reduced, TREE).propose([Sequence([1]), Sequence([2])], hidden)
    best = masked(full(hidden)).topk(2, dim=-1).indices
    for i, proposal in enumerate(proposals):
        assert proposal.tokens == [best[len(path) - 1, i, path[-1]].item() for path in sorted(TREE)]
    done = list(steps(model, PROMPT, max_new_tokens=30, proposer=Medusa(reduced, TREE)))
    assert emitted(done) == greedy(model, PROMPT, 30)
    [[inside], []] = ranks_of(reduced, hidden, [5, 40])
    assert inside == masked(full(hidden))[0, 0].argsort(descending=True).tolist().index(40)
    [[outside], []] = ranks_of(reduced, hidden, [5, 6])
    assert outside == len(TOKEN_IDS)  # behind all that are guessed


@torch.inference_mode()
def test_packed_linear_layers_fit_into_them(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    model = tiny().float()
    _, reduced = pair(model)
    hidden = torch.randn(2, 64)
    wanted = reduced(hidden)
    packed = packed_linear.install(reduced)
    assert isinstance(packed.lm_head, packed_linear.PackedLinear)
    torch.testing.assert_close(packed(hidden), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("with_lm_head", [True, False])
@pytest.mark.parametrize("shape", [dict(heads=3), dict(layers=2)])
def test_a_folder_comes_back_and_has_the_documented_keys(model, tmp_path, shape, with_lm_head):
    _, reduced = pair(model, **shape)
    save(reduced, tmp_path, "fine-tuned", with_lm_head)
    again, hidden = load(tmp_path, model), torch.randn(2, 64, dtype=torch.float64)
    assert isinstance(again, ReducedMedusaHeads) and again.token_ids.equal(TOKEN_IDS)
    torch.testing.assert_close(again(hidden), reduced(hidden), atol=0.3, rtol=0.05)  # kept in two bytes a number
    assert again.lm_head.weight.equal(model.get_output_embeddings().weight[TOKEN_IDS])
    config, tensors = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / HEADS)
    n, layers = reduced.count, reduced.layers
    wanted = {f"{i}.{j}.linear.{k}" for i in range(n) for j in range(layers) for k in ("weight", "bias")}
    assert set(tensors) == wanted | {"token_map"} | ({"lm_heads.0.weight"} if with_lm_head else set())
    assert tensors["token_map"].dtype == torch.int64
    assert config["vocab_size"] == VOCABULARY and config["truncated_vocab_size"] == len(TOKEN_IDS)
    assert config["original_lm_head"] is True and "architectures" not in config


def test_files_that_contradict_themselves_are_refused_in_a_sentence(model, tmp_path):
    save(pair(model)[1], tmp_path, "base")
    config, tensors = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / HEADS)

    def refused(says, changes=(), **others):
        (tmp_path / "config.json").write_text(json.dumps(config | dict(changes)))
        save_file({k: v for k, v in (tensors | others).items() if v is not None}, tmp_path / HEADS)
        with pytest.raises(CourseError, match=says):
            load(tmp_path, model)

    refused("promises 9 tokens, token_map has 10", dict(truncated_vocab_size=9))
    refused("weights don't fit", token_map=None)
    refused("sorted int64 token ids", token_map=TOKEN_IDS.flip(0).contiguous())
    refused("sorted int64 token ids", token_map=TOKEN_IDS.to(torch.bfloat16))
    refused("lm_heads of their own", dict(original_lm_head=False))
    refused("a model of 50 tokens", dict(vocab_size=50))


def test_five_heads_for_the_real_model_s_width_stay_below_four_megabytes(tmp_path):
    lm_head = torch.zeros(49_152, 576, dtype=torch.bfloat16)
    heads = ReducedMedusaHeads(lm_head, torch.arange(0, 40_000, 5))
    save(heads, tmp_path, "fine-tuned", with_lm_head=False)
    assert (tmp_path / HEADS).stat().st_size < 3.5e6
