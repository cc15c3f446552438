"""What notebook 12 puts behind endpoints: the base, the fine-tuned model, and the latter with heads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from helpers import models
from helpers.cloud.clients import Cloud
from helpers.cloud.store import pack
from helpers.files import build_root
from helpers.notebook.cloud_sizes import CloudSizes
from helpers.notebook.lesson import Lesson
from helpers.notebook.serving_backends import over_all_tokens
from helpers.profiling.opponents import heads_for, written_folder
from helpers.serving.backends import serving_properties
from helpers.speculation.medusa_files import load as load_heads
from helpers.speculation.medusa_files import save as save_heads
from helpers.text_to_sql.dataset import Example, load_split
from helpers.text_to_sql.prompts import prompt_for

ROOM = 1024  # tokens of a prompt and its answer
DTYPE = "fp32"  # by LMI's name: in 16 bits near ties may fall either way, and answers could not be compared


@dataclass(frozen=True)
class CloudBench:
    """Questions, and the models that answer them."""

    cloud: Cloud
    name: str
    model: nn.Module
    tokenizer: object
    examples: Sequence[Example]
    prompts: Sequence[str]
    instance_type: str
    image: str
    heads: str | None
    sizes: CloudSizes

    @classmethod
    def of(cls, lesson: Lesson, cloud: Cloud, instance_type: str, sizes: CloudSizes) -> CloudBench:
        name = "fine-tuned" if lesson.model_id == "base" else lesson.model_id
        lesson.results.add_models(models.parts_of(name))
        model, tokenizer = models.load(name)
        examples = load_split("test", limit=max(sizes.prompts, sizes.requests * len(sizes.users)))
        prompts = [prompt_for(tokenizer, example) for example in examples]
        image = serving_image(instance_type, cloud.region)
        return cls(cloud, name, model, tokenizer, examples, prompts, instance_type, image, heads_for(name), sizes)

    @property
    def compared(self) -> tuple[str, ...]:
        """The fine-tuned model, and the same with heads where there are some."""
        return ("fine_tuned", "medusa") if self.heads else ("fine_tuned",)

    def named(self, name: str) -> str:
        """A name that nobody else in the account has."""
        return f"{name.replace('_', '-')}-{self.cloud.session}"

    def variant(self, model: str | None = None) -> dict:
        """One instance for a model, or for inference components. A container with CUDA 13 wants a driver of its time,
        which comes with AWS' newer system images."""
        found = dict(VariantName="AllTraffic", InitialInstanceCount=1, InstanceType=self.instance_type)
        newer = {"InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1"} if "cu13" in self.image else {}
        return found | newer | ({"ModelName": model} if model else {})


def serving_image(instance_type: str, region: str) -> str:
    """AWS' container for large models (LMI, with vLLM inside), by the SDK's own list (no network)."""
    from sagemaker.core import image_uris

    return image_uris.retrieve("djl-lmi", region, instance_type=instance_type)


def upload_models(bench: CloudBench) -> dict[str, dict[str, str]]:
    """The models into the bucket; returns the options of each endpoint's serving.properties. Weights lie beside each
    other, unpacked: a container reads them from there, and no archive of gigabytes is made."""
    common = {"max_model_len": str(ROOM), "dtype": DTYPE, "enable_prefix_caching": "false"}
    tuned = bench.cloud.upload(written_folder(bench.model, bench.tokenizer, bench.name), "models/fine-tuned")
    base = upload_base(bench)
    found = {"base": common | {"model_id": base}, "fine_tuned": common | {"model_id": tuned}}
    if bench.heads:
        speculation = {"method": "medusa", "model": "/opt/ml/model/heads", "num_speculative_tokens": 4}
        found["medusa"] = found["fine_tuned"] | {"speculative_config": json.dumps(speculation)}
    return found


def upload_base(bench: CloudBench) -> str:
    """The base model's folder; returns its address."""
    return bench.cloud.upload(Path(models.folder_of("base")), "models/base")


def pack_container(bench: CloudBench, options: Mapping[str, str]) -> str:
    """The archive that a container unpacks into /opt/ml/model: its serving.properties, and heads where it speculates;
    returns its address."""
    with tempfile.TemporaryDirectory(dir=build_root()) as place:
        folder = Path(place) / "model"
        folder.mkdir()
        (folder / "serving.properties").write_text(serving_properties(options))
        if "speculative_config" in options:
            heads = load_heads(bench.heads, bench.model)
            if bench.cloud.backend == "aws":  # vLLM's server doesn't read heads that guess among fewer tokens
                heads = over_all_tokens(heads, bench.model.get_output_embeddings().weight)
            save_heads(heads, folder / "heads", bench.name)
        archive = pack(folder, Path(place) / "model.tar.gz")
        kind = "medusa" if "speculative_config" in options else Path(options["model_id"]).name
        return bench.cloud.upload(archive, f"containers/{kind}/model.tar.gz")


def create_model(bench: CloudBench, name: str, archive: str) -> str:
    """SageMaker's "model": a container, and the archive that it unpacks; returns its name."""
    container, model = {"Image": bench.image, "ModelDataUrl": archive}, bench.named(name)
    bench.cloud.create("model", ModelName=model, PrimaryContainer=container, ExecutionRoleArn=bench.cloud.role)
    return model
