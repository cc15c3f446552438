"""The first call of every notebook: what this machine is, what is real here, how much is measured, and one seed."""

from __future__ import annotations

import os
import random
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from helpers.errors import CourseError
from helpers.measuring.machine import describe_machine, is_calm, version_of
from helpers.notebook.plots import use_style
from helpers.notebook.profiles import PROFILES, Profile
from helpers.notebook.results import Results


@dataclass(frozen=True)
class Lesson:
    """What a notebook works with: `results` takes its findings, `sizes` says how many prompts to take."""

    name: str
    profile: str
    device: str
    model_id: str
    seed: int
    sizes: Profile
    results: Results


def start(name: str, profile: str = "cpu", model_id: str = "base", seed: int = 0) -> Lesson:
    """Set up a notebook called NN_name and say what is real on this machine; a CourseError says what to do first."""
    if profile not in PROFILES:
        raise CourseError(f"There is no profile {profile!r}; there are {', '.join(PROFILES)}.")
    if profile == "gpu" and not torch.cuda.is_available():
        raise CourseError('The profile "gpu" needs a CUDA device that torch can use: take PROFILE = "cpu".')
    if not isinstance(seed, int) or not 0 <= seed < 2**32:  # what numpy's generator takes
        raise CourseError(f"SEED is {seed!r}: give a whole number from 0 to {2**32 - 1}.")
    from helpers.models import check_is_model, parts_of

    check_is_model(model_id)  # fails early, before anything is measured
    parts = parts_of(model_id)
    machine = describe_machine()
    if "OMP_NUM_THREADS" not in os.environ:  # two threads on one physical core slow each other down
        torch.set_num_threads(min(machine.cores, machine.physical_cores))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries draw from the old generator
    torch.manual_seed(seed)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    use_style()
    device = "cuda" if profile == "gpu" else "cpu"
    sizes = PROFILES[profile]
    results = Results(name, profile, models=parts)
    versions = ", ".join(f"{p} {version_of(p)}" for p in ("torch", "transformers"))
    calm = is_calm()
    print(f"{name}, profile {profile}: {sizes.answers} prompts for answers, {sizes.timed} for times, seed {seed}")
    bf16 = "native" if machine.bf16_is_native else "not native"
    gpu, threads = machine.accelerator or "no GPU", torch.get_num_threads()
    plural = "s" * (threads != 1)
    print(f"machine: {machine.cpu}, {threads} thread{plural}, {machine.memory_gib:.0f} GiB; {gpu}; bfloat16 {bf16}")
    print(f"versions: Python {'.'.join(map(str, sys.version_info[:3]))}, {versions}")
    print(f"everything below is measured here, unless it says emulated or predicted; {calm.verdict}")
    return Lesson(name, profile, device, str(model_id), seed, sizes, results)
