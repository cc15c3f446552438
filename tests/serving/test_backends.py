"""Each answer to the questions leads somewhere, and configurations are read back."""

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
        (Needs("nvidia", 80e9, 140e9), "Accelerate"),
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


def test_configurations():
    options = {"model_id": "a/b", "max_rolling_batch_size": 32, "enable_lora": True}
    assert serving_properties(options).splitlines() == [
        "engine=Python",
        "option.model_id=a/b",
        "option.max_rolling_batch_size=32",
        "option.enable_lora=true",
    ]
    assert environment_of(options)["OPTION_MAX_ROLLING_BATCH_SIZE"] == "32"
    with pytest.raises(CourseError, match=r"needs option\.model_id"):
        serving_properties({})
    with pytest.raises(CourseError, match=r"option\.model_id can't stand on a line"):
        serving_properties({"model_id": "a\nb"})
    words = shlex.split(vllm_command("m", tensor_parallel=2, max_model_len=4096, medusa="heads"))
    assert words[:4] == ["vllm", "serve", "m", "--tensor-parallel-size"] and '"method": "medusa"' in words[-1]
    assert vllm_command("m") == "vllm serve m"
