"""Couplings as groups: exactly what is zero can be removed, and everything an optimizer offers goes on working."""

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.metrics import sparsity
from openwork.optim import (
    RAMDA,
    RMDA,
    OriginalProxSGD,
    ParamGroups,
    ProxAdamW,
    ProximalOptimizer,
    ProxSGD,
    Stages,
    regularize,
    strength_max,
)
from openwork.penalties import L1, Coupled, GroupLasso, GroupMCP, NuclearNorm, Penalty, SparseGroupLasso, Target
from openwork.structure import Support
from openwork.wiring import Coupling, Side, inspect

SIDES: tuple[Side, ...] = ("consumers", "producers")
OPTIMIZERS = [RMDA, RAMDA, ProxSGD, OriginalProxSGD, ProxAdamW]
IMAGES = torch.zeros(1, 2, 6, 6, dtype=torch.float64)


class Network(nn.Module):
    """A residual block with normalizations, a concatenation, a flattening, and a shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.outer = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 3, padding=1)
        self.side, self.join = nn.Conv2d(6, 4, 1), nn.Conv2d(10, 3, 3)
        self.hidden, self.head = nn.Linear(48, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.outer(torch.relu(self.inner(x)))
        x = torch.cat([self.side(x), x], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(torch.tanh(self.hidden(self.join(torch.relu(x)).flatten(1))))


@pytest.fixture
def model() -> nn.Module:
    return Network().double()


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def batch(time: int, shape: Sequence[int] = (2, 6, 6), classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(time)
    x = torch.randn(16, *shape, generator=generator, dtype=torch.float64)
    return x, x.flatten(1)[:, :classes].argmax(1)


def train(model: nn.Module, optimizer: ProximalOptimizer, times: Sequence[int] = range(5)) -> None:
    for time in times:
        optimizer.zero_grad()
        x, y = batch(time)
        cross_entropy(model(x), y).backward()
        optimizer.step()


def units(model: nn.Module, coupling: Coupling, side: Side) -> Tensor:
    """Which units have a nonzero entry on one side."""
    tensors = {name: (p.detach() != 0).double() for name, p in model.named_parameters()}
    return coupling.sum(tensors, side) > 0


@cache
def traced(penalty: Penalty, side: Side) -> tuple[nn.Module, ParamGroups]:
    model = Network().double()
    return model, regularize(model, penalty, IMAGES, side)


def prepared(penalty: Penalty, side: Side = "consumers") -> tuple[nn.Module, ParamGroups]:
    """A fresh network, always the same one, with its param groups; tracing is what takes time here."""
    return copy.deepcopy(traced(penalty, side))


def trained(kind: Callable[[ParamGroups], ProximalOptimizer], side: Side, **options: Any) -> nn.Module:
    model, groups = prepared(GroupLasso(0.1), side)
    for group in groups:
        group.update(options)
    train(model, kind(groups))
    return model


def expect_close(model: nn.Module, other: nn.Module) -> None:
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


# -- which groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_all_couplings_are_one_param_group_and_the_rest_is_free(model: nn.Module, side: Side) -> None:
    coupled, free = regularize(model, GroupLasso(0.1), IMAGES, side)
    wanted = {part.name for coupling in inspect(model, IMAGES).removable for part in coupling.side(side)}
    assert isinstance(coupled["penalty"], Coupled)
    assert set(coupled["names"]) == wanted
    assert {*coupled["names"], *free["names"]} == {name for name, _ in model.named_parameters()}
    assert len(coupled["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_producers_take_biases_and_normalizations_along(model: nn.Module) -> None:
    coupled, _ = regularize(model, GroupLasso(0.1), IMAGES, "producers")
    assert {"norm.weight", "norm.bias", "inner.bias", "outer.bias", "hidden.bias"} <= set(coupled["names"])
    coupled, _ = regularize(model, GroupLasso(0.1), IMAGES)
    assert not any("bias" in name or "norm" in name for name in coupled["names"])


def test_describe_lists_couplings_and_parameters() -> None:
    groups = regularize(mlp(), GroupLasso(0.1), torch.zeros(1, 5).double(), "producers", exclude="2")
    table = groups.describe().splitlines()
    assert table[0].split() == ["coupling", "groups", "number", "x", "size", "parameters", "why"]
    assert "0.weight  units   6 x 6          0.weight, 0.bias" in [line.split("    its")[0] for line in table]
    assert "2.weight  none                   2.weight, 2.bias  2.weight is in exclude" in table
    assert "4.weight  none                   4.weight, 4.bias  it is an output of the model" in table
    assert table[table.index("") + 1 :] == [
        "parameter  shape  groups   number x size  why",
        "0.weight   6 x 5  coupled                 producers of 0.weight",
        "0.bias     6      coupled                 producers of 0.weight",
        "2.weight   4 x 6  free                    not among the coupled producers",
        "2.bias     4      free                    not among the coupled producers",
        "4.weight   3 x 4  free                    not among the coupled producers",
        "4.bias     3      free                    not among the coupled producers",
    ]


def names_of(groups: ParamGroups) -> list[str]:
    return groups[0]["names"]


def test_include_needs_all_parameters_of_a_side_and_exclude_any() -> None:
    x = torch.zeros(1, 5).double()
    assert names_of(regularize(mlp(), GroupLasso(0.1), x, include=["2"])) == ["2.weight"]
    assert names_of(regularize(mlp(), GroupLasso(0.1), x, "producers", include=["0", "2.weight"])) == [
        "0.weight",
        "0.bias",
    ]
    assert names_of(regularize(mlp(), GroupLasso(0.1), x, "producers", exclude="0.bias")) == ["2.weight", "2.bias"]


def test_a_coupling_with_a_frozen_parameter_stays_free() -> None:
    model = mlp()
    model.get_parameter("0.bias").requires_grad_(False)
    groups = regularize(model, GroupLasso(0.1), torch.zeros(1, 5).double(), "producers")
    assert names_of(groups) == ["2.weight", "2.bias"]
    assert "0.bias is frozen" in groups.describe()
    assert all(p.requires_grad for group in groups for p in group["params"])


class Tied(nn.Module):
    """One weight read in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x) @ self.weight.mT)
        return self.last(torch.tanh(x @ self.weight))


