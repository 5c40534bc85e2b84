"""What is measured while a network trains."""

import sys
import time

import pytest
import torch

from openwork.comparison.trial import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the GNU C library gives memory back on demand")
def test_memory_that_was_used_before_is_counted_again() -> None:
    kept: list[torch.Tensor] = []

    def used() -> float:
        with peak_memory() as peak:
            # So small, and with something left above them, that the C library keeps what is free for itself.
            blocks = [torch.zeros(2500) for _ in range(8000)]
            kept.append(torch.zeros(2500))
            time.sleep(0.2)
            del blocks
        return peak.mib

    assert used() > 60
    assert used() > 60
