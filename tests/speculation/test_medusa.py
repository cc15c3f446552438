"""Heads change no greedy token, whatever they guess; a checkpoint is what vLLM and TGI read; a wrong one is refused."""

import json
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from helpers.decoding import feed, masks, proposals, reading
from helpers.decoding.generate import generate, steps
from helpers.decoding.proposals import Proposal
from helpers.decoding.proposer import TokenProposer
from helpers.decoding.sequence import Sequence
from helpers.decoding.support import support_of
from helpers.errors import CourseError
from helpers.kernels import packed_linear
from helpers.models.places import HEADS
from helpers.speculation.combine import Together
from helpers.speculation.hf_generate import medusa
from helpers.speculation.medusa import CHAIN, Medusa
from helpers.speculation.medusa_files import config_of, load, save
from helpers.speculation.medusa_heads import MedusaHeads
from helpers.speculation.ngram import PromptLookup
from tests.tiny_models import KINDS, VOCABULARY, greedy, tiny

PROMPT = [5, 9, 2, 44]
TREE = ((0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0))


def heads_for(model, seed=0, **shape):
    heads = MedusaHeads(model.get_output_embeddings().weight, **shape)
    torch.manual_seed(seed)
    for p in heads.trained():
        p.data = torch.randn_like(p)
    return heads.eval()


def emitted(done):
    return [token for step in done for token in step.emitted]


def guess(proposer):
    [proposal] = proposer.propose([Sequence([1])], torch.randn(1, 64, dtype=torch.float64))
    return proposal


def test_untrained_heads_are_exactly_the_model_s_own_lm_head(model):
    hidden = torch.randn(3, 64, dtype=torch.float64)
    own = model.get_output_embeddings()(hidden)
    for shape in (dict(), dict(layers=2), dict(own_lm_heads=True)):
        heads = MedusaHeads(model.get_output_embeddings().weight, **shape)
        assert heads(hidden).shape == (5, 3, VOCABULARY)
        assert all(torch.allclose(logits, own, atol=1e-12) for logits in heads(hidden))


def test_a_head_is_the_paper_s_formula(model):
    heads, hidden = heads_for(model, layers=2), torch.randn(1, 64, dtype=torch.float64)
    x = hidden
    for weight, bias in heads.blocks():
        x = x + torch.nn.functional.silu(x @ weight[3].T + bias[3])
    torch.testing.assert_close(heads(hidden)[3], x @ model.get_output_embeddings().weight.T)


@torch.inference_mode()
def test_packed_linear_layers_fit_into_the_heads(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    model = tiny().float()
    heads, hidden = heads_for(model, layers=2), torch.randn(2, 64)
    wanted = heads(hidden)
    torch.testing.assert_close(packed_linear.install(heads)(hidden), wanted, atol=1e-4, rtol=1e-4)
    assert isinstance(heads.first, packed_linear.PackedLinear) and isinstance(heads.lm_head, packed_linear.PackedLinear)


@pytest.mark.parametrize("kind", KINDS)
def test_random_heads_change_nothing(kind):
    model = tiny(kind)
    for tree in (CHAIN, TREE):
        done = list(steps(model, PROMPT, max_new_tokens=30, proposer=Medusa(heads_for(model), tree)))
        assert emitted(done) == greedy(model, PROMPT, 30)


paths = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=12), paths, st.integers(0, 3))
def test_any_tree_and_any_prompt_leave_the_tokens_as_they_are(model, prompt, leaves, seed):
    tree = {leaf[:depth] for leaf in leaves for depth in range(1, len(leaf) + 1)}
    proposer = Together(Medusa(heads_for(model, seed), tuple(tree)), PromptLookup())
    assert emitted(steps(model, prompt, max_new_tokens=16, proposer=proposer)) == greedy(model, prompt, 16)


class Foreseeing(TokenProposer):
    """Knows the answer, and hides it among wrong guesses: an adversarial tree, right at a place that changes."""

    def __init__(self, truth, seed):
        self.truth, self.draw = truth, torch.Generator().manual_seed(seed)

    def guess(self, tokens):
        made = len(tokens) - len(PROMPT)
        guessed, parents, on_path = [], [], -1
        for token in self.truth[made : made + 3]:
            for _ in range(int(torch.randint(0, 3, (), generator=self.draw))):
                guessed.append((token + 1 + len(guessed)) % VOCABULARY)
                parents.append(on_path)
            guessed.append(token)
            parents.append(on_path)
            on_path = len(guessed) - 1
        return Proposal(guessed, parents, ["oracle"] * len(guessed))


