"""Initial weights that depend on a seed and on nothing else."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Build modules inside with random numbers of their own, on the CPU.

    The global random state is as before afterwards, and the same seed gives the same bits whatever the default device.

    Args:
        seed: Any integer of 64 bits.
    """
    before = torch.get_rng_state()
    # Not torch.manual_seed, which would also seed the accelerators, whose state is not restored here.
    torch.default_generator.manual_seed(seed)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_rng_state(before)
