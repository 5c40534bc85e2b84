"""Starts real processes for tests: with torch's own launcher, or, without the time of their imports, forked."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0  # for a launch; far above what it needs on a busy machine
# Pytest since multiprocessing imports the main module again.
PRELOAD = ["pytest", "torch.distributed.fsdp", "tests.sketches.failing", "tests.sketches.preload"]


def environment(*, devices: bool = False) -> dict[str, str]:
    """One thread, no GPU unless asked, and this package.

    Warnings of torch's own modules, as its launcher's, are not ours to fix.
    """
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **own} if devices else {**os.environ, **own, "CUDA_VISIBLE_DEVICES": ""}


def completed(
    command: list[str], cwd: Path | None = None, *, devices: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command, and leave no process behind if it takes too long: those asked to end end their own."""
    env = environment(devices=devices)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except BaseException:
        process.terminate()
        try:
            process.communicate(timeout=40)  # torchrun gives its workers 30 s
        finally:
            process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def torchrun(
    workers: int, script: str | Path, *arguments: str, devices: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script, of this folder if its path is not absolute, in several processes of one thread each."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    return completed([*launcher, str(Path(__file__).parent / script), *arguments], devices=devices)


@dataclass
class Ended:
    """How processes ended, by rank."""

    codes: list[int]  # a signal's number has a minus
    said: list[str]  # on standard error


def forked(workers: int, folder: Path, act: Callable[..., None], *arguments: object) -> Ended:
    """Call a function in several processes that find what torchrun would tell them in their environment.

    They are forked from one that has imported torch and has done nothing else. As torchrun does, this process keeps the
    store where they meet, on a port that the system has chosen; unlike it, it ends nobody when one is lost.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    before = dict(os.environ)
    os.environ |= environment()  # the server starts now, and has it from here
    try:
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        files = [folder / f"said{rank}.txt" for rank in range(workers)]
        processes = [
            context.Process(target=_worker, args=(rank, workers, store.port, file, act, arguments), daemon=True)
            for rank, file in enumerate(files)
        ]
        end = time.monotonic() + LIMIT_S
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(end - time.monotonic(), 0))
        finally:
            for process in processes:
                if process.pid is not None and process.exitcode is None:
                    process.kill()
                    process.join()
    finally:
        os.environ.clear()
        os.environ |= before
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.close()
    return Ended([-signal.SIGKILL if code is None else code for code in codes], [file.read_text() for file in files])


def _worker(
    rank: int, workers: int, port: int, said: Path, act: Callable[..., None], arguments: tuple[object, ...]
) -> None:
    with said.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
    }
    torch.set_num_threads(1)
    act(*arguments)