def test_a_weight_is_divided_along_one_axis_only() -> None:
    groups = regularize(Tied(), GroupLasso(0.1), torch.zeros(1, 2))
    taken = [choice for choice in groups.couplings if choice.taken]
    assert sum(part.name == "weight" for choice in taken for part in choice.coupling.consumers) == 1
    assert "weight is already divided along its axis" in groups.describe()
    optimizer = RAMDA(groups)
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()


def test_a_shared_layer_is_taken_once() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 2))
    (coupled, _) = regularize(model, GroupLasso(0.1), torch.zeros(1, 3))
    assert coupled["names"].count("2.weight") <= 1
    RMDA(regularize(model, GroupLasso(0.1), torch.zeros(1, 3), "producers"))


def test_refusals() -> None:
    x = torch.zeros(1, 5).double()
    with pytest.raises(
        TypeError, match=r"Coupled: penalty must drop groups that can be chosen.* got L1\(lam=0.1\); take"
    ):
        regularize(mlp(), L1(0.1), x)
    with pytest.raises(
        TypeError, match=r"regularize: units of couplings need a penalty that drops groups.*NuclearNorm"
    ):
        regularize(mlp(), NuclearNorm(0.1), x)
    with pytest.raises(ValueError, match="regularize: side must be 'producers' or 'consumers', got 'both'"):
        regularize(mlp(), GroupLasso(0.1), x, "both")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"side='producers' groups the units of couplings.*pass example_inputs"):
        regularize(mlp(), GroupLasso(0.1), side="producers")
    with pytest.raises(
        ValueError, match=r"Linear has no coupling left to penalize: weight \(it is an output.*\); leave"
    ):
        regularize(nn.Linear(3, 2), GroupLasso(0.1), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"no coupling left to penalize: 0.weight \(2.weight is not in include\)"):
        regularize(mlp(), GroupLasso(0.1), x, include="0.bias")
    with pytest.raises(ValueError, match="trace: Sequential does not run on example_inputs"):
        regularize(mlp(), GroupLasso(0.1), torch.zeros(1, 4).double())
    coupled, _ = regularize(mlp(), GroupLasso(0.1), x)
    with pytest.raises(ValueError, match=r"RMDA: .*Coupled: no weight of shape \(7, 7\) is among"):
        RMDA([torch.nn.Parameter(torch.ones(7, 7))], penalty=coupled["penalty"])
    optimizer = RMDA(coupled["params"][:1], penalty=coupled["penalty"])
    coupled["params"][0].sum().backward()
    with pytest.raises(ValueError, match=r"Coupled: the weights must have the shapes .* together and in order"):
        optimizer.step()


