"""Random numbers that are a function of what they are for."""

import hashlib

import torch


def generator(*key: int | str) -> torch.Generator:
    """Generator on the CPU whose numbers are a pure function of ``key``.

    Args:
        key: What the numbers are for, such as ``("order", seed, epoch)``.
    """
    # A hash, because torch's CPU generator takes only the low 32 bits of its seed: arithmetic on the parts of the key,
    # such as seed * 2**32 + epoch, would lose some of them or make two keys alike.
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
