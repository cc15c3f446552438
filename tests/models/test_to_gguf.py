"""A model written as GGUF against what llama.cpp makes of the file: the same logits, the same tokens, mistakes seen."""

import copy

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.errors import CourseError
from helpers.models import package, to_gguf
from helpers.models.loading import load
from helpers.models.shapes import shape_only
from helpers.models.to_gguf import gguf_name, neighbours_first, weight_bytes, write_gguf
from helpers.profiling.agreement import first_difference, margin
from helpers.profiling.llama_cpp_baseline import LlamaCpp, installed
from tests.tiny_models import greedy

PROMPTS = [[1, 4093, 198, 26843], [28, 34, 35, 36, 2988, 314, 216], [504, 198, 504]]
COUNT = 16  # tokens
NEAR_TIE = 0.05  # nats


@pytest.fixture(scope="module")
def with_package():
    try:
        return package.gguf_file()
    except CourseError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tiny(with_package):
    """A small Llama with the base's tokens, grouped heads, and weights that say more than one token."""
    torch.manual_seed(0)
    shape = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(
        vocab_size=49_152,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
        **shape,
    )
    model = LlamaForCausalLM(config).eval()
    for p in model.parameters():
        p.data.mul_(6 if p.ndim == 2 else 1)
    return model


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A file in llama.cpp, for its answers; skipped where its wheel is missing."""
    if not installed():
        pytest.skip("xllamacpp is not installed: `make setup` brings it")

    def make(model, kind="F32"):
        path = write_gguf(model, tmp_path_factory.mktemp("gguf") / "model.gguf", kind)
        return LlamaCpp(path, capacity=64, exact=kind == "F32")

    return make


@torch.inference_mode()
def logit_difference(model, llama_cpp):
    """The largest difference of a log-probability among llama.cpp's five best tokens, over all prompts."""
    worst = 0.0
    for prompt in PROMPTS:
        ours = model(torch.tensor([prompt])).logits[0, -1].double().log_softmax(-1)
        [theirs] = llama_cpp.log_probs(prompt, 1)
        worst = max(worst, *(abs(ours[token].item() - value) for token, value in theirs.items()))
    return worst


def parted(model, llama_cpp):
    """(prompts with the same tokens, the margins where the others part)."""
    ours = [greedy(model, prompt, COUNT) for prompt in PROMPTS]
    theirs = [llama_cpp.answer([prompt], COUNT)[0] for prompt in PROMPTS]
    gaps = [margin(model, *row) for row in zip(PROMPTS, ours, theirs)]
    return sum(gap is None for gap in gaps), [abs(gap) for gap in gaps if gap is not None]


def test_logits_and_tokens_are_llama_cpp_s(tiny, engine):
    llama_cpp = engine(tiny)
    assert logit_difference(tiny, llama_cpp) < 0.01
    same, gaps = parted(tiny, llama_cpp)
    assert same + sum(gap < NEAR_TIE for gap in gaps) == len(PROMPTS)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda weight, heads: weight,  # left in transformers' order
        lambda weight, heads: weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2),  # the way back
        lambda weight, heads: weight.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1),  # across the heads
    ],
    ids=["no permutation", "its inverse", "heads mixed"],
)
def test_a_wrong_order_of_rows_is_seen(tiny, engine, monkeypatch, mistake):
    monkeypatch.setattr(to_gguf, "neighbours_first", mistake)
    assert logit_difference(tiny, engine(tiny)) > 0.1


def test_rows_go_where_llama_cpp_looks_for_them():
    assert neighbours_first(torch.arange(12)[:, None], 2).flatten().tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


def rounded(model, kind):
    """A copy of the model with each matrix as a file of that kind stores it."""
    copied = copy.deepcopy(model)
    for name, p in copied.named_parameters():
        if p.ndim == 2:
            stored = GGMLQuantizationType["Q8_0" if kind == "Q4_1" and "embed" in name else kind]
            p.data = torch.tensor(dequantize(quantize(p.data.numpy(), stored), stored))
    return copied


