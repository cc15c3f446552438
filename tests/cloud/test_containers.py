"""LMI's options, as the course's server takes them."""

import json

import pytest

from helpers.cloud.containers import options_of, settings_of, unused
from helpers.cloud.store import LocalStore
from helpers.errors import CourseError

HEADS = json.dumps({"method": "medusa", "model": "/opt/ml/model/heads", "num_speculative_tokens": 5})


def test_the_file_wins_over_the_environment(tmp_path):
    (tmp_path / "serving.properties").write_text("engine=Python\n# a comment\noption.max_num_seqs=4\n")
    environment = {"HF_MODEL_ID": "owner/model", "OPTION_MAX_NUM_SEQS": "8", "OPTION_DTYPE": "fp32", "PATH": "x"}
    found = options_of(environment, tmp_path)
    assert found == {"model_id": "owner/model", "max_num_seqs": "4", "dtype": "fp32"}
    assert options_of(environment, None)["max_num_seqs"] == "8"


def test_places_inside_the_container_are_places_here(tmp_path):
    store = LocalStore(tmp_path / "s3")
    options = {"model_id": "s3://course/models/one", "speculative_config": HEADS, "max_model_len": "512"}
    found = settings_of(options | {"dtype": "bf16", "max_num_seqs": "3"}, tmp_path / "in", store)
    assert found.model == str((tmp_path / "s3" / "course" / "models" / "one").resolve())
    assert found.medusa == str(tmp_path / "in" / "heads")
    assert (found.longest, found.seats, found.dtype, found.guesses) == (512, 3, "bfloat16", 5)
    assert found.share_prefixes
    assert not settings_of(options | {"enable_prefix_caching": "false"}, None, store).share_prefixes
    assert settings_of({}, tmp_path / "in", store).model == str(tmp_path / "in")
    assert settings_of({"model_id": "owner/model"}, None, store).model == "owner/model"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "names no model"),
        ({"model_id": "a", "dtype": "float32"}, "no dtype 'float32' in LMI; there are fp32"),
        ({"model_id": "a", "enable_prefix_caching": "False"}, "true or false, not 'False'"),
        ({"model_id": "a", "max_model_len": "-1"}, "max_model_len is a number above 0"),
        ({"model_id": "a", "speculative_config": "{"}, "speculative_config is JSON"),
        ({"model_id": "a", "speculative_config": "[]"}, "speculative_config is JSON"),
        ({"model_id": "a", "speculative_config": HEADS.replace("5", '"many"')}, "speculative_config is JSON"),
        ({"model_id": "a", "speculative_config": HEADS.replace("medusa", "eagle")}, "no speculation by 'eagle'"),
    ],
)
def test_options_that_make_no_sense(tmp_path, options, sentence):
    with pytest.raises(CourseError, match=sentence):
        settings_of(options, None, LocalStore(tmp_path))


def test_what_changes_nothing_here_is_named():
    assert unused({"model_id": "a", "tensor_parallel_degree": "2", "quantize": "awq"}) == [
        "quantize",
        "tensor_parallel_degree",
    ]
