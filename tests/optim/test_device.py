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


@pytest.mark.parametrize("kind", [RMDA, RAMDA, ProxSGD, ProxAdamW])
def test_every_group_counts_where_its_parameters_are(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is on meta is neither finite nor not.
    monkeypatch.setattr("openwork.optim.base.finite", lambda grads: torch.ones((), dtype=torch.bool))
    params = [nn.Parameter(torch.ones(6, 4, device=device)) for device in ("cpu", "meta")]
    optimizer = kind([{"params": [param]} for param in params], penalty=GroupLasso(0.1), capturable=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    for group, param in zip(optimizer.param_groups, params, strict=True):
        assert {group[key].device for key in optimizer.counters} == {param.device}
    assert optimizer.param_groups[0]["step"] == 1
