"""Start code in two processes, as torchrun does."""

import os
import subprocess
import sys

from helpers.files import ROOT


def two_processes(command, timeout=240, **environment):
    """Run `python -m torch.distributed.run ... COMMAND` with two processes; fails with what it wrote to stderr."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = subprocess.run(
        [*launcher, *map(str, command)], env=variables, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]


def options(arguments):
    """A command line's options from a dict."""
    return [f"--{name}={value}" for name, value in arguments.items()]
