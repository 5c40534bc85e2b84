"""Every penalty trains with every optimizer it fits, and its structure comes out exact."""

import pytest
import torch
from torch import nn

from openwork.optim import RAMDA, RMDA, ProxAdamW, ProxSGD
from openwork.penalties import (
    L0,
    L1,
    DiagonalProx,
    GroupL0,
    GroupLasso,
    GroupMCP,
    GroupSCAD,
    LHalf,
    Nonnegative,
    NuclearNorm,
    ProximalGradient,
    SparseGroupLasso,
    Target,
)
from openwork.structure import Support

PENALTIES = [
    L1(0.02),
    L0(1e-3),
    LHalf(0.01),
    GroupLasso(0.02),
    GroupL0(1e-3),
    SparseGroupLasso(0.02),
    GroupMCP(0.02),
    GroupSCAD(0.02),
    NuclearNorm(0.05),
    NuclearNorm(0.05, "full", tolerance=1e-4),
    Nonnegative(GroupLasso(0.01)),
    ProximalGradient(GroupLasso(0.02)),
    ProximalGradient(NuclearNorm(0.05), tolerance=1e-3),
    Target(GroupLasso(1.0), 0.5),
]


@pytest.mark.parametrize("optimizer", [ProxSGD, ProxAdamW, RMDA, RAMDA])
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_loss_falls_and_the_structure_is_that_of_the_weights(
    penalty: DiagonalProx, optimizer: type[ProxSGD | ProxAdamW | RMDA | RAMDA]
) -> None:
    x, model = torch.randn(64, 12), nn.Linear(12, 6, bias=False)
    y = x @ torch.cat([torch.randn(4, 6), torch.zeros(8, 6)])
    lr = 0.05 if optimizer in (ProxSGD, RMDA) else 0.02
    trained = optimizer(model.parameters(), lr=lr, penalty=penalty)
    losses: list[float] = []
    for _ in range(40):
        loss = nn.functional.mse_loss(model(x), y)
        trained.zero_grad()
        loss.backward()
        losses.append(loss.item())
        trained.step()
    assert losses[-1] < losses[0]
    structure = trained.structures()[model.weight]
    with trained.structured():
        if isinstance(structure, Support):
            assert torch.equal(structure.groups.any(model.weight), structure.kept)
        else:
            assert structure.rank == int(torch.linalg.matrix_rank(model.weight, atol=1e-5))
    if isinstance(penalty, Target):
        assert int((~structure.kept).sum()) == 6
