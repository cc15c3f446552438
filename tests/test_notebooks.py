"""Every notebook from top to bottom under `smoke`, as CI runs it; and 00 with another architecture."""

import json

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.course import runner
from helpers.course.notebooks import notebook_files
from helpers.notebook.results import load
from tests.tiny_tokenizer import tiny_tokenizer

NOTEBOOKS = [path.stem for path in notebook_files()]


def run(tmp_path, number, **parameters):
    said = []
    status = runner.run("smoke", [number], parameters=parameters, output_root=tmp_path, say=said.append)
    assert status == 0, "\n".join(said)
    return tmp_path


@pytest.mark.papermill
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_its_results_keep_the_contract(tmp_path, name):
    run(tmp_path, name.split("_")[0])
    document = load("smoke", name, tmp_path / "results")
    assert document["metrics"] and all(row["holds"] for row in document["invariants"].values())
    assert (tmp_path / "report" / "index.html").exists()


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    """Another architecture: random weights that say more than one token."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    place = tmp_path_factory.mktemp("qwen2") / "a folder with spaces"
    model = Qwen2ForCausalLM(config)
    for p in model.parameters():  # the default spread makes a model say one token for ever
        p.data.mul_(6 if p.ndim == 2 else 1)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.mark.papermill
def test_00_runs_with_a_tiny_qwen2(tmp_path, qwen2):
    run(tmp_path / "out", "00", MODEL_ID=qwen2)
    document = json.loads((tmp_path / "out" / "results" / "smoke" / "00_start_here.json").read_text())
    assert document["invariants"]["start.identical_to_hf_generate"]["holds"]
    lines = (tmp_path / "out" / "results" / "smoke" / "00_start_here.prompts.jsonl").read_text().splitlines()
    assert len({json.loads(line)["text"] for line in lines}) > 1


@pytest.mark.papermill
def test_08_trains_heads_for_a_tiny_qwen2(tmp_path, qwen2):
    run(tmp_path / "out", "08", MODEL_ID=qwen2, HEADS="own")
    document = json.loads((tmp_path / "out" / "results" / "smoke" / "08_medusa.json").read_text())
    assert document["invariants"]["medusa.identical_outputs"]["holds"]