# -- zero means removable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RMDA, partial(RAMDA, lr=0.05), ProxAdamW])
@pytest.mark.parametrize("side", SIDES)
def test_what_is_zero_can_be_removed(kind, side: Side) -> None:
    model, groups = prepared(Target(GroupLasso(1.0), 0.4), side)
    optimizer = kind(groups)
    train(model, optimizer, range(30))
    with optimizer.structured():
        model.eval()
        x, _ = batch(100)
        before = model(x).detach()
        other: Side = "consumers" if side == "producers" else "producers"
        parameters = dict(model.named_parameters())
        couplings = inspect(model, IMAGES).removable
        zero = [~units(model, coupling, side) for coupling in couplings]
        for coupling, gone in zip(couplings, zero, strict=True):
            # What the other side of a removable unit holds does not matter.
            for name, noise in coupling.spread(gone.double(), other).items():
                with torch.no_grad():
                    parameters[name].add_(noise * torch.randn_like(noise))
        torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)
    removed = sum(int(gone.sum()) for gone in zero)
    assert 0 < removed < optimizer.read_out().total
    assert optimizer.read_out().alive == optimizer.read_out().total - removed


@pytest.mark.parametrize("side", SIDES)
def test_structures_and_counts_agree_with_the_weights(side: Side) -> None:
    model, groups = prepared(Target(GroupLasso(1.0), 0.4), side)
    optimizer = RAMDA(groups)
    total = sum(coupling.width for coupling in inspect(model, IMAGES).removable)
    assert optimizer.read_out().alive == optimizer.read_out().total == total
    train(model, optimizer, range(10))
    structures = optimizer.structures()
    alive = 0
    with optimizer.structured():
        for coupling in inspect(model, IMAGES).removable:
            kept = units(model, coupling, side)
            alive += int(kept.sum())
            for part in coupling.side(side):
                structure = structures[model.get_parameter(part.name)]
                assert isinstance(structure, Support)
                mine = part.units >= 0
                assert torch.equal(structure.kept[mine], kept[part.units[mine]])
        found = sparsity(model, {name: structures[p] for name, p in model.named_parameters() if p in structures})
    assert 0 < alive < total
    assert (optimizer.read_out().alive, optimizer.read_out().total) == (alive, total)
    assert found.group is not None and 0 < found.group < 1
    optimizer.param_groups[0]["averaging"] = 1.0
    optimizer.param_groups[1]["averaging"] = 1.0
    optimizer.settle_()
    assert sum(int(units(model, c, side).sum()) for c in inspect(model, IMAGES).removable) == alive


def test_target_gives_the_share_of_zero_units() -> None:
    model, groups = prepared(Target(GroupLasso(1.0), 0.5))
    optimizer = RAMDA(groups)
    train(model, optimizer)
    seen = optimizer.read_out()
    assert seen.total - seen.alive == round(0.5 * seen.total)


