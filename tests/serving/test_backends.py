"""Each answer to the questions leads somewhere, and configurations are read back."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.errors import CourseError
from helpers.serving.backends import (
    BACKENDS,
    DEVICES,
    Needs,
    choose_backend,
    environment_of,
    serving_properties,
    vllm_command,
)

GPU = dict(device="nvidia", memory=80e9, weight_bytes=16e9)


@pytest.mark.parametrize(
    ("needs", "name"),
    [
        (Needs(**GPU), "vLLM"),
        (Needs(**GPU, on_sagemaker=True), "LMI"),
        (Needs(**GPU, changes_often=False, users=4), "TensorRT-LLM"),
        (Needs(**GPU, num_models=3), "Ray Serve"),
        (Needs("nvidia", 80e9, 140e9, users=1), "Accelerate"),
        (Needs("nvidia", 80e9, 140e9), "vLLM"),
        (Needs("nvidia", 80e9, 60e9, kv_bytes=40e9, on_sagemaker=True), "LMI"),
        (Needs("mac", 16e9, 30e9), "llama.cpp"),
        (Needs("neuron", 32e9, 60e9), "NeuronX"),
        (Needs("cpu", 16e9, 1e9, users=1), "llama.cpp"),
        (Needs("cpu", 16e9, 1e9, users=32), "vLLM"),
        (Needs("mac", 16e9, 1e9, users=32), "llama.cpp"),
        (Needs("neuron", 32e9, 16e9), "NeuronX"),
    ],
)
def test_who_is_chosen_and_why(needs, name):
    choice = choose_backend(needs)
    assert choice.name == name and choice.reasons and choice.backend.state


@given(
    st.builds(
        Needs,
        device=st.sampled_from(DEVICES),
        memory=st.floats(1e6, 1e13),
        weight_bytes=st.floats(1e6, 1e13),
        users=st.integers(1, 1000),
        changes_often=st.booleans(),
        on_sagemaker=st.booleans(),
        num_models=st.integers(1, 9),
    )
)
def test_every_need_has_a_server_that_is_still_developed(needs):
    choice = choose_backend(needs)
    assert "maintenance" not in BACKENDS[choice.name].state and "dormant" not in BACKENDS[choice.name].state


def test_what_makes_no_sense_is_refused():
    with pytest.raises(CourseError, match="There is no device 'abacus' here; there are nvidia"):
        Needs("abacus", 1, 1)
    with pytest.raises(CourseError, match="numbers above 0"):
        Needs("cpu", 1, 1, users=0)


def test_what_does_not_fit_is_told_before_a_server_is_chosen():
    reasons = choose_backend(Needs("nvidia", 80e9, 140e9)).reasons
    assert reasons[0] == "it doesn't fit the memory as it is" and "quantize it" in reasons[1]


def test_configurations():
    speculative = {"method": "medusa", "model": "heads"}
    options = {"model_id": "a/b", "max_num_seqs": 32, "enable_lora": True, "speculative_config": speculative}
    lines = serving_properties(options).splitlines()
    assert lines[:4] == ["engine=Python", "option.model_id=a/b", "option.max_num_seqs=32", "option.enable_lora=true"]
    assert json.loads(lines[4].split("=", 1)[1]) == speculative
    assert json.loads(environment_of(options)["OPTION_SPECULATIVE_CONFIG"]) == speculative
    with pytest.raises(CourseError, match=r"needs option\.model_id"):
        serving_properties({})
    for bad in ({"model_id": "a\nb"}, {"model_id": "a", "é": 1}, {"model_id": "a", "b": None}):
        with pytest.raises(CourseError, match="can't stand on a line"):
            serving_properties(bad)
    with pytest.raises(CourseError, match="is a thing of the past"):
        serving_properties({"model_id": "a", "rolling_batch": "auto"})


def test_a_line_for_vllm_is_one_for_a_shell():
    words = shlex.split(vllm_command("a model", tensor_parallel=2, max_model_len=4096, medusa="heads"))
    assert words[:5] == ["vllm", "serve", "a model", "--tensor-parallel-size", "2"]
    assert json.loads(words[-1]) == {"method": "medusa", "model": "heads", "num_speculative_tokens": 5}
    assert vllm_command("m") == "vllm serve m"
