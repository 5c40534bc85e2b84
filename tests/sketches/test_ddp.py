"""Beside DistributedDataParallel and FSDP2: one shared draw, one batch split among workers."""

import pytest
import torch
from torch import nn

from openwork.sketches import RandK, ring_bytes
from tests.sketches.conftest import Ranks
from tests.sketches.processes import STEPS, batch, sgd, sketched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone() -> torch.Tensor:
    """Losses of one process that has the whole batch."""
    model = sketched(("model", "init", lambda n: RandK(0.25), sgd), 1)
    optimizer = sgd(list(model.parameters()))
    losses: list[float] = []
    for step in range(STEPS):
        x, y = batch(step, 0, size=8)
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(x), y)
        value.backward()
        optimizer.step()
        model.advance()
        losses.append(value.item())
    return torch.tensor(losses, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["ddp", "ddp, kept", "fsdp"])
def test_losses_are_those_of_one_process(ranks: Ranks, alone: torch.Tensor, kind: str) -> None:
    for results in ranks:
        torch.testing.assert_close(results[kind]["losses"], alone, rtol=0, atol=1e-10)


def test_the_hook_sends_kept_entries_only(ranks: Ranks) -> None:
    for results in ranks:
        assert results["ddp, kept"]["bytes"] == STEPS * ring_bytes(25, len(ranks), 8)
        torch.testing.assert_close(results["ddp, kept"]["weights"], results["ddp"]["weights"], rtol=0, atol=1e-12)
