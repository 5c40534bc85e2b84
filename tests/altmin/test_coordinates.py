"""Codes by coordinate descent: unit after unit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, Exact, Inertia, Quantizer, Sign
from openwork.altmin.elementwise import Activation
from openwork.altmin.state import Layer
from tests.altmin.tasks import labelled, linear, network
from tests.altmin.test_descent import check_every_block

BY_UNIT = Exact(solver="coordinates")


def several_slopes() -> nn.PReLU:
    """Another slope for each of four units."""
    module = nn.PReLU(4, dtype=torch.float64)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, 0.5, 1.0, 2.0]))
    return module


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "prelu": several_slopes,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sign": Sign,
    "quantizer": lambda: Quantizer([-1.0, 0.0, 1.0]),
}


def started(activation: Callable[[], nn.Module], coupling: Exact, rho: float = 0.5) -> AMTrainer:
    torch.manual_seed(3)
    first, second, third = (nn.Linear(n, m, dtype=torch.float64) for n, m in ((5, 4), (4, 4), (4, 3)))
    trainer = AMTrainer(
        nn.Sequential(first, activation(), second, activation(), third), coupling=coupling, rho=rho, inertia=(0, 0, 0)
    )
    trainer.start(*labelled())
    return trainer


def layers_of(trainer: AMTrainer) -> list[Layer]:
    return trainer._started()[0].problem.layers


def naive_cycle(layer: Layer, following: Layer, at: Callable[[int], Activation]) -> tuple[Tensor, Tensor]:
    """Unit after unit and sample after sample, every residual from scratch."""
    assert layer.a is not None and following.bias is not None
    wanted, z, a = layer.residual + layer.z.now, layer.z.now.clone(), layer.a.now.clone()
    weight, bias, rho = following.weight.now, following.bias.now, following.rho
    for unit in range(z.shape[1]):
        w = weight[:, unit]
        for n in range(len(z)):
            residual = weight @ a[n] + bias - following.z.now[n]
            d = a[n, unit] - residual @ w / (w @ w)
            one = at(unit).solve(
                wanted[n, unit].view(1), d.view(1), layer.rho, float(rho * (w @ w)), z[n, unit].view(1)
            )
            z[n, unit], a[n, unit] = one, at(unit).forward(one)
    return z, a


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_cycle_is_that_of_a_naive_loop(name: str) -> None:
    trainer = started(ACTIVATIONS[name], BY_UNIT)
    trainer.sweep()
    trainer.sweep()
    layer, following = layers_of(trainer)[:2]
    activation = layer.activation
    assert activation is not None
    z, a = naive_cycle(layer, following, activation.of_unit)
    BY_UNIT.z_step(layer, following, Inertia())
    assert layer.a is not None
    torch.testing.assert_close(layer.z.now, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.a.now, a, rtol=1e-9, atol=1e-9)
    assert torch.equal(layer.a.now, activation.forward(layer.z.now))
    for one, x in ((layer, trainer._started()[0].problem.x), (following, layer.a.now)):
        kept = one.residual
        one.recompute(x)
        torch.testing.assert_close(kept, one.residual, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_block_raises_the_objective(name: str) -> None:
    check_every_block(started(ACTIVATIONS[name], BY_UNIT), labelled(1), sweeps=10)


@pytest.mark.parametrize("activation", [nn.ReLU, Sign], ids=["relu", "sign"])
def test_a_cycle_lowers_the_objective_more_than_a_step_of_the_whole_layer(activation: Callable[[], nn.Module]) -> None:
    falls: dict[str, float] = {}
    for coupling in (Exact(), BY_UNIT):
        trainer = started(activation, Exact())
        for _ in range(10):
            trainer.sweep()
        blocks = trainer._started()[0]
        before = float(blocks.objective())
        layer, following = layers_of(trainer)[1:]
        coupling.z_step(layer, following, Inertia())
        falls[coupling.solver] = before - float(blocks.objective())
    assert falls["coordinates"] > 1.2 * falls["majorized"]
    if activation is Sign:  # codes that can only jump are stuck, and no longer are
        assert falls["majorized"] == 0 and falls["coordinates"] > 0.1


def test_inertia_moves_a_unit_on() -> None:
    steps: list[Tensor] = []
    for inertia in (Inertia(), Inertia(0.5, 0.2, 0.0), Inertia(0.5, 0.5, 0.4)):
        trainer = started(nn.Identity, BY_UNIT)
        layer, following = layers_of(trainer)[:2]
        trainer.sweep()
        history = layer.z
        BY_UNIT.z_step(layer, following, inertia)
        steps.append(layer.z.now - history.now)
        assert layer.z.before is history.now
    # The first unit has seen no other one move: the third step of an exact solution is a multiple of it.
    torch.testing.assert_close(steps[2][:, 0], 1.4 * steps[0][:, 0], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(steps[1], steps[0])


def test_a_unit_that_nobody_reads_goes_where_its_link_wants_it() -> None:
    trainer = started(nn.ReLU, BY_UNIT)
    layer, following = layers_of(trainer)[:2]
    weight = following.weight.now.clone()
    weight[:, 2] = 0
    following.set_weight(weight)
    assert layer.a is not None
    following.recompute(layer.a.now)
    wanted = (layer.residual + layer.z.now)[:, 2]
    BY_UNIT.z_step(layer, following, Inertia())
    torch.testing.assert_close(layer.z.now[:, 2], wanted, rtol=1e-9, atol=1e-9)


def test_what_it_cannot_solve_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Exact: solver must be 'majorized' or 'coordinates', got 'newton'"):
        Exact(solver="newton")  # pyright: ignore[reportArgumentType]
    conv = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Conv1d(2, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(TypeError, match=r"coordinates'\) needs linear layers, the model has a Conv1d"):
        AMTrainer(conv, coupling=BY_UNIT)
    flat = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(TypeError, match=r"read their codes directly, and there is Flatten or pooling"):
        AMTrainer(flat, coupling=BY_UNIT)
    AMTrainer(nn.Sequential(nn.Flatten(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2)), coupling=BY_UNIT)


def test_it_trains_a_network_and_goes_on_from_a_state() -> None:
    x, y = labelled()
    trainer = AMTrainer(network(activation=Sign), coupling=BY_UNIT)
    before = linear(trainer.model, 0).weight.detach().clone()
    trainer.start(x, y)
    first = trainer.sweep().objective
    state = trainer.state_dict()
    again = AMTrainer(network(activation=Sign), coupling=BY_UNIT)
    again.start(x, y)
    again.load_state_dict(state)
    assert again.sweep().objective == trainer.sweep().objective < first
    assert not torch.equal(before, linear(trainer.model, 0).weight)
