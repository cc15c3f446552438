"""Requests of several adapters in one step get what each adapter's own model writes."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from helpers.decoding.generate import plain_greedy
from helpers.errors import CourseError
from helpers.serving.adapters import engine_with_adapters
from helpers.serving.run import Settings, make_worker, running
from helpers.serving.worker import Worker
from helpers.weights.adapters import lora, peft_files
from tests.serving.test_server import PROMPT, post

NAMES = ("north", "south")


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """Adapters that change what is written."""
    made = {}
    for seed, name in enumerate(NAMES):
        adapted = lora.install(copy.deepcopy(model), rank=4, targets=lora.ATTENTION)
        torch.manual_seed(seed)
        for _, layer in lora.layers(adapted):
            layer.b["default"].data.normal_(0, 0.5)
        made[name] = tmp_path_factory.mktemp(name)
        peft_files.save_adapter(adapted, made[name])
    return made


@pytest.fixture(scope="module")
def server(model, tokenizer, folders):
    worker = Worker(engine_with_adapters(copy.deepcopy(model), folders, 400), tokenizer)
    with running(worker, "tiny") as url:
        yield type("Server", (), {"url": url, "worker": worker})


@pytest.fixture(scope="module")
def expected(model, tokenizer, folders):
    """By the name: what the base with this adapter merged into it writes."""
    ids = tokenizer(PROMPT, add_special_tokens=False)["input_ids"]
    found = {"tiny": plain_greedy(model, ids, 12)}
    for name, folder in folders.items():
        adapted = peft_files.load_adapter(copy.deepcopy(model), folder, "own")
        found[name] = plain_greedy(lora.merge(adapted, "own"), ids, 12)
    texts = {name: tokenizer.decode(tokens, skip_special_tokens=True) for name, tokens in found.items()}
    assert len(set(texts.values())) == 3
    return texts


def test_each_request_has_its_own_adapter_in_a_step_of_all(server, expected):
    names = [*NAMES, "tiny"] * 4

    def ask(name):
        body = {"model": name, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        answer = post(server, "/v1/completions", body).json()
        assert answer["model"] == name
        return answer["choices"][0]["text"]

    with ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(ask, names)) == [expected[name] for name in names]
    assert not server.worker.engine.forward.adapter_of  # nothing is left of them


def test_in_every_schema_and_in_a_beam(server, expected):
    parameters = {"max_new_tokens": 12}
    tgi = post(server, "/generate", {"inputs": PROMPT, "parameters": parameters | {"adapter_id": "south"}})
    lmi = post(server, "/invocations", {"inputs": PROMPT, "parameters": parameters, "adapters": "south"})
    assert tgi.json()["generated_text"] == lmi.json()["generated_text"] == expected["south"]
    body = {"model": "north", "prompt": PROMPT, "max_tokens": 12, "n": 1, "use_beam_search": True}
    assert post(server, "/v1/completions", body).json()["choices"][0]["text"] == expected["north"]


def test_an_unknown_one_is_refused_by_name(server):
    refused = post(server, "/generate", {"inputs": "a", "parameters": {"adapter_id": "west"}})
    assert refused.status_code == 400
    assert refused.json()["error"] == "There is no adapter 'west' here; there are north, south."
    refused = post(server, "/v1/completions", {"model": "west", "prompt": "a"})
    assert refused.json()["error"]["message"] == "There is no model 'west' here; there are tiny, north, south."


def test_an_adapter_of_another_model_is_refused(tmp_path, model, tokenizer):
    """The fine-tuned model has its adapter in it already: twice would be wrong in silence."""
    with pytest.raises(CourseError, match="The adapter sql was made for base, not for fine-tuned: --model base"):
        make_worker(Settings("fine-tuned", adapters={"sql": "fine-tuned"}))


def test_heads_and_adapters_don_t_go_together(tmp_path, model, tokenizer, folders):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CourseError, match="leave --medusa out"):
        make_worker(Settings(str(tmp_path), medusa="medusa", adapters=folders))