@pytest.mark.parametrize("seed", range(4))
def test_a_right_path_anywhere_in_the_tree_is_found_and_kept(model, seed):
    truth = greedy(model, PROMPT, 30)
    done = list(steps(model, PROMPT, max_new_tokens=29, proposer=Foreseeing(truth, seed)))
    assert emitted(done) == truth[:29] and len(done) == 8  # the prefill's token, then four a step


def test_a_planted_off_by_one_in_mask_or_positions_is_caught(model, monkeypatch):
    truth = greedy(model, PROMPT, 30)
    right_bias, right_depths = masks.step_bias, proposals.depths
    support_of(model)

    def blind(feeds, starts, window, dtype, device):
        bias = right_bias(feeds, starts, window, dtype, device)
        bias[..., starts[0] - 1] = torch.finfo(dtype).min  # the last certain token but one is hidden
        return bias

    monkeypatch.setattr(reading, "step_bias", blind)
    assert emitted(steps(model, PROMPT, max_new_tokens=30, proposer=Foreseeing(truth, 1))) != truth
    monkeypatch.setattr(reading, "step_bias", right_bias)
    monkeypatch.setattr(feed, "depths", lambda parents: [d + 1 for d in right_depths(parents)])
    assert emitted(steps(model, PROMPT, max_new_tokens=30, proposer=Foreseeing(truth, 1))) != truth


def test_prompts_of_one_token_none_and_the_most(model):
    proposer = Medusa(heads_for(model), TREE)
    assert emitted(steps(model, [7], max_new_tokens=12, proposer=proposer)) == greedy(model, [7], 12)
    longest = [t % VOCABULARY for t in range(2048 - 8)]
    assert emitted(steps(model, longest, max_new_tokens=8, proposer=proposer)) == greedy(model, longest, 8)
    with pytest.raises(CourseError, match="prompt is empty"):
        list(steps(model, [], proposer=proposer))


@pytest.mark.parametrize("place", range(1, 9))
def test_eos_inside_an_accepted_path_ends_the_answer(model, place):
    truth = greedy(model, PROMPT, 30)
    end = truth[place]
    done = list(steps(model, PROMPT, max_new_tokens=30, eos=[end], proposer=Foreseeing(truth, place)))
    assert emitted(done) == truth[: truth.index(end) + 1]
    assert len(done[-1].emitted) - len(done[-1].accepted) in (0, 1)  # what was accepted past the end is not told


class Letters:
    """A tokenizer of one letter a token."""

    def decode(self, tokens, **_):
        return "".join(chr(33 + t) for t in tokens)


def test_a_stop_string_across_a_step(model):
    truth = greedy(model, PROMPT, 30)
    text = Letters().decode(truth)
    for begin, length in product(range(2, 9), (2, 4)):
        stop = text[begin : begin + length]
        done = generate(model, Letters(), PROMPT, max_new_tokens=30, stop=[stop], proposer=Foreseeing(truth, begin))
        assert done.text == text[: text.index(stop)] and done.finish_reason == "stop"


@pytest.mark.parametrize("shape", [dict(heads=3), dict(layers=2), dict(own_lm_heads=True)])
def test_a_checkpoint_comes_back_and_has_the_documented_keys(model, tmp_path, shape):
    heads = heads_for(model, **shape)
    save(heads, tmp_path, "fine-tuned")
    again, hidden = load(tmp_path, model), torch.randn(2, 64, dtype=torch.float64)
    torch.testing.assert_close(again(hidden), heads(hidden), atol=0.3, rtol=0.05)  # kept in two bytes a number
    config, keys = json.loads((tmp_path / "config.json").read_text()), set(load_file(tmp_path / HEADS))
    n, layers = heads.count, heads.layers
    wanted = {f"{i}.{j}.linear.{k}" for i in range(n) for j in range(layers) for k in ("weight", "bias")}
    own = shape.get("own_lm_heads", False)
    assert keys == wanted | ({f"{i}.{layers}.weight" for i in range(n)} if own else {f"0.{layers}.weight"})
    documented = {"model_type", "medusa_num_heads", "medusa_num_layers", "base_model_name_or_path", "hidden_size"}
    documented |= {"vocab_size", "medusa_fc_bias"} | (set() if own else {"original_lm_head"})
    assert set(config) == documented
    assert config["medusa_fc_bias"] is True and "architectures" not in config


def test_without_its_lm_head_it_is_smaller_and_loads_all_the_same(model, tmp_path):
    heads = heads_for(model)
    save(heads, tmp_path, "base", with_lm_head=False)
    assert "0.1.weight" not in load_file(tmp_path / HEADS)
    assert load(tmp_path, model).count == 5


