"""vLLM's own server for as long as a block lasts (notebook 11b).

It is started by its module: the command `vllm serve` asks for the package `vllm`, and the build for CPUs goes by
another name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from helpers.errors import CourseError
from helpers.kernels import torch_compile
from helpers.profiling import vllm_baseline
from helpers.serving.own_process import free_port, server_process
from helpers.serving.run import LOOPBACK

MODULE = "vllm.entrypoints.openai.api_server"
SHARE = 0.4  # of a GPU's memory, so that two servers have room


def vllm_serve(
    model: Path, *, dtype: str, longest: int, seats: int = 16, speculative: Mapping | None = None
) -> AbstractContextManager[str]:
    """vLLM's server for the model in a folder, which goes by the name "served"; gives its address. It is compiled where
    that works, and keeps no prefixes from one request to the next.

    Args:
        longest: tokens of prompt and answer together; seats: sequences at a time.
        speculative: vLLM's speculative_config, {"method": "ngram", ...}, say.

    Raises:
        CourseError: vLLM isn't installed, stops, or doesn't serve in time.
    """
    if not vllm_baseline.installed():
        raise CourseError("vLLM is not installed here: README.md says where it can be had. The rest runs without it.")
    port = free_port()
    options: dict[str, object] = {
        "model": model,
        "served-model-name": "served",
        "host": LOOPBACK,
        "port": port,
        "dtype": dtype,
        "max-model-len": longest,
        "max-num-seqs": seats,
        "gpu-memory-utilization": SHARE,
        "no-enable-prefix-caching": True,
    }
    if torch_compile.why_not():
        options["enforce-eager"] = True
    if speculative:
        options["speculative-config"] = json.dumps(dict(speculative))
    environment = vllm_baseline.ENVIRONMENT | vllm_baseline.cache_root()
    del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]  # a server wants its engine in another process
    return server_process("vLLM's server", MODULE, options, environment, port)
