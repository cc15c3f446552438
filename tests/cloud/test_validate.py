"""Requests are checked against botocore's model, choices included."""

import boto3
import pytest
from botocore import xform_name

from helpers.cloud.optimization import benchmark_requests, optimization_request, recipes
from helpers.cloud.validate import validate
from helpers.errors import CourseError
from helpers.notebook.cloud_library import CALLS

WHERE = ("s3://bucket/model/", "s3://bucket/out/", "arn:aws:iam::000000000000:role/mine", "ml.g5.2xlarge")
FOUND = recipes("bucket")
JOBS = [name for name, recipe in FOUND.items() if recipe.config]


@pytest.mark.parametrize("name", JOBS)
def test_every_recipe_that_is_a_job_has_the_right_form(name):
    validate("CreateOptimizationJob", optimization_request(name, *WHERE, [FOUND[name]]))


def test_recipes_go_together_if_their_configurations_differ():
    request = optimization_request("both", *WHERE, [FOUND["awq"], FOUND["compile"]])
    assert len(validate("CreateOptimizationJob", request)["OptimizationConfigs"]) == 2
    with pytest.raises(CourseError, match="one ModelQuantizationConfig"):
        optimization_request("both", *WHERE, [FOUND["awq"], FOUND["smoothquant"]])
    with pytest.raises(CourseError, match="no job for speculation by Medusa-1"):
        optimization_request("heads", *WHERE, [FOUND["medusa"]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(OptimizationJobName=5), "OptimizationJobName"),
        (dict(Speed="high"), 'Unknown parameter in input: "Speed"'),
        (dict(DeploymentInstanceType="ml.laptop"), "DeploymentInstanceType is 'ml.laptop', and there are"),
        (
            dict(OptimizationConfigs=[{"ModelSpeculativeDecodingConfig": {"Technique": "MEDUSA"}}]),
            "Technique is 'MEDUSA', and there are EAGLE",
        ),
    ],
)
def test_mistakes_are_named(change, sentence):
    request = optimization_request("a", *WHERE, [FOUND["awq"]]) | change
    with pytest.raises(CourseError, match=sentence):
        validate("CreateOptimizationJob", request)


def test_a_missing_member_and_an_unknown_operation():
    request = optimization_request("a", *WHERE, [FOUND["awq"]])
    del request["RoleArn"]
    with pytest.raises(CourseError, match='Missing required parameter in input: "RoleArn"'):
        validate("CreateOptimizationJob", request)
    with pytest.raises(CourseError, match="no operation 'CreateMagic'"):
        validate("CreateMagic", {})


def test_benchmarks():
    for operation, request in benchmark_requests("a", WHERE[2], WHERE[1], "{}").items():
        validate(operation, request)


def test_boto3_has_the_methods_that_the_table_names():
    options = dict(region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    clients = [boto3.client(name, **options) for name in ("sagemaker", "sagemaker-runtime")]
    there = {xform_name(operation) for client in clients for operation in client.meta.service_model.operation_names}
    assert {call.boto3 for call in CALLS} - there == {"-", "boto3.client"}
