"""How a container would be started: its environment and serving.properties, as options of the course's server.

LMI takes OPTION_X in the environment, or option.x in serving.properties beside the model; the file wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from helpers.errors import CourseError

INSIDE = "/opt/ml/model"  # where a container finds the model's archive
KNOWN = {"model_id", "speculative_config", "max_model_len", "max_num_seqs"}  # what changes anything here


def options_of(environment: Mapping[str, str], model: Path | None) -> dict[str, str]:
    """LMI's options by their names: of the environment, and over these of the file."""
    found = {"model_id": environment["HF_MODEL_ID"]} if "HF_MODEL_ID" in environment else {}
    found |= {name[7:].lower(): value for name, value in environment.items() if name.startswith("OPTION_")}
    file = model / "serving.properties" if model else None
    if file and file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            key, _, value = line.strip().partition("=")
            if key.startswith("option."):
                found[key[7:]] = value
    return found


def serve_options(options: Mapping[str, str], model: Path | None) -> list[str]:
    """The course's server's command line for these options.

    Raises:
        CourseError: no model is named, or speculation is by something that this server doesn't have.
    """
    name = options.get("model_id") or (INSIDE if model else "")
    if not name:
        raise CourseError("The container names no model: set HF_MODEL_ID, or give it a ModelDataUrl.")
    words = ["--model", _here(name, model)]
    if "speculative_config" in options:
        try:
            speculation = json.loads(options["speculative_config"])
            method, heads = speculation["method"], speculation["model"]
        except (ValueError, KeyError, TypeError):
            raise CourseError('speculative_config is JSON: {"method": "medusa", "model": ...}.') from None
        if method != "medusa":
            raise CourseError(f"This server has no speculation by {method!r}: take medusa.")
        words += ["--medusa", _here(heads, model)]
    for option, flag in (("max_model_len", "--longest"), ("max_num_seqs", "--seats")):
        if option in options:
            words += [flag, options[option]]
    return words


def unused(options: Mapping[str, str]) -> list[str]:
    """Options that are recorded and change nothing here."""
    return sorted(set(options) - KNOWN)


def _here(name: str, model: Path | None) -> str:
    """A path inside the container as a path here."""
    if model and (name == INSIDE or name.startswith(f"{INSIDE}/")):
        return str(model / name.removeprefix(INSIDE).strip("/"))
    return name
