"""A step on a device never waits for it, shown without one: a tensor on `meta` has no numbers to wait for."""

import pytest
import torch
from torch import nn

from openwork.optim import RAMDA, RMDA, OriginalProxSGD, ProxAdamW, ProxSGD, Stages
from openwork.penalties import L0, L1, GroupL0, GroupLasso, LHalf, Nonnegative, Penalty, SparseGroupLasso, Target, Zero

PENALTIES = [
    Zero(),
    L0(0.1),
    L1(0.1),
    LHalf(0.1),
    GroupL0(0.1),
    GroupLasso(0.1),
    SparseGroupLasso(0.1),
    Nonnegative(GroupLasso(0.1)),
    Target(GroupLasso(0.1), 0.5),
]


@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
@pytest.mark.parametrize("kind", [RMDA, RAMDA, ProxSGD, OriginalProxSGD, ProxAdamW, ProxAdamW.ssi])
def test_a_step_reads_no_number(kind, penalty: Penalty) -> None:
    shapes = ((6, 4), (6, 4), (5, 4, 3, 3))
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes]
    params.append(nn.Parameter(torch.empty(6, 4, device="meta", dtype=torch.bfloat16)))
    optimizer = kind(params, penalty=penalty)
    Stages(optimizer, [2])
    for _ in range(4):
        for param in params:
            param.grad = torch.empty_like(param)
        optimizer.step()
    with pytest.raises(RuntimeError, match="meta"):
        _ = optimizer.skipped