# -- the papers' algorithms, one unit at a time ---------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("adaptive", [False, True])
def test_equals_a_transcription(side: Side, adaptive: bool) -> None:
    model = mlp()
    naive = copy.deepcopy(model)
    x = torch.zeros(1, 5).double()
    lam, lr, averaging, eps = 0.02 if adaptive else 0.3, 0.1, 0.3, 1e-6
    groups = regularize(model, GroupLasso(lam), x, side)
    optimizer = RAMDA(groups, lr, averaging, eps) if adaptive else RMDA(groups, lr, averaging)
    params = dict(naive.named_parameters())
    anchors = {name: p.detach().clone() for name, p in params.items()}
    sums, squares = ({name: torch.zeros_like(p) for name, p in params.items()} for _ in range(2))
    couplings = inspect(naive, x).removable
    penalty_weight = 0.0
    for k in range(1, 16):
        inputs, targets = batch(k, (5,), 3)
        for network in (model, naive):
            network.zero_grad()
            cross_entropy(network(inputs), targets).backward()
        optimizer.step()
        weight = lr * k**0.5
        penalty_weight += weight
        points: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, p in params.items():
            grad = torch.zeros_like(p) if p.grad is None else p.grad
            sums[name] += weight * grad
            squares[name] += weight * grad**2
            metrics[name] = squares[name] ** (1 / 3) + eps if adaptive else torch.full_like(p, k**0.5)
            points[name] = anchors[name] - sums[name] / metrics[name]
        for coupling in couplings:
            for unit in range(coupling.width):
                at = [(part.name, coupling.spread((torch.arange(coupling.width) == unit).double(), side)[part.name] > 0)
                      for part in coupling.side(side)]  # fmt: skip
                d = torch.cat([metrics[name][here] for name, here in at])
                b = d * torch.cat([points[name][here] for name, here in at])
                values = one_group(b, d, penalty_weight * lam * len(b) ** 0.5)
                for (name, here), own in zip(at, values.split([int(here.sum()) for _, here in at]), strict=True):
                    points[name][here] = own
        for name, p in params.items():
            p.data.lerp_(points[name], averaging)
        for name, p in model.named_parameters():
            torch.testing.assert_close(p, params[name], rtol=1e-6, atol=1e-7)
    assert 0 < optimizer.read_out().alive < optimizer.read_out().total


def one_group(b: Tensor, d: Tensor, kappa: float) -> Tensor:
    """Minimizer of ``0.5 x'Dx - b'x + kappa ||x||``, by bisection on its norm."""
    if b.norm() <= kappa:
        return torch.zeros_like(b)
    low, high = 0.0, float((b / d).norm())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (b / (middle * d + kappa)).norm() > 1 else (low, middle)
    return high * b / (high * d + kappa)


# -- what every optimizer offers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("side", SIDES)
def test_one_at_a_time_cut_and_without_waiting_are_the_same(kind, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = trained(kind, side)
    expect_close(trained(kind, side, foreach=False), plain)
    expect_close(trained(kind, side, capturable=True), plain)
    monkeypatch.setattr("openwork.optim.base.CPU_ENTRIES", 50)
    expect_close(trained(kind, side), plain)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("side", SIDES)
def test_saved_state_goes_on_bit_for_bit_and_so_does_a_copy(kind, side: Side) -> None:
    model, groups = prepared(SparseGroupLasso(0.05), side)
    optimizer = kind(groups)
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(model)
    other = kind(regularize(twin, SparseGroupLasso(0.05), IMAGES, side))
    other.load_state_dict(torch.load(file, weights_only=True))
    third, copied = copy.deepcopy((model, optimizer))
    assert other.read_out() == optimizer.read_out()
    for network, stepper in ((model, optimizer), (twin, other), (third, copied)):
        train(network, stepper, range(3, 8))
    for network, stepper in ((twin, other), (third, copied)):
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), network.parameters(), strict=True))
        assert stepper.read_out() == optimizer.read_out()


