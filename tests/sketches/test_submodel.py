"""Submodels with parameters of their own: what they start from, what a step on them is for the whole network."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork import models
from openwork.sketches import Bernoulli, Key, PermK, RandK, SketchedModule
from openwork.sketches.families import Units
from openwork.sketches.sketch import DiagonalSketch
from openwork.sketches.submodel import BigState

X = torch.randn(7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
KEY = Key(3, 4)


def network() -> Any:
    return models.mlp((5, 8, 6, 3), seed=1).double()


def sketched(law: DiagonalSketch | None = None, module: nn.Module | None = None, **options: Any) -> SketchedModule:
    options = {"shift": "zero", "granularity": "units", "example_inputs": X, "mode": "slice", **options}
    return SketchedModule(network() if module is None else module, law or RandK(0.5), **options)


def loss_of(module: nn.Module) -> Tensor:
    return (module(X) - Y).square().mean()


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def kept(one: SketchedModule, key: Key) -> dict[str, Tensor]:
    """For each parameter, where its entries are kept."""
    found = {name: torch.ones_like(p, dtype=torch.bool) for name, p in one.module.named_parameters()}
    for family in one.families:
        assert isinstance(family, Units)
        alive = family.weights(key) != 0
        for part in (*family.coupling.producers, *family.coupling.consumers):
            shape = [-1 if dim == part.dim else 1 for dim in range(len(part.shape))]
            found[part.name] &= alive[part.units].view(shape)
    return found


@pytest.mark.parametrize("scaled", [True, False])
def test_outputs_are_those_of_the_draw(scaled: bool) -> None:
    one = sketched(scaled=scaled)
    small = one.submodel(KEY).module
    with one.draw(KEY):
        torch.testing.assert_close(small(X), one(X), rtol=1e-13, atol=1e-13)
    assert [tuple(p.shape) for p in small.parameters()] == [(4, 5), (4,), (3, 4), (3,), (3, 3), (3,)]
    assert all(type(p) is nn.Parameter and p.is_leaf and p.requires_grad for p in small.parameters())
    assert [layer.in_features for layer in small.modules() if isinstance(layer, nn.Linear)] == [5, 4, 3]


@pytest.mark.parametrize("scaled", [True, False])
def test_writing_back_at_once_changes_nothing(scaled: bool) -> None:
    one = sketched(scaled=scaled)
    before = copies(one.module)
    one.submodel(KEY).write_back_()
    for name, p in one.module.named_parameters():
        # Powers of two scale exactly.
        assert torch.equal(p, before[name]), name


@pytest.mark.parametrize("scaled", [True, False])
def test_a_step_of_sgd_is_one_of_the_whole_network_where_units_are_kept(scaled: bool) -> None:
    """``eta`` on y is ``p^2 eta`` on x along the sketched gradient where y = x / p, and ``eta`` elsewhere."""
    one, eta, p = sketched(scaled=scaled), 0.1, 0.5
    before = copies(one.module)
    with one.draw(KEY):
        loss_of(one).backward()
    gradients = {name: x.grad.clone() for name, x in one.module.named_parameters() if x.grad is not None}
    submodel = one.submodel(KEY)
    optimizer = torch.optim.SGD(submodel.module.parameters(), lr=eta)
    loss_of(submodel.module).backward()
    optimizer.step()
    submodel.write_back_()
    there = kept(one, KEY)
    consumers = ("3.weight", "5.weight")
    for name, x in one.module.named_parameters():
        factor = p**2 if scaled and name in consumers else 1.0
        torch.testing.assert_close(x.detach(), before[name] - eta * factor * gradients[name], rtol=1e-12, atol=1e-13)
        assert torch.equal(x[~there[name]], before[name][~there[name]])


def test_scaled_and_unscaled_runs_are_the_same_run() -> None:
    """Unscaled on x is scaled on z = p x: with leaves that hold the same numbers, to rounding (spec of both units)."""
    unscaled = sketched(scaled=False)
    module = deepcopy(unscaled.module)
    with torch.no_grad():
        for name in ("3.weight", "5.weight"):
            module.get_parameter(name).mul_(0.5)
    scaled = sketched(module=module, scaled=True)
    for step in range(20):
        for one in (unscaled, scaled):
            submodel = one.submodel(Key(0, step))
            optimizer = torch.optim.Adam(submodel.module.parameters(), lr=0.01)
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(submodel.module).backward()
                optimizer.step()
            submodel.write_back_()
    for name, x in unscaled.module.named_parameters():
        z = scaled.module.get_parameter(name)
        torch.testing.assert_close(z, x * (0.5 if name in ("3.weight", "5.weight") else 1.0), rtol=1e-12, atol=1e-12)


def test_workers_that_share_the_units_step_along_the_mean_gradient() -> None:
    """n submodels of PermK, one step ``eta`` each on the matrix that reads units, are ``gamma = eta / n`` on x."""
    n, eta = 2, 0.2
    module: Any = models.mlp((5, 8, 3), seed=1).double()
    one = sketched(PermK(n), module)
    before, mean = copies(module), torch.zeros_like(module[3].weight)
    for worker in range(n):
        one.zero_grad()
        with one.draw(KEY.at(worker=worker)):
            loss_of(one).backward()
        mean += module[3].weight.grad / n
    for worker in range(n):
        submodel = one.submodel(KEY.at(worker=worker))
        weight = submodel.module.get_parameter("3.weight")
        loss_of(submodel.module).backward()
        torch.optim.SGD([weight], lr=eta).step()
        with torch.no_grad():
            # Others of the whole network stay, so that the second worker starts where the first did.
            submodel.write_back_()
    torch.testing.assert_close(module[3].weight.detach(), before["3.weight"] - eta / n * mean, rtol=1e-12, atol=1e-13)


def test_the_next_draw_fits_into_the_same_parameters() -> None:
    one = sketched()
    submodel = one.submodel(KEY)
    leaves = list(submodel.module.parameters())
    submodel.redraw_(KEY.at(step=9))
    assert all(a is b for a, b in zip(leaves, submodel.module.parameters(), strict=True))
    assert submodel.key == KEY.at(step=9)
    fresh = one.submodel(KEY.at(step=9))
    assert all(torch.equal(a, b) for a, b in zip(leaves, fresh.module.parameters(), strict=True))
    with torch.no_grad():
        for leaf in leaves:
            leaf.zero_()
    submodel.write_back_()
    there = kept(one, KEY.at(step=9))
    for name, p in one.module.named_parameters():
        assert torch.equal(p == 0, there[name]), name


def test_a_draw_of_other_widths_does_not_fit() -> None:
    one = sketched(Bernoulli(0.5))
    submodel = one.submodel(Key(0))
    with pytest.raises(ValueError, match="keeps another number of units; make a new one"):
        for step in range(20):
            submodel.redraw_(Key(0, step))


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_state_of_an_optimizer_is_kept_for_dropped_units(make: Any) -> None:
    """Against one optimizer over the whole network whose dropped entries are put back after each step."""
    options: dict[str, Any] = {"lr": 0.05} if make is torch.optim.Adam else {"lr": 0.05, "momentum": 0.9}
    one, naive = sketched(scaled=False), sketched(scaled=False, mode="mask")
    reference = make(naive.module.parameters(), **options)
    state: BigState = {}
    submodel = one.submodel(Key(0))
    optimizer = make(submodel.module.parameters(), **options)
    for step in range(8):
        key = Key(0, step)
        submodel.redraw_(key)
        submodel.load_state(optimizer, state)
        optimizer.zero_grad()
        loss_of(submodel.module).backward()
        optimizer.step()
        submodel.write_back_()
        submodel.save_state(optimizer, state)

        reference.zero_grad()
        with naive.draw(key):
            loss_of(naive).backward()
        weights = copies(naive.module)
        moments = {p: {k: v.clone() for k, v in entries.items()} for p, entries in reference.state.items()}
        reference.step()
        there = kept(naive, key)
        with torch.no_grad():
            for name, p in naive.module.named_parameters():
                p.copy_(torch.where(there[name], p, weights[name]))
                for k, value in reference.state[p].items():
                    if isinstance(value, Tensor) and value.shape == p.shape:
                        old = moments.get(p, {}).get(k, torch.zeros_like(value))
                        value.copy_(torch.where(there[name], value, old))
        for name, p in naive.module.named_parameters():
            torch.testing.assert_close(one.module.get_parameter(name), p, rtol=1e-12, atol=1e-12)
    assert {k for entries in state.values() for k in entries} == set(next(iter(optimizer.state.values())))
    assert all(v.shape == one.module.get_parameter(n).shape for n, e in state.items() for v in e.values() if v.ndim)


def test_frozen_parameters_and_running_statistics() -> None:
    torch.manual_seed(0)
    module: Any = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 3)).double()
    x = torch.randn(4, 2, 7, 7, dtype=torch.float64)
    module[0].weight.requires_grad_(False)
    one = sketched(RandK(4), module, example_inputs=x)
    before, statistics = copies(module), module[1].running_mean.clone()
    submodel = one.submodel(KEY)
    assert [p.requires_grad for p in submodel.module.parameters()] == [False, True, True, True, True, True]
    submodel.module(x).sum().backward()
    torch.optim.SGD([p for p in submodel.module.parameters() if p.requires_grad], lr=0.1).step()
    submodel.write_back_()
    there = kept(one, KEY)["1.weight"]
    assert torch.equal(module[0].weight, before["0.weight"])
    assert torch.equal(module[1].running_mean != statistics, there)
    assert int(module[1].num_batches_tracked) == 1


def test_modes_and_ties_are_those_of_the_whole_network() -> None:
    module: Any = models.gpt(20, 8, 8, 1, 2, seed=0).double()
    module.blocks[0].norm1.eval()
    tokens = torch.randint(0, 20, (2, 5))
    one = sketched(RandK(0.5), module, example_inputs=tokens)
    small: Any = one.submodel(KEY).module
    assert small.head.weight is small.tokens.weight
    assert small.training
    assert not small.blocks[0].norm1.training
    assert small.blocks[0].attention.heads == 1
    with one.draw(KEY):
        torch.testing.assert_close(small(tokens), one(tokens), rtol=1e-12, atol=1e-12)
