"""Which server to take, and the configuration that it wants (notebook 11). State of November 2026.

`choose_backend` asks a few questions in a fixed order and gives its reasons: a decision that one can read, not a score.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from helpers.errors import CourseError


@dataclass(frozen=True)
class Backend:
    """A server: what it is for, and how it is doing."""

    name: str
    made_for: str
    state: str


BACKENDS = {
    one.name: one
    for one in (
        Backend("vLLM", "many users on GPUs; new models first", "active: the default of most clouds' containers"),
        Backend("SGLang", "many users on GPUs, whose prompts have much in common; answers in a given form", "active"),
        Backend("LMI", "SageMaker's container for large models, around vLLM and TensorRT-LLM", "active"),
        Backend("TensorRT-LLM", "the least latency on NVIDIA's GPUs", "active"),
        Backend("llama.cpp", "one user or a few, on a laptop, a CPU or a Mac", "active"),
        Backend("Ray Serve", "several models and steps behind one address, on a cluster (once Aviary)", "active"),
        Backend("Accelerate", "a model larger than the memory, if seconds a token are soon enough", "active"),
        Backend("DeepSpeed", "training, and inference of models that are larger than a GPU (ZeRO)", "active"),
        Backend("TGI", "many users on GPUs", "in maintenance since 3.3.7: take vLLM"),
        Backend("DeepSpeed-MII", "many users on GPUs", "dormant: take vLLM"),
        Backend("OpenLLM", "models by name behind OpenAI's schema, around vLLM", "active"),
        Backend(
            "NeuronX", "AWS Inferentia and Trainium", "active as vLLM's plug-in; gone from LMI since November 2025"
        ),
        Backend("the course's server", "reading how it is done, and CPUs with few users", "notebook 11's"),
    )
}
LEGACY = {  # options of LMI that today's containers rewrite or don't know
    "rolling_batch": "the container takes vLLM, asynchronous, by itself",
    "max_rolling_batch_size": "max_num_seqs says how many sequences run at a time",
}
DEVICES = ("nvidia", "neuron", "cpu", "mac")


@dataclass(frozen=True)
class Needs:
    """What is there, and what is wanted: the device, its memory (bytes, of all devices together), the weights' bytes,
    those of all users' keys and values, users at a time, whether the model changes often, whether SageMaker hosts it,
    and how many models there are."""

    device: str
    memory: float
    weight_bytes: float
    kv_bytes: float = 0.0
    users: int = 16
    changes_often: bool = True
    on_sagemaker: bool = False
    num_models: int = 1

    def __post_init__(self):
        if self.device not in DEVICES:
            raise CourseError(f"There is no device {self.device!r} here; there are {', '.join(DEVICES)}.")
        if min(self.memory, self.weight_bytes, self.users, self.num_models) <= 0:
            raise CourseError("Memory, weights, users and models are numbers above 0.")


@dataclass(frozen=True)
class Choice:
    """A backend's name, and the reasons in the order in which they were found."""

    name: str
    reasons: tuple[str, ...]

    @property
    def backend(self) -> Backend:
        return BACKENDS[self.name]


def choose_backend(needs: Needs) -> Choice:
    """The server to try first, with reasons."""
    fits = needs.weight_bytes + needs.kv_bytes <= 0.9 * needs.memory
    reasons = ["the weights and the users' keys and values fit" if fits else "it doesn't fit the memory as it is"]

    def chosen(name: str, *more: str) -> Choice:
        return Choice(name, (*reasons, *more))

    if needs.device == "neuron":
        return chosen("NeuronX", "only Neuron's own compiler makes code for these devices")
    if needs.device in ("cpu", "mac"):
        if not fits:
            return chosen("llama.cpp", "weights of 4 bits are a quarter, and what is over stays in a mapped file")
        if needs.users <= 4 or needs.device == "mac":
            return chosen("llama.cpp", "no GPU, and few users or a Mac: its kernels and formats are made for that")
        return chosen("vLLM", "no GPU, and many users: it batches continuously, and has a build for CPUs")
    if not fits and needs.users == 1:
        return chosen("Accelerate", "for a single user layers can come from main memory or the disk, one by one")
    if not fits:
        reasons.append("with many users: quantize it (02), or take more devices (06), before you choose a server")
    if needs.on_sagemaker:
        return chosen("LMI", "SageMaker hosts it: the container has /invocations, and takes its engine by a setting")
    if needs.num_models > 1:
        return chosen("Ray Serve", "several models behind one address, each with replicas of its own")
    if not needs.changes_often and needs.users <= 8:
        return chosen("TensorRT-LLM", "a model that stays, and few users on NVIDIA's GPUs: the least latency counts")
    return chosen("vLLM", "many users on a GPU, and models that change: new ones are there first")


def serving_properties(options: Mapping[str, object]) -> str:
    """LMI's serving.properties; the same as OPTION_X in the environment, and stronger than it.

    Raises:
        CourseError: a key or a value that a line can't hold, an option of the past, or no model.
    """
    if "model_id" not in options:
        raise CourseError("serving.properties needs option.model_id: a Hub id, or an S3 prefix.")
    lines = ["engine=Python"]
    for key, value in options.items():
        if key in LEGACY:
            raise CourseError(f"option.{key} is a thing of the past: {LEGACY[key]}.")
        text = value if isinstance(value, str) else json.dumps(value)
        if not re.fullmatch(r"[a-z0-9_]+", key) or value is None or re.search(r"[\r\n\\]", text):
            raise CourseError(f"option.{key} can't stand on a line of serving.properties: correct it.")
        lines.append(f"option.{key}={text}")
    return "\n".join(lines) + "\n"


def environment_of(options: Mapping[str, object]) -> dict[str, str]:
    """The same options as environment variables."""
    pairs = (line.split("=", 1) for line in serving_properties(options).splitlines()[1:])
    return {key.replace("option.", "OPTION_").upper(): value for key, value in pairs}


def vllm_command(
    model: str,
    *,
    tensor_parallel: int = 1,
    max_model_len: int | None = None,
    medusa: str | None = None,
    guesses: int = 5,
) -> str:
    """A line that serves the model by vLLM; with Medusa's heads where there are some, and so many guesses of theirs."""
    words = ["vllm", "serve", model]
    if tensor_parallel > 1:
        words += ["--tensor-parallel-size", str(tensor_parallel)]
    if max_model_len:
        words += ["--max-model-len", str(max_model_len)]
    if medusa:
        speculative = {"method": "medusa", "model": medusa, "num_speculative_tokens": guesses}
        words += ["--speculative-config", json.dumps(speculative)]
    return shlex.join(words)
