"""The base model's folder against its GGUF file: its tokens, its settings, and two other readings of the weights.

The other readings are a Llama forward pass in plain torch, on the file's own order of rows, and llama.cpp.
"""

import json
import urllib.request

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import silu
from transformers import AutoTokenizer

from helpers import models
from helpers.errors import CourseError
from helpers.models import package

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
QUESTION = "Which cities have more than 2,500,000 people?"
PROMPTS = (
    f"{SYSTEM}<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
    "CREATE TABLE city (id INTEGER, name TEXT, people INTEGER)\n\n2.  SELECT name FROM city WHERE people >",
)

# As llama.cpp's tokenizer gives them, which knows the file's rule for digits.
TOKENS = {
    "1,234,567.89": "33 28 34 35 36 28 37 38 39 30 40 41",
    "\n\n5  12": "1116 37 256 33 34",  # without the rule 198 198 37 216 216 33 34
    "SELECT COUNT(*) FROM cafés WHERE y >= 1999;": "23428 3214 23330 12905 25 18451 20879 17842 28531 329 10888 216 33 "
    "41 41 41 43",
    "José Muñoz, Zoë d'Arcy, Łódź": "58 395 2756 14099 10214 10012 28 26336 26547 287 23 3780 873 28 18811 219 7342 84 "
    "144 135",
    "It's \"O''Brien\"": "1589 506 476 63 3816 37487 18",
    "<|im_start|>user\nHi<|im_end|>\n": "1 4093 198 26843 2 198",
    "e\u0301 ½ ² 日本 \t 7": "85 151 219 216 16738 216 19133 17097 241 115 40993 216 197 216 39",
}
TOKENS = {text: [int(token) for token in ids.split()] for text, ids in TOKENS.items()}


@pytest.fixture(scope="session")
def gguf_path():
    try:
        return package.gguf_file()
    except CourseError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def base(gguf_path):
    """The folder that the course itself uses: converted once for all tests, and anew when the code has changed."""
    return package.package_folder()


@pytest.fixture(scope="session")
def tokenizer(base):
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="session")
def float32(base):
    return models.load(base, "float32")[0]


@pytest.fixture(scope="session")
def llama_cpp(gguf_path):
    """Ask llama.cpp's server, which reads the file in a thread of this process, something as JSON."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: `make setup` brings it")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf_path)
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 512, 1, 1
    server = xllamacpp.Server(parameters)

    def ask(path, **body):
        request = urllib.request.Request(
            server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    return ask


# ---- Tokens


def wrong_tokens(tokenizer):
    """The fixed strings whose ids are others, or that don't come back from their ids."""
    wrong = [text for text, ids in TOKENS.items() if tokenizer(text).input_ids != ids]
    return wrong + [text for text in TOKENS if tokenizer.decode(tokenizer(text).input_ids) != text]


def test_fixed_strings_have_their_ids(tokenizer):
    assert not wrong_tokens(tokenizer)


def test_a_reading_without_the_rule_for_digits_is_seen(gguf_path):
    as_it_comes = AutoTokenizer.from_pretrained(gguf_path.parent, gguf_file=gguf_path.name)
    assert "\n\n5  12" in wrong_tokens(as_it_comes)


def test_llama_cpp_has_the_same_tokens(tokenizer, llama_cpp):
    for text in (*TOKENS, *PROMPTS):
        theirs = llama_cpp("/tokenize", content=text, add_special=False, parse_special=True)["tokens"]
        assert tokenizer(text).input_ids == theirs, text


def special_ids(tokenizer):
    return {name: getattr(tokenizer, name) for name in package.SPECIAL_IDS}


def test_the_special_tokens(base, tokenizer):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert special_ids(tokenizer) == ids
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    for file in ("config.json", "generation_config.json"):
        assert json.loads((base / file).read_text()).items() >= ids.items()
    settings = models.load(base, "bfloat16")[0].generation_config
    assert (settings.eos_token_id, settings.pad_token_id) == (2, 2)


def test_swapped_special_tokens_are_seen(base):
    swapped = AutoTokenizer.from_pretrained(base, bos_token="<|im_end|>", eos_token="<|im_start|>")
    assert special_ids(swapped) == {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 2}


def rendering(tokenizer):
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )


def test_the_chat_template_has_a_system_prompt_and_ends_in_a_newline(tokenizer):
    assert rendering(tokenizer) == PROMPTS[0]
    assert tokenizer(PROMPTS[0]).input_ids[-4:] == [1, 520, 9531, 198]


