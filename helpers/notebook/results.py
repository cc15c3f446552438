"""The results contract: what a notebook leaves behind, so that tables, the report and notebook 13 need no copying.

    results = Results("08_medusa", PROFILE, models=["data/models/base"])
    results.prediction("medusa.speedup", 3, "x")  # on disk at once
    results.metric("medusa.speedup", 2.4, "x", low=2.2, high=2.6, n=450)
    results.invariant("medusa.identical_outputs", same == 450, same, 450)
    results.write()  # build/results/<profile>/08_medusa.json

Every entry is checked when it is made, against results_schema.json and the rules that a schema can't say; files appear
whole or not at all, so a killed notebook leaves nothing half-written.
"""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from helpers import files
from helpers.errors import CourseError
from helpers.files import build_root, write_whole
from helpers.measuring.memory import peak_memory_gib
from helpers.notebook import provenance
from helpers.notebook.results_schema import checked, validate

VERSIONS_OF = ("torch", "transformers", "numpy", "bitsandbytes", "torchao", "peft", "vllm", "sagemaker")


@dataclass
class Results:
    """What one run of a notebook measured. `name` is NN_name, `folder` holds a folder for each profile."""

    name: str
    profile: str
    folder: Path | None = None
    models: Sequence[str | Path] = ()  # folders relative to the repository, or names on the Hub
    code_hash: str | None = None
    model_hash: str | None = None
    machine: Mapping | None = None
    metrics: dict = field(default_factory=dict, init=False)
    invariants: dict = field(default_factory=dict, init=False)
    prompts: list = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._started = time.perf_counter()
        self._path = _path(self.profile, self.name, self.folder)
        self.code_hash = self.code_hash or provenance.code_hash(self.name)
        self.models = [_relative(model) for model in self.models]
        self.model_hash = self.model_hash or files.model_hash(self.models)
        self.machine = dict(self.machine or _machine())

    def add_models(self, models: Sequence[str | Path]) -> None:
        """Further models that the results depend on: they go stale with any of them."""
        self.models = list(dict.fromkeys([*self.models, *(_relative(model) for model in models)]))
        self.model_hash = files.model_hash(self.models)

    def metric(
        self,
        key: str,
        value: float,
        unit: str,
        kind: str = "measured",
        low: float | None = None,
        high: float | None = None,
        n: int | None = None,
    ) -> None:
        """A number with its unit ("ms", "GB/s", "x", "share"); a measured ratio ("x") needs its interval and n."""
        if kind == "predicted":
            return self.prediction(key, value, unit)
        entry = {"value": value, "unit": unit, "kind": kind, "low": low, "high": high, "n": n}
        self.metrics[key] = checked("metric", key, {k: _plain(v) for k, v in entry.items() if v is not None})

    def invariant(self, key: str, holds: bool, count: int, of: int) -> None:
        """Something that has to be so in `count` of `of` cases, and whether it is."""
        entry = {"holds": holds, "count": count, "of": of}
        self.invariants[key] = checked("invariant", key, {k: _plain(v) for k, v in entry.items()})

    def prompt(
        self,
        prompt_id: str | int,
        technique: str,
        dtype: str,
        seconds: float,
        tokens: int,
        text: str,
        right: bool | None,
    ) -> None:
        """One answer, a line of NN_name.prompts.jsonl: seconds for all of it, tokens in it, whether it was right."""
        entry = {
            "prompt": prompt_id,
            "technique": technique,
            "dtype": dtype,
            "seconds": seconds,
            "tokens": tokens,
            "text": text,
            "right": right,
        }
        self.prompts.append(checked("prompt", "prompts.row", {k: _plain(v) for k, v in entry.items()}))

    def prediction(self, key: str, value: float, unit: str) -> None:
        """A guess about the metric `key`, kept as `key`.predicted unless the key says so itself: on disk at once, and
        refused after the measurement."""
        measured = predicts(key)
        if self.metrics.get(measured, {}).get("kind", "predicted") != "predicted":
            raise CourseError(f"{measured} is measured already: save the prediction in a cell before the measurement.")
        entry = {"value": _plain(value), "unit": unit, "kind": "predicted", "saved": _now()}
        key = key if "predicted" in key else f"{key}.predicted"
        self.metrics[key] = checked("metric", key, entry)
        guesses = {k: v for k, v in self.metrics.items() if v["kind"] == "predicted"}
        write_whole(self._path.with_suffix(".predictions.json"), json.dumps(guesses, indent=1))

    def assert_invariants(self) -> None:
        """Raise CourseError naming each invariant that doesn't hold."""
        broken = [f"{key} ({row['count']} of {row['of']})" for key, row in self.invariants.items() if not row["holds"]]
        if broken:
            raise CourseError(f"Not as it must be: {', '.join(broken)}; the measurements above can't be trusted.")

    def write(self) -> Path:
        """Write NN_name.json, and NN_name.prompts.jsonl where there are prompts; returns the JSON's path."""
        document = {
            "notebook": self.name,
            "profile": self.profile,
            "machine": self.machine,
            "versions": _versions(),
            "seconds": round(time.perf_counter() - self._started, 3),
            "peak_memory_gib": round(peak_memory_gib(), 3),
            "finished": _now(),
            "models": self.models,
            "code_hash": self.code_hash,
            "model_hash": self.model_hash,
            "metrics": self.metrics,
            "invariants": self.invariants,
        }
        validate(document)
        prompts_path = self._path.with_suffix(".prompts.jsonl")
        if self.prompts:
            write_whole(prompts_path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.prompts))
        else:
            prompts_path.unlink(missing_ok=True)  # rows of an earlier run would not belong to these metrics
        return write_whole(self._path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def load(profile: str, name: str, folder: Path | None = None) -> dict:
    """One notebook's results; CourseError says how to make them where they are missing or damaged."""
    path = _path(profile, name, folder)
    remedy = f"run `python -m helpers run --profile {profile} --only {name.split('_')[0]}`"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"There are no results of {name} under the profile {profile} yet: {remedy}.") from None
    except ValueError:
        raise CourseError(f"{path} is damaged: delete it and {remedy}.") from None
    validate(document)
    return document


