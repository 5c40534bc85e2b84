"""A few threads for compiled loops, as many as torch uses."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Lock

import torch

_lock = Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def run(work: Callable[[int], object], chunks: int) -> None:
    """Do chunks of work on ``torch.get_num_threads()`` threads, of which the calling one is one.

    numba's pools are not used: one of them ends the process when two threads come at a time, and none survives a
    fork.

    Args:
        work: Does the chunk of a number; it should run without the interpreter's lock.
        chunks: How many there are.
    """
    helpers = min(torch.get_num_threads(), chunks) - 1
    if helpers < 1:
        for chunk in range(chunks):
            work(chunk)
        return
    numbers = count()

    def take() -> None:
        while (chunk := next(numbers)) < chunks:
            work(chunk)

    futures = [_pool(helpers).submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        for future in futures:
            # One that has not begun has nothing left to do.
            if not future.cancel():
                future.result()


def _pool(helpers: int) -> ThreadPoolExecutor:
    # Threads do not survive a fork, so a child has pools of its own.
    key = os.getpid(), helpers
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(helpers, thread_name_prefix="openwork")
        return _pools[key]