def test_heads_that_do_not_fit_are_refused_in_a_sentence(model, tmp_path):
    save(heads_for(model), tmp_path, "base")
    config = json.loads((tmp_path / "config.json").read_text())

    def written(**changes):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))

    for change, told in (
        (dict(hidden_size=128), "width 128, this one has 97 tokens and width 64"),
        (dict(vocab_size=50), "a model of 50 tokens"),
        (dict(medusa_num_heads=6), "promises 6 heads"),
        (dict(medusa_num_layers=2), "5 heads of 2 layers"),
    ):
        written(**change)
        with pytest.raises(CourseError, match=told):
            load(tmp_path, model)
    written()
    save_file({"0.0.linear.weight": torch.zeros(3, 3)}, tmp_path / HEADS)
    with pytest.raises(CourseError, match="weights don't fit"):
        load(tmp_path, model)
    (tmp_path / HEADS).write_bytes(b"no safetensors")
    with pytest.raises(CourseError, match="no Medusa heads to read"):
        load(tmp_path, model)
    (tmp_path / HEADS).unlink()
    torch.save({}, tmp_path / "medusa_lm_head.pt")  # a pickle is not looked at
    with pytest.raises(CourseError, match="no Medusa heads to read"):
        load(tmp_path, model)


def test_a_tree_that_is_none_is_refused(model):
    heads = heads_for(model)
    for tree, told in (
        (((0, 0),), "the way to it"),
        (((0,), (0,)), "each node once"),
        ((((0,) * 6),), "the way"),
        (tuple((0,) * d for d in range(1, 7)), "6 deep, and there are 5 heads"),
    ):
        with pytest.raises(CourseError, match=told):
            Medusa(heads, tree)
    assert not guess(Medusa(heads, ())).tokens
    with pytest.raises(CourseError, match="at least one head"):
        MedusaHeads(heads.lm_head.weight, heads=0)


def test_each_guess_is_named_by_its_head(model):
    proposal = guess(Medusa(heads_for(model), TREE))
    assert proposal.proposers == ("head 1", "head 2", "head 3", "head 2", "head 1", "head 2")
    assert proposal.parents == (-1, 0, 1, 0, -1, 4)


def test_transformers_generate_takes_it(model):
    proposer, ids = Medusa(heads_for(model), TREE), torch.tensor([PROMPT])
    out = model.generate(ids, max_new_tokens=20, do_sample=False, custom_generate=medusa, proposer=proposer)
    assert out[0, len(PROMPT) :].tolist() == greedy(model, PROMPT, 20)
    end = greedy(model, PROMPT, 20)[6]
    options = dict(do_sample=False, custom_generate=medusa, proposer=Foreseeing(greedy(model, PROMPT, 30), 1))
    for stop in (dict(eos_token_id=end), dict(stopping_criteria=[lambda ids, scores: ids[:, -1] == end])):
        out = model.generate(ids, max_new_tokens=20, pad_token_id=0, **options, **stop)
        assert out[0, len(PROMPT) :].tolist() == greedy(model, PROMPT, 20)[: greedy(model, PROMPT, 20).index(end) + 1]
    with pytest.raises(CourseError, match="one prompt at a time"):
        model.generate(ids.repeat(2, 1), max_new_tokens=4, custom_generate=medusa, proposer=proposer)
    padded = dict(attention_mask=torch.tensor([[0, 1, 1, 1]]), custom_generate=medusa, proposer=proposer)
    with pytest.raises(CourseError, match="without padding"):
        model.generate(ids, max_new_tokens=4, **padded)
    with pytest.raises(CourseError, match="decodes greedily"):
        model.generate(ids, max_new_tokens=4, do_sample=True, custom_generate=medusa, proposer=proposer)


def test_the_configuration_names_its_base(model):
    assert config_of(heads_for(model), "fine-tuned")["base_model_name_or_path"] == "fine-tuned"


def test_several_sequences_are_guessed_for_at_once_and_as_alone(model):
    proposer, sequences = Medusa(heads_for(model), TREE), [Sequence([token]) for token in (1, 2, 3)]
    hidden = torch.randn(3, 64, dtype=torch.float64)
    alone = [proposer.propose([sequence], state[None])[0] for sequence, state in zip(sequences, hidden)]
    assert proposer.propose(sequences, hidden) == alone
    ranked = proposer.heads(hidden[1:2])[:, 0].topk(2, dim=-1).indices.tolist()  # a node: its head's guess of that rank
    assert alone[1].tokens == [ranked[len(path) - 1][path[-1]] for path in sorted(TREE)]
