"""Starts real processes for tests, with torch's own launcher."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """One thread, and this package; warnings of torch's own modules, such as its launcher's, are not ours to fix."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def torchrun(workers: int, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder in several processes of one thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    command = [*launcher, str(Path(__file__).with_name(script)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment())