@pytest.mark.parametrize("side", SIDES)
def test_structured_weights_come_and_go(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openwork.optim.base.CPU_ENTRIES", 50)
    model, groups = prepared(GroupLasso(0.05), side)
    optimizer = RAMDA(groups)
    train(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    with optimizer.structured():
        points = [p.detach().clone() for p in model.parameters()]
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert not all(torch.equal(p, old) for p, old in zip(points, before, strict=True))
    with pytest.warns(UserWarning, match="averaging is 0.1, not 1"):
        optimizer.settle_()
    assert all(torch.equal(p, point) for p, point in zip(model.parameters(), points, strict=True))


@pytest.mark.parametrize("side", SIDES)
def test_half_precision_keeps_masters(side: Side) -> None:
    model = mlp().bfloat16()
    optimizer = RAMDA(regularize(model, GroupLasso(0.01), torch.zeros(1, 5).bfloat16(), side))
    for time in range(3):
        x, y = batch(time, (5,), 3)
        optimizer.zero_grad()
        cross_entropy(model(x.bfloat16()).float(), y).backward()
        optimizer.step()
    with optimizer.structured():
        pass
    for p in model.parameters():
        assert optimizer.state[p]["master"].dtype == torch.float32
        assert torch.equal(p, optimizer.state[p]["master"].bfloat16())


@pytest.mark.parametrize("capturable", [False, True])
def test_bad_gradients_change_nothing(capturable: bool) -> None:
    model, groups = prepared(GroupLasso(0.05))
    optimizer = RAMDA(groups, capturable=capturable)
    train(model, optimizer)
    before, seen = [p.detach().clone() for p in model.parameters()], optimizer.read_out()
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert optimizer.skipped == 1 and optimizer.read_out().alive == seen.alive


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_coupled_parameter_without_gradient_has_a_zero_one(kind) -> None:
    models = [mlp(), mlp()]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.zeros(1, 5).double()
    optimizers = [kind(regularize(model, GroupLasso(0.05), x, "producers")) for model in models]
    for time in range(4):
        for model, optimizer, missing in zip(models, optimizers, (None, 0.0), strict=True):
            optimizer.zero_grad()
            inputs, targets = batch(time, (5,), 3)
            cross_entropy(model(inputs), targets).backward()
            bias = model.get_parameter("0.bias")
            bias.grad = None if missing is None else torch.zeros_like(bias)
            optimizer.step()
    expect_close(*models)
    before = [p.detach().clone() for p in models[0].parameters()]
    optimizers[0].zero_grad()
    models[0].get_parameter("4.bias").sum().backward()
    optimizers[0].step()
    moved = [
        name for (name, p), old in zip(models[0].named_parameters(), before, strict=True) if not torch.equal(p, old)
    ]
    # None of the coupled ones has a gradient, so all of them wait.
    assert moved == ["4.bias"]


def test_stages_make_the_zeros_final() -> None:
    model, groups = prepared(GroupLasso(0.1), "producers")
    optimizer = RMDA(groups, averaging=0.5)
    Stages(optimizer, [10])
    train(model, optimizer, range(20))
    assert float(optimizer.averaging_now(optimizer.param_groups[0])) == 1
    alive = sum(int(units(model, c, "producers").sum()) for c in inspect(model, IMAGES).removable)
    assert 0 < alive == optimizer.read_out().alive < optimizer.read_out().total


@pytest.mark.parametrize("penalty", [GroupLasso(1.0), SparseGroupLasso(1.0), GroupMCP(1.0)], ids=repr)
@pytest.mark.parametrize("kind", [RMDA, partial(RAMDA, lr=0.02)])
@pytest.mark.parametrize("side", SIDES)
def test_strength_max_is_where_the_last_unit_vanishes(model: nn.Module, penalty, kind, side: Side) -> None:
    lam = strength_max(model, cross_entropy, batch(0), penalty, IMAGES, side, optimizer=kind)
    alive: list[int] = []
    for factor in (0.9999, 1.0001):
        twin = copy.deepcopy(model)
        optimizer = kind(regularize(twin, replace(penalty, lam=factor * lam), IMAGES, side))
        train(twin, optimizer, [0])
        alive.append(optimizer.read_out().alive)
    assert alive[0] > 0 and alive[1] == 0


class Small(nn.Sequential):
    """Of one coupling, since torch's own backend takes a minute for all those of the other."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(72, 6), nn.Tanh(), nn.Linear(6, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "side", "network", "backend"),
    [(RAMDA, "consumers", Network, "eager"), (RMDA, "producers", Small, "inductor")],
)
def test_compiled_is_the_same_and_compiles_once(
    kind, side: Side, network: type[nn.Module], backend: str, through: Callable[[str], None]
) -> None:
    through(backend)
    torch.compiler.reset()
    model = network().double()
    twin = copy.deepcopy(model)
    optimizer, other = (kind(regularize(m, GroupLasso(0.1), IMAGES, side), compile=m is model) for m in (model, twin))
    train(model, optimizer, [0])
    try:
        torch.compiler.set_stance("fail_on_recompile")
        train(model, optimizer, range(1, 5))
    finally:
        torch.compiler.set_stance("default")
    train(twin, other)
    expect_close(model, twin)
