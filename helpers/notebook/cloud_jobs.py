"""The two training jobs of notebook 12: fine-tune the base, then train heads on what came out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt

from helpers import files
from helpers.cloud import jobs
from helpers.notebook import plots
from helpers.notebook.cloud_bench import CloudBench, upload_base
from helpers.notebook.results import Results

WIDTH = 85  # of a log's line


def upload_data(bench: CloudBench) -> str:
    """The training and validation examples; returns their address."""
    with tempfile.TemporaryDirectory() as place:
        for split in ("train", "validation"):
            shutil.copy(files.ROOT / "data" / "text_to_sql" / f"{split}.jsonl", place)
        return bench.cloud.upload(Path(place), "data")


def upload_code(bench: CloudBench, module: str) -> str:
    """The script of a module, with the course's package; returns its address."""
    with tempfile.TemporaryDirectory() as place:
        archive = jobs.pack_code(module, Path(place) / "sourcedir.tar.gz")
        return bench.cloud.upload(archive, f"code/{module.rpartition('.')[2]}/sourcedir.tar.gz")


def run_job(
    results: Results, bench: CloudBench, name: str, hyperparameters: Mapping[str, object], channels: Mapping[str, str]
) -> Path:
    """A job from its creation to its artifact, with its log; writes its seconds. Returns the folder of what
    it made."""
    code = upload_code(bench, f"helpers.training.{name}")
    job = bench.named(name)
    hours = bench.cloud.budget.hours if bench.cloud.budget else 1.0
    limits = dict(instance_type=bench.instance_type, longest=int(3600 * min(hours, 1.0)))
    request = jobs.training_request(bench.cloud, job, code, hyperparameters, channels, **limits)
    bench.cloud.create("training_job", **request)
    for line in jobs.follow(bench.cloud, job):
        print(f"  {line[:WIDTH]}")
    described = bench.cloud.sagemaker.describe_training_job(TrainingJobName=job)
    seconds = (described["TrainingEndTime"] - described["CreationTime"]).total_seconds()
    results.metric(f"sagemaker.job_seconds.{name}", seconds, "s", n=1)
    print(f"{described['TrainingJobStatus']} after {seconds:.0f} s: {described['ModelArtifacts']['S3ModelArtifacts']}")
    folder = files.build_root() / "artifacts" / "jobs" / name
    shutil.rmtree(folder, ignore_errors=True)
    return jobs.artifact(bench.cloud, job, folder)


def train_both(results: Results, bench: CloudBench) -> Path:
    """Fine-tune the base for a few steps, and train heads on the model that this makes. Returns the heads' folder."""
    data, base, sizes = upload_data(bench), upload_base(bench), bench.sizes
    options = {
        "model_id": "/opt/ml/input/data/base",
        "method": "lora",
        "max_steps": sizes.steps,
        "warmup_steps": 1,
        "eval_samples": 0,
        "merge_weights": False,
    }
    made = run_job(results, bench, "fine_tune_llm", options, {"base": base, "train": data, "validation": data})
    adapter = bench.cloud.upload(made / "adapter", "adapter")
    options = {
        "model_id": "/opt/ml/input/data/model",
        "answers": "reference",
        "max_examples": sizes.examples,
        "epochs": 1,
        "eval_samples": 0,
    }
    return run_job(results, bench, "train_medusa_heads", options, {"base": base, "model": adapter, "train": data})


def draw_losses(bench: CloudBench) -> None:
    """The loss of the job that fine-tuned, from TensorBoard's files."""
    with tempfile.TemporaryDirectory() as place:
        found = jobs.losses(bench.cloud, bench.named("fine_tune_llm"), Path(place))
    _, ax = plt.subplots(figsize=(6, 2.8))
    ax.plot([step for step, _ in found], [loss for _, loss in found], color=plots.COLORS[0], marker="o")
    ax.set(title="The job's loss, as TensorBoard has it", xlabel="step (count)", ylabel="loss (nats a token)")
