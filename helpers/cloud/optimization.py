"""The inference optimization toolkit: what one asks SageMaker for, and what the course does for the same end (12b)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from helpers.errors import CourseError


@dataclass(frozen=True)
class Recipe:
    """A goal, the technique that serves it, the notebook that has it, and the configuration of an optimization job, or
    the container's options where there is no job for it."""

    goal: str
    technique: str
    notebook: str
    config: Mapping[str, Mapping] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


def _environment(**options: str) -> dict:
    return {"OverrideEnvironment": {f"OPTION_{name.upper()}": value for name, value in options.items()}}


def recipes(bucket: str) -> dict[str, Recipe]:
    """By a short name. (A job takes several configurations: quantization and compilation, say.)"""
    data = {"S3Uri": f"s3://{bucket}/prompts/", "S3DataType": "S3Prefix"}
    eagle = {"Technique": "EAGLE", "TrainingDataSource": data}
    draft = {"method": "draft_model", "model": "/opt/ml/model/draft", "num_speculative_tokens": 4}
    heads = {"method": "medusa", "model": "/opt/ml/model/heads", "num_speculative_tokens": 5}
    return {
        "awq": Recipe(
            "less memory, or a smaller instance",
            "4-bit weights by AWQ",
            "02",
            {"ModelQuantizationConfig": _environment(quantize="awq")},
        ),
        "smoothquant": Recipe(
            "more tokens a second at many users",
            "8-bit weights and activations by SmoothQuant",
            "02c",
            {"ModelQuantizationConfig": _environment(quantize="smoothquant")},
        ),
        "compile": Recipe(
            "start faster, and fit one instance type",
            "compiled ahead of time",
            "00c",
            {"ModelCompilationConfig": _environment(tensor_parallel_degree="1", max_num_seqs="16")},
        ),
        "shard": Recipe(
            "load faster onto several GPUs",
            "weights cut ahead of time",
            "06",
            {"ModelShardingConfig": _environment(tensor_parallel_degree="4")},
        ),
        "eagle": Recipe(
            "lower latency for few users",
            "speculation by EAGLE, trained on your prompts",
            "08",
            {"ModelSpeculativeDecodingConfig": eagle},
        ),
        "draft": Recipe(
            "lower latency, with a draft of your own",
            "speculation by a draft model: a container's option",
            "07",
            options={"speculative_config": json.dumps(draft)},
        ),
        "medusa": Recipe(
            "lower latency, with heads of your own",
            "speculation by Medusa-1: a container's option",
            "08",
            options={"speculative_config": json.dumps(heads)},
        ),
    }


def optimization_request(
    name: str, model_uri: str, output_uri: str, role: str, instance_type: str, chosen: list[Recipe]
) -> dict:
    """What CreateOptimizationJob takes for recipes that go together in one job.

    Raises:
        CourseError: one of them is no job but a container's option, or two want the same configuration.
    """
    configs: list[dict] = []
    for recipe in chosen:
        if not recipe.config:
            raise CourseError(f"There is no job for {recipe.technique}: set it in serving.properties (11).")
        if recipe.config.keys() & {key for config in configs for key in config}:
            raise CourseError(f"A job takes one {next(iter(recipe.config))}: choose one of the recipes.")
        configs.append(dict(recipe.config))
    return {
        "OptimizationJobName": name,
        "RoleArn": role,
        "ModelSource": {"S3": {"S3Uri": model_uri}},
        "DeploymentInstanceType": instance_type,
        "OptimizationConfigs": configs,
        "OutputConfig": {"S3OutputLocation": output_uri},
        "StoppingCondition": {"MaxRuntimeInSeconds": 36_000},
    }


def benchmark_requests(endpoint: str, role: str, output_uri: str, workload: str) -> dict[str, dict]:
    """A workload, a benchmark of an endpoint with it, and a recommendation, by their operations; `workload` is the
    SDK's JSON (Workload.synthetic(...).to_inline())."""
    named = {"AIWorkloadConfigIdentifier": "sql-questions", "RoleArn": role}
    output = {"S3OutputLocation": output_uri}
    spec = {"AIWorkloadConfigName": "sql-questions", "AIWorkloadConfigs": {"WorkloadSpec": {"Inline": workload}}}
    target = {"Endpoint": {"Identifier": endpoint}}
    goal = {"Constraints": [{"Metric": "cost"}]}
    job, advice = {"AIBenchmarkJobName": "sql-benchmark"}, {"AIRecommendationJobName": "sql-advice"}
    source = {"S3": {"S3Uri": output_uri}}
    return {
        "CreateAIWorkloadConfig": spec,
        "CreateAIBenchmarkJob": named | job | {"BenchmarkTarget": target, "OutputConfig": output},
        "CreateAIRecommendationJob": named
        | advice
        | {"ModelSource": source, "OutputConfig": output, "PerformanceTarget": goal},
    }
