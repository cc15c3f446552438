"""Every metric and invariant that a notebook records has words."""

import json
import re

import pytest

from helpers.files import ROOT
from helpers.notebook.metric_words import FLAT, is_known, words_of
from helpers.notebook.results import predicts

RESULTS = sorted((ROOT / "data" / "reference_results").glob("*/*/[0-9]*.json"))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("start.decode_vs_hf_generate", "speed of decoding, over that of `generate`"),
        ("start.step_ms.bf16.rows_1", "time of a decode step (bfloat16, 1 token in a step)"),
        (
            "precision.decode_speedup.fp16.rows_8",
            "speed of a decode step, over that in float32 (float16, 8 tokens in a step)",
        ),
        ("lora.execution_accuracy.base", "test questions that the base model answers rightly"),
        (
            "start.bandwidth_share.fused",
            "share of the read bandwidth at which a step reads its weights (the fused step)",
        ),
        (
            "kernels.step_ms.packed.tokens_8.bf16",
            "time of a decode step (packed linears, 8 tokens in a step, bfloat16)",
        ),
        (
            "kernels.step_speedup.native.bf16",
            "speed of a step of one token, over that of transformers (the step in C++, bfloat16)",
        ),
        ("nobody.knows_this.yet", "nobody, knows this, yet"),
    ],
)
def test_a_key_in_words(key, words):
    assert words_of(key) == words


def unknown(keys):
    return [key for key in keys if not is_known(predicts(key))]


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_key_of_the_reference_results_has_words(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    assert unknown([*document["metrics"], *document["invariants"]]) == []


SOURCES = [*(ROOT / "notebooks" / "source").rglob("[0-9]*.py"), *(ROOT / "helpers" / "notebook").glob("*.py")]
RECORDED = re.compile(r'(?:metric|invariant|prediction|note_speedup|eight_tokens)\([^")]*?f?"(\w+\.\w[\w.]*)')


def recorded_keys(text):
    """Keys that code writes, of an f-string what stands before its first brace; a name of two parts at least."""
    return {key.rstrip("._") for key in RECORDED.findall(text)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_key_that_a_notebook_writes_has_words(path):
    keys = recorded_keys(path.read_text(encoding="utf-8"))
    assert [key for key in unknown(sorted(keys)) if not any(name.startswith(f"{key}.") for name in FLAT)] == []


def test_keys_are_read_from_code():
    text = 'results.metric(f"start.step_ms.{n}", 1)\nnote_speedup(\n    results, "start.new", x)\nf(results, "a.b")'
    assert recorded_keys(text) == {"start.step_ms", "start.new"}


def test_a_key_without_words_is_seen():
    assert unknown(["start.eight_tokens.predicted", "start.of_no_entry"]) == ["start.of_no_entry"]


def test_no_two_names_say_the_same_of_one_notebook():
    by_topic = {}
    for key, words in FLAT.items():
        by_topic.setdefault(key.split(".")[0], []).append(words)
    doubled = {topic: words for topic, words in by_topic.items() if len(words) != len(set(words))}
    # a share in one dtype and the invariant in the other are about the same thing
    assert {topic: {w for w in words if words.count(w) > 1} for topic, words in doubled.items()} == {
        "speculative": {"answers identical to those of plain greedy decoding"},
        "medusa": {"answers identical to those of plain greedy decoding"},
    }