def test_a_template_that_loses_its_last_newline_is_seen(base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    before, _, _ = tokenizer.chat_template.partition("{% if add_generation_prompt %}")
    tokenizer.chat_template = before + "<|im_start|>assistant\n"  # jinja drops a newline that ends the template
    assert rendering(tokenizer) == PROMPTS[0].removesuffix("\n")


# ---- Weights


def forward(weights, ids, theta=100_000.0, neighbours=True, spread=torch.Tensor.repeat_interleave):
    """[num_tokens, vocabulary] of a Llama: RMS norm, RoPE, 9 heads that share 3 of keys and values, SwiGLU.

    llama.cpp rotates neighbours (rows 0 and 1 of a head) where transformers rotates halves (0 and 32), and its files
    have the rows of queries and keys in that order.
    """
    positions = torch.arange(len(ids)).float()
    angles = torch.outer(positions, theta ** -(torch.arange(0, 64, 2) / 64))
    cos, sin = angles.cos(), angles.sin()

    def rotated(x):
        a, b = (x[..., 0::2], x[..., 1::2]) if neighbours else x.chunk(2, -1)
        pairs = (a * cos - b * sin, a * sin + b * cos)
        return torch.stack(pairs, -1).flatten(-2) if neighbours else torch.cat(pairs, -1)

    def norm(x, name):
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * weights[f"{name}_norm.weight"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T

    def heads(x):
        return x.unflatten(-1, (-1, 64)).transpose(0, 1)

    future = torch.full((len(ids), len(ids)), -torch.inf).triu(1)
    x = weights["token_embd.weight"][ids]
    for block in (f"blk.{layer}" for layer in range(30)):
        h = norm(x, f"{block}.attn")
        q, k, v = (heads(linear(h, f"{block}.attn_{name}")) for name in "qkv")
        k, v = spread(rotated(k), 3, 0), spread(v, 3, 0)
        attention = (rotated(q) @ k.mT / 8 + future).softmax(-1)
        x = x + linear((attention @ v).transpose(0, 1).flatten(1), f"{block}.attn_output")
        h = norm(x, f"{block}.ffn")
        x = x + linear(silu(linear(h, f"{block}.ffn_gate")) * linear(h, f"{block}.ffn_up"), f"{block}.ffn_down")
    return linear(norm(x, "output"), "token_embd")


@pytest.fixture(scope="session")
def in_file(gguf_path):
    """The file's tensors in its own names and order of rows, rounded to bfloat16 as the folder's are."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    tensors = GGUFReader(gguf_path).tensors
    return {t.name: torch.tensor(dequantize(t.data, t.tensor_type)).bfloat16().float() for t in tensors}


@torch.no_grad()
def difference(model, tokenizer, prompt, in_file, **mistake):
    """The largest difference of a logit."""
    ids = torch.tensor(tokenizer(prompt).input_ids)
    return (model(ids[None]).logits[0] - forward(in_file, ids, **mistake)).abs().max().item()


CLOSE = 1e-3  # of logits up to 39, in float32 summed in another order; 0.0001 was seen


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logits_are_those_of_the_file(float32, tokenizer, in_file, prompt):
    assert difference(float32, tokenizer, prompt, in_file) < CLOSE


@pytest.mark.parametrize(
    "mistake",
    [
        {"neighbours": False},  # the rows of q and k left in llama.cpp's order
        {"theta": 10_000.0},  # Llama's, and the default of transformers
        {"spread": lambda x, times, _: x.repeat(times, 1, 1)},  # query head 1 on key head 1
    ],
    ids=["permutation", "theta", "groups"],
)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_wrong_reading_is_seen(float32, tokenizer, in_file, prompt, mistake):
    assert difference(float32, tokenizer, prompt, in_file, **mistake) > 1


@torch.no_grad()
def continuations(model, tokenizer, llama_cpp):
    """16 greedy tokens of a story: the model's, and llama.cpp's, which rounds activations to 8 bits."""
    prompt = tokenizer(PROMPTS[0].replace(QUESTION, "Tell me a story about a fox."), return_tensors="pt")
    ids = prompt.input_ids[0].tolist()
    theirs = llama_cpp("/completion", prompt=ids, n_predict=16, temperature=0, return_tokens=True)["tokens"]
    ours = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
    assert len(ours) == len(theirs) == 16
    return ours, theirs


def test_llama_cpp_writes_the_same(float32, tokenizer, llama_cpp):
    ours, theirs = continuations(float32, tokenizer, llama_cpp)
    assert ours == theirs


def test_llama_cpp_writes_something_else_than_a_wrong_model(float32, tokenizer, llama_cpp, monkeypatch):
    frequencies = 10_000.0 ** -(torch.arange(0, 64, 2) / 64)
    monkeypatch.setitem(float32.model.rotary_emb._buffers, "inv_freq", frequencies)
    ours, theirs = continuations(float32, tokenizer, llama_cpp)
    assert ours != theirs


def test_embeddings_are_tied(base, float32):
    assert float32.lm_head.weight is float32.model.embed_tokens.weight
    with safe_open(base / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}
    assert float32.num_parameters() == 134_515_008 == models.card(base)["parameters"]


def test_a_config_that_unties_them_is_refused(base, tmp_path):
    for path in base.iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CourseError, match=r"missing lm_head\.weight"):
        models.load(tmp_path)


def test_the_config_is_the_files_own(base, gguf_path):
    from gguf import GGUFReader

    fields, config = GGUFReader(gguf_path).fields, json.loads((base / "config.json").read_text())
    names = {
        "num_hidden_layers": "block_count",
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "rope.dimension_count",
        "vocab_size": "vocab_size",
        "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    for ours, theirs in names.items():
        assert config[ours] == pytest.approx(fields[f"llama.{theirs}"].contents()), ours
    assert config["rope_parameters"]["rope_theta"] == fields["llama.rope.freq_base"].contents()
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"


def test_nothing_in_the_folder_tells_who_wrote_it(base):
    """Else hash_of would differ from one version of transformers to the next."""
    for path in base.glob("*.json"):
        if path.name not in ("card.json", "tokenizer.json"):
            assert not {*json.loads(path.read_text())} & {*package.NOT_OF_THE_MODEL}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in base.iterdir())