@pytest.mark.parametrize(("kind", "bits"), [("BF16", 16), ("Q8_0", 8.5), ("Q4_1", 5)])
def test_each_format_has_its_bits_and_the_logits_of_its_rounded_weights(tiny, engine, tmp_path, kind, bits):
    path = write_gguf(tiny, tmp_path / f"{kind}.gguf", kind)
    embedding = tiny.config.vocab_size * tiny.config.hidden_size
    matrices = sum(p.numel() for p in tiny.parameters() if p.ndim == 2)
    norms = sum(p.nbytes for p in tiny.parameters() if p.ndim == 1)
    assert weight_bytes(path) == embedding * max(bits, 8.5) / 8 + (matrices - embedding) * bits / 8 + norms
    # llama.cpp rounds what the weights are multiplied with, too: to bfloat16, or to 8 bits.
    assert logit_difference(rounded(tiny, kind), engine(tiny, kind)) < 0.3


def test_several_prompts_at_a_time_have_the_answers_of_each_alone(tiny, engine, tmp_path):
    alone = engine(tiny)
    together = LlamaCpp(write_gguf(tiny, tmp_path / "m.gguf", "F32"), capacity=64, batch_size=3, exact=True)
    ours = [alone.answer([prompt], 6)[0] for prompt in PROMPTS]
    gaps = [margin(tiny, *row) for row in zip(PROMPTS, ours, together.answer(PROMPTS, 6))]
    assert all(gap is None or abs(gap) < NEAR_TIE for gap in gaps)


def test_a_prompt_that_does_not_fit_is_one_sentence(tiny, engine):
    with pytest.raises(CourseError, match="make its capacity larger"):
        engine(tiny).answer([[5] * 400], 4)


def test_names():
    assert gguf_name("model.layers.3.self_attn.k_proj.weight") == "blk.3.attn_k.weight"
    assert gguf_name("model.norm.weight") == "output_norm.weight"


def test_what_can_not_be_written_is_refused(with_package, tmp_path):
    llama = shape_only("llama-tiny", vocab_size=49_152)
    with pytest.raises(CourseError, match="no kind 'Q3_K'"):
        write_gguf(llama, tmp_path / "m.gguf", "Q3_K")
    with pytest.raises(CourseError, match="97 tokens and the base's tokenizer 49152"):
        write_gguf(shape_only("llama-tiny"), tmp_path / "m.gguf")
    with pytest.raises(CourseError, match=r"Only a Llama .* not qwen2"):
        write_gguf(shape_only("llama-tiny", vocab_size=49_152, model_type="qwen2"), tmp_path / "m.gguf")
    with pytest.raises(CourseError, match="blocks of 32"):
        write_gguf(shape_only("llama-tiny", vocab_size=49_152, hidden_size=48), tmp_path / "m.gguf", "Q8_0")
    assert not list(tmp_path.iterdir())


def test_where_two_answers_part():
    assert first_difference([5, 6], [5, 6]) is None
    assert first_difference([5, 6, 7], [5, 8, 7]) == 1
    assert first_difference([5, 6], [5, 6, 7]) == 2


def test_the_margin_is_the_model_s_own(tiny):
    prompt, ours = PROMPTS[0], greedy(tiny, PROMPTS[0], 4)
    other = [ours[0], ours[1], (ours[2] + 1) % 49_152, 9]
    assert margin(tiny, prompt, ours, other) > 0 > margin(tiny, prompt, other, ours)
    assert margin(tiny, prompt, ours, ours) is None and margin(tiny, prompt, ours, ours[:2]) is None


@pytest.mark.slow
def test_the_base_in_16_bits_writes_what_the_course_writes(with_package, engine):
    """SmolLM2 itself: 16 tokens after a few prompts, equal or parted where two tokens score nearly the same."""
    model, tokenizer = load("base", "bfloat16")
    llama_cpp = engine(model, "BF16")
    texts = (
        "SELECT name FROM city WHERE",
        "The capital of France is",
        "<|im_start|>user\nTell me about foxes.<|im_end|>\n",
    )
    prompts = [tokenizer(text).input_ids for text in texts]
    theirs = [llama_cpp.answer([prompt], COUNT)[0] for prompt in prompts]
    model = model.float()
    ours = [greedy(model, prompt, COUNT) for prompt in prompts]
    gaps = [margin(model, *row) for row in zip(prompts, ours, theirs)]
    parted = [abs(gap) for gap in gaps if gap is not None]
    print(f"{len(prompts) - len(parted)} of {len(prompts)} the same, the others part at {parted} nats")
    assert all(gap < 0.3 for gap in parted) and len(parted) < len(prompts)
