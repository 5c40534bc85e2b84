"""Starts real processes for tests, with torch's own launcher."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def torchrun(
    workers: int, script: str, *arguments: str, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder in several processes of one thread each."""
    # Warnings of torch's own modules, such as those that import numpy, are not ours to fix.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    command = [*prefix, *launcher, str(Path(__file__).with_name(script)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
