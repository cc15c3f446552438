"""What a result was made from: the hash of a notebook's code.

A notebook's code is its source and the modules of `helpers` that it reaches through imports, directly or not: a result
goes stale when one of those changes, and a change to a module that it never sees costs nobody an hour of running again.
"""

import re
from pathlib import Path

from helpers.files import ROOT
from helpers.source_code import hash_of_files, imported_names, reached_files

# What makes and shows the course can't change what is measured; of what cells call, only these can.
SHOWN = ("course", "notebook", "__main__")
SEEN = (
    "lesson profiles ask answers start_models cache_cost guess_bench guess_sizes opponents "
    "medusa_bench medusa_choice medusa_duel medusa_prose medusa_sceptic medusa_vllm "
    "tuning lora_parts training_costs nf4_base tuned_answers many_adapters "
    "formats_shown activation_sizes gradient_sizes precision_speed precision_costs precision_library "
    "quantization_answers quantization_awq quantization_files quantization_gptq quantization_grids "
    "quantization_library quantization_methods quantization_models quantization_outliers quantization_qat "
    "quantization_quality quantization_sizes quantization_smoothquant quantization_speed "
    "batching_sizes batching_bench batching_engines batching_speculation "
    "parallel_sizes parallel_bench parallel_collectives "
    "serving_sizes serving_bench serving_others serving_backends backend_sizes "
    "cloud_sizes cloud_bench cloud_jobs cloud_requests cloud_library cloud_toolkit "
    "pruning_sizes pruning_layers pruning_quality pruning_rescaling pruning_structured pruning_speed pruning_library"
)
MEASURED = tuple(f"notebook.{name}" for name in SEEN.split())


def notebook_file(name: str, root: Path = ROOT) -> Path | None:
    """What people edit (notebooks/source/**/NAME.py), or the notebook itself where there is no source, or None."""
    for pattern in (f"source/**/{name}.py", f"{name}.ipynb", f"extras/{name}.ipynb"):
        for path in sorted((root / "notebooks").glob(pattern)):
            return path
    return None


def code_files(name: str, root: Path = ROOT) -> list[Path]:
    """The notebook's source, every module of `helpers` that it reaches (all, where code can't be parsed), and the C++
    that lies beside one of them."""
    start = notebook_file(name, root)
    reached = reached_files([start] if start else [], root, _named, lambda path: _measured(path, root))
    folders = sorted({path.parent for path in reached})
    return [*reached, *(path for folder in folders for kind in ("*.h", "*.cpp") for path in sorted(folder.glob(kind)))]


def code_hash(name: str, root: Path = ROOT) -> str:
    """A short hash of the notebook's code; the same on every machine and in every folder."""
    return hash_of_files(code_files(name, root), root)


def _named(code: str, package: str) -> set[str]:
    """What code imports, and what it spells out: "helpers.training.fine_tune_llm" may name a script to launch. A
    command in a text ("python -m helpers...") launches nothing."""
    return imported_names(code, package) | set(re.findall(r"(?<!-m )\bhelpers(?:\.\w+)*", code))


def _measured(path: Path, root: Path) -> bool:
    """Whether a file of `helpers` can change what a notebook measures."""
    dotted = ".".join(path.relative_to(root / "helpers").with_suffix("").parts)
    return dotted in MEASURED or dotted.split(".")[0] not in SHOWN