def load_prompts(profile: str, name: str, folder: Path | None = None) -> list[dict]:
    """The rows of one notebook's prompts; an empty list where it has none."""
    path = _path(profile, name, folder).with_suffix(".prompts.jsonl")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except ValueError:
        raise CourseError(f"{path} is damaged: delete it and run the notebook again.") from None


def load_all(profile: str, folder: Path | None = None) -> dict[str, dict]:
    """All results of a profile by notebook name, in order."""
    files = sorted(_path(profile, "x", folder).parent.glob("[0-9]*.json"))
    names = [path.stem for path in files if "." not in path.stem]  # not 00_name.predictions.json
    return {name: load(profile, name, folder) for name in names}


def predicts(key: str) -> str:
    """The key of the metric that a prediction is about, as `Results.prediction` names it."""
    return key.removesuffix(".predicted").replace("predicted_", "")


def stale(document: Mapping, root: Path = files.ROOT) -> list[str]:
    """What has changed since the results were made: "code", "model", both or nothing."""
    now = {
        "code": provenance.code_hash(document["notebook"], root),
        "model": files.model_hash(document["models"], root),
    }
    return [what for what, value in now.items() if document[f"{what}_hash"] != value]


def _path(profile: str, name: str, folder: Path | None) -> Path:
    return Path(folder or build_root() / "results") / profile / f"{name}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _relative(model: str | Path) -> str:
    """The model as it is named on every machine: without the path of this one."""
    path = Path(model)
    return path.relative_to(files.ROOT).as_posix() if path.is_relative_to(files.ROOT) else str(model)


def _machine() -> dict:
    from helpers.measuring.machine import describe_machine

    return asdict(describe_machine())


def _versions() -> dict[str, str]:
    versions = {package: _version(package) for package in VERSIONS_OF}
    installed = {package: version for package, version in versions.items() if version}
    return {"python": platform.python_version()} | installed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _plain(value):
    """A number as Python has it: numpy's and torch's scalars don't go into JSON."""
    return value.item() if hasattr(value, "item") else value
