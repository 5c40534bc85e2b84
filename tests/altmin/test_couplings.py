"""Codes and activations: each coupling keeps what it promises."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from openwork.altmin import AMTrainer, Band, Exact, Inertia, QuadraticPenalty, Sign, mdlam, tiam
from openwork.altmin.objective import link_term
from openwork.altmin.state import sum_of_squares
from tests.altmin.tasks import labelled, linear, network

STEEP = (0.5, 0.2, 0.4)


@pytest.mark.parametrize(
    "activation", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Tanh, nn.Sigmoid, nn.Hardtanh, Sign, nn.ReLU6]
)
def test_codes_stay_within_the_band_while_it_shrinks(activation: type[nn.Module]) -> None:
    trainer = AMTrainer(network(activation=activation), coupling=Band(0.8, 0.8, 0.05), inertia=STEEP)
    trainer.start(*labelled())
    layers = trainer._started()[0].problem.layers
    widths: list[float] = []
    for _ in range(20):
        before = [float(layer.eps or 0) for layer in layers[:-1]]
        measured = trainer.sweep()
        for layer, gap, eps in zip(layers[:-1], measured.coupling_gap, before, strict=True):
            assert layer.activation is not None and layer.a is not None and layer.eps is not None
            # The gap was measured before eps shrank, the layer is looked at after.
            assert gap <= eps * (1 + 1e-9)
            now = (layer.a.now - layer.activation.forward(layer.z.now)).abs().max()
            assert now <= layer.eps * (1 + 1e-9)
        widths.append(float(layers[0].eps or 0))
    assert widths[0] == pytest.approx(0.64)
    assert widths[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("preset", [tiam, mdlam])
def test_inertia_acts_once_the_band_is_as_narrow_as_it_gets(preset: Callable[..., AMTrainer]) -> None:
    ends: list[list[torch.Tensor]] = []
    for inertia in ((0.0, 0.0, 0.0), (0.633, 0.633, 0.0)):
        trainer = preset(network(), inertia=inertia, band=Band(0.4, 0.5, 0.1))
        trainer.start(*labelled())
        layers = trainer._started()[0].problem.layers
        histories: list[bool] = []
        for _ in range(6):
            trainer.sweep()
            histories.append(layers[0].weight.before is not None)
        # The band narrows after the first two sweeps.
        assert histories == [False, False, True, True, True, True]
        ends.append([layer.weight.now for layer in layers])
    assert max(float((a - b).abs().max()) for a, b in zip(*ends, strict=True)) > 1e-6


def test_the_band_starts_at_the_largest_z_and_ends_at_a_percent() -> None:
    trainer = AMTrainer(network(), coupling=Band())
    trainer.start(*labelled())
    for layer in trainer._started()[0].problem.layers[:-1]:
        assert layer.eps is not None and layer.eps_floor is not None
        assert layer.eps == layer.z.now.abs().max()
        torch.testing.assert_close(layer.eps_floor, layer.z.now.square().mean().sqrt() / 100)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU])
def test_exact_codes_are_the_activation_bit_for_bit(activation: type[nn.Module]) -> None:
    trainer = AMTrainer(network(activation=activation), coupling=Exact(), inertia=STEEP, balance=2)
    trainer.start(*labelled())
    for _ in range(5):
        measured = trainer.sweep()
        assert measured.coupling_gap == [0.0, 0.0]
        for layer in trainer._started()[0].problem.layers[:-1]:
            assert layer.activation is not None and layer.a is not None
            assert torch.equal(layer.a.now, layer.activation.forward(layer.z.now))


def test_an_active_relu_moves_at_most_two_widths_a_sweep_in_a_band() -> None:
    """The known defect of the band, which makes its schedule a learning rate."""
    eps = 0.05
    trainer = AMTrainer(network(), coupling=Band(eps, 1.0), inertia=(0, 0, 0), rho=0.1, balance=0)
    trainer.start(*labelled())
    layer = trainer._started()[0].problem.layers[0]
    largest = 0.0
    for _ in range(20):
        assert layer.a is not None
        active = (layer.a.now > eps) & (layer.z.now >= 0)
        before = layer.z.now
        trainer.sweep()
        moved = (layer.z.now - before).abs()[active]
        assert moved.max() <= 2 * eps * (1 + 1e-9)
        largest = max(largest, float(moved.max()))
    assert largest > 0


@pytest.mark.parametrize("solver", ["majorized", "exact"])
def test_the_code_step_lowers_what_it_is_about(solver: str) -> None:
    coupling = QuadraticPenalty(0.7, "exact" if solver == "exact" else "majorized")
    trainer = AMTrainer(network(), coupling=coupling, inertia=(0, 0, 0), rho=0.5)
    trainer.start(*labelled())
    for _ in range(3):
        trainer.sweep()
    layer, following = trainer._started()[0].problem.layers[:2]
    before = link_term(following, sum_of_squares(following.residual)) + coupling.value(layer)
    coupling.a_step(layer, following, Inertia())
    after = link_term(following, sum_of_squares(following.residual)) + coupling.value(layer)
    assert after < before
    if solver == "exact":
        assert layer.activation is not None and layer.a is not None and following.bias is not None
        # The same as a least squares problem over all codes at once.
        weight = following.weight.now
        left = torch.cat([0.5**0.5 * weight, 0.7**0.5 * torch.eye(7, dtype=torch.float64)])
        target = layer.activation.forward(layer.z.now).T
        right = torch.cat([0.5**0.5 * (following.z.now - following.bias.now).T, 0.7**0.5 * target])
        torch.testing.assert_close(layer.a.now.T, torch.linalg.lstsq(left, right).solution, rtol=1e-10, atol=1e-10)


def test_a_weight_of_zero_behind_a_layer_leaves_its_codes_where_the_link_wants_them() -> None:
    model = network()
    with torch.no_grad():
        linear(model, 2).weight.zero_()
    trainer = AMTrainer(model, inertia=(0, 0, 0))
    trainer.start(*labelled())
    layer, following = trainer._started()[0].problem.layers[:2]
    wanted = layer.residual + layer.z.now
    Exact().z_step(layer, following, Inertia())
    torch.testing.assert_close(layer.z.now, wanted, rtol=1e-9, atol=1e-9)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Band: start of eps must be > 0, got 0.0; use Exact"):
        Band(0.0)
    with pytest.raises(ValueError, match=r"Band: floor of eps must be > 0, got -1"):
        Band(floor=-1.0)
    with pytest.raises(ValueError, match=r"Band: factor must be in \(0, 1\], got 1.5"):
        Band(factor=1.5)
    with pytest.raises(ValueError, match=r"QuadraticPenalty: nu must be > 0, or None for rho, got 0"):
        QuadraticPenalty(0.0)
    with pytest.raises(ValueError, match=r"QuadraticPenalty: alpha must be >= 0, got -1"):
        QuadraticPenalty(alpha=-1.0)
    with pytest.raises(ValueError, match=r"QuadraticPenalty: solver must be 'majorized' or 'exact', got 'cg'"):
        QuadraticPenalty(solver="cg")  # pyright: ignore[reportArgumentType]


def test_a_band_refuses_what_is_not_monotone() -> None:
    trainer = AMTrainer(network(activation=nn.GELU), coupling=Band())
    with pytest.raises(ValueError, match=r"monotone"):
        trainer.start(*labelled())


def test_exact_codes_refuse_pooling_between_layers() -> None:
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.ReLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2)
    )
    with pytest.raises(TypeError, match=r"there is pooling between two layers; take the majorized steps"):
        AMTrainer(model, coupling=QuadraticPenalty(solver="exact"))
