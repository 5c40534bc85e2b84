"""An optimizer goes on with what is left of a model, and what it does is what it would have done."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork import models
from openwork.factorizations import UnitGate
from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW, ProxSGD, Stages, regularize
from openwork.penalties import L1, GroupLasso, GroupMCP, SparseGroupLasso
from openwork.shrinking import shrink

F64 = torch.float64
# Weak, so that what is zero at first is all that is zero.
STRENGTH = 1e-4
X = torch.randn(40, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))

Make = Callable[[nn.Module], torch.optim.Optimizer]


def network(kind: str) -> nn.Module:
    """Three layers of which half the units are zero on both sides."""
    torch.manual_seed(0)
    if kind == "mlp":
        # Tanh, since RAMDA lets go of a unit whose ReLU is off for all samples.
        model: nn.Module = nn.Sequential(
            nn.Identity(), nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 3)
        ).double()
        ends = [("1.weight", "1.bias", "3.weight", 10), ("3.weight", "3.bias", "5.weight", 8)]
    else:
        model = nn.Sequential(
            nn.Unflatten(1, (1, 6)),
            nn.Conv1d(1, 6, 3, bias=False),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24, 3),
        ).double()
        ends = [("1.weight", "2.bias", "", 6)]
    with torch.no_grad():
        for rows, bias, columns, width in ends:
            gone = torch.arange(width) % 2 == 0
            model.get_parameter(rows)[gone] = 0
            model.get_parameter(bias)[gone] = 0
            if columns:
                model.get_parameter(columns)[:, gone] = 0
        if kind == "conv":
            gone = torch.arange(6) % 2 == 0
            model.get_parameter("2.weight")[gone] = 0
            model.get_parameter("5.weight")[:, gone.repeat_interleave(4)] = 0
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()


def uncoupled(make: Callable[..., Any], penalty: Any) -> Make:
    return lambda model: make(regularize(model, penalty))


def coupled(make: Callable[..., Any], side: Any) -> Make:
    return lambda model: make(regularize(model, GroupLasso(STRENGTH), X[:2], side))


def rmda(groups: Any) -> RMDA:
    return RMDA(groups, lr=0.1, averaging=1.0)


def ramda(groups: Any) -> RAMDA:
    return RAMDA(groups, lr=0.01, averaging=1.0)


MAKERS: dict[str, Make] = {
    "SGD with momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0),
    "RMDA, group lasso": uncoupled(rmda, GroupLasso(STRENGTH)),
    "RAMDA, group lasso": uncoupled(ramda, GroupLasso(STRENGTH)),
    "RAMDA, group weight one": uncoupled(ramda, GroupLasso(STRENGTH, weight="one")),
    "RMDA, sparse group lasso": uncoupled(rmda, SparseGroupLasso(STRENGTH)),
    "ProxSGD, group MCP": uncoupled(lambda groups: ProxSGD(groups, lr=0.1), GroupMCP(STRENGTH)),
    "ProxAdamW, L1": uncoupled(lambda groups: ProxAdamW(groups, lr=0.01), L1(STRENGTH)),
    "RMDA, consumers": coupled(rmda, "consumers"),
    "RAMDA, consumers": coupled(ramda, "consumers"),
    "RMDA, producers": coupled(rmda, "producers"),
    "RAMDA, producers": coupled(ramda, "producers"),
}


@pytest.mark.parametrize("kind", ["mlp", "conv"])
@pytest.mark.parametrize("maker", MAKERS)
def test_training_goes_on_as_if_nothing_had_been_removed(maker: str, kind: str) -> None:
    """Both sides of what goes are zero and averaging is 1, so that the zeros would have stayed."""
    model = network(kind).train()
    optimizer = MAKERS[maker](model)
    for _ in range(3):
        step(model, optimizer)
    twin = deepcopy(model)
    twin_optimizer = MAKERS[maker](twin)
    twin_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))

    shrunk = shrink(model, X[:2], optimizer=optimizer, low_rank=False)
    small = shrunk.model

    assert not shrunk.report.notes
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in twin.parameters())
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(small.parameters())
    for _ in range(5):
        step(small, optimizer)
        step(twin, twin_optimizer)
    difference = (small.eval()(X) - twin.eval()(X)).abs().max() / twin(X).abs().max()
    assert difference <= 1e-10


def test_stages_go_on() -> None:
    model = network("mlp")
    optimizer = rmda(regularize(model, GroupLasso(1e-3)))
    stages = Stages(optimizer, [4])
    for _ in range(3):
        step(model, optimizer)
    small = shrink(model, X[:2], optimizer=optimizer, low_rank=False).model
    for _ in range(3):
        step(small, optimizer)
    assert stages.position == 6
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    assert optimizer.read_out().total > 0
    state = deepcopy(optimizer.state_dict())
    optimizer.load_state_dict(state)


def test_layers_of_low_rank_start_fresh_and_free() -> None:
    torch.manual_seed(0)
    model = models.mlp((6, 30, 20, 3)).double()
    with torch.no_grad():
        weight = model.get_parameter("3.weight")
        weight.copy_(torch.randn(20, 2, dtype=F64) @ torch.randn(2, 30, dtype=F64))
    optimizer = ramda(regularize(model, GroupLasso(1e-6)))
    shrunk = shrink(model, X[:2], optimizer=optimizer)
    assert shrunk.report.ranks == {"3": (2, 20)}
    assert any("whose optimizer state starts anew" in note for note in shrunk.report.notes)
    for _ in range(2):
        step(shrunk.model, optimizer)
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(shrunk.model.parameters())


@pytest.mark.parametrize("maker", ["rmda", "sgd", "factorized_sgd"])
@pytest.mark.parametrize("named", [False, True])
def test_two_layers_in_the_place_of_one_are_what_they_were_proven_to_be(maker: str, named: bool) -> None:
    torch.manual_seed(0)
    model = models.mlp((6, 30, 20, 3)).double()
    with torch.no_grad():
        weight = model.get_parameter("3.weight")
        weight.copy_(torch.randn(20, 2, dtype=F64) @ torch.randn(2, 30, dtype=F64))
    params: Any = model.named_parameters() if named else model.parameters()
    makers = {
        "rmda": RMDA,
        "sgd": torch.optim.SGD,
        "factorized_sgd": lambda p, lr: FactorizedSGD(p, lr, init=UnitGate()),
    }
    optimizer = makers[maker](params, lr=0.1)
    shrunk = shrink(model, X[:2], optimizer=optimizer)
    torch.testing.assert_close(shrunk.model(X), model(X))
    assert {p for group in optimizer.param_groups for p in group["params"]} == set(shrunk.model.parameters())
    for _ in range(2):
        step(shrunk.model, optimizer)


def test_where_one_side_is_zero_the_group_is_frozen_and_that_is_said() -> None:
    """It could have come back, so nothing is promised."""
    torch.manual_seed(0)
    model = models.mlp((6, 10, 3)).double()
    model.get_parameter("3.weight").data[:, :4] = 0
    optimizer = rmda(regularize(model, GroupLasso(1e-3)))
    notes = shrink(model, X[:2], optimizer=optimizer, low_rank=False).report.notes
    assert any("4 units were zero on one side only, and could have come back" in note for note in notes)


def test_constants_stay_where_an_optimizer_goes_on() -> None:
    torch.manual_seed(0)
    model = models.mlp((6, 10, 3)).double()
    model.get_parameter("1.weight").data[:4] = 0
    model.get_parameter("1.bias").data.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = shrink(model, X[:2], optimizer=optimizer, low_rank=False).report
    assert report.folded == 0
    assert report.params[0] == report.params[1]


def test_an_optimizer_of_another_model_is_refused() -> None:
    model, other = network("mlp"), network("mlp")
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"parameter 0 of a group of the SGD, of shape \(10, 6\), is not of this model"
    ):
        shrink(model, X[:2], optimizer=optimizer)


def test_a_failed_shrink_leaves_the_optimizer_alone() -> None:
    class Different(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x)) * float(self.first.out_features)

    torch.manual_seed(0)
    model = Different().double()
    model.last.weight.data[:, :3] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, optimizer)
    model.last.weight.data[:, :3] = 0
    before = [id(p) for group in optimizer.param_groups for p in group["params"]]
    with pytest.raises(ValueError, match="differs by"):
        shrink(model, X[:2], optimizer=optimizer)
    assert before == [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert set(optimizer.state) == set(model.parameters())
