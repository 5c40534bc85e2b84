"""Penalties in the block of the weights: exact zeros, structure, and smaller networks."""

import warnings

import pytest
import torch
from torch import Tensor

import openwork as ow
from openwork.altmin import AMTrainer
from openwork.altmin.measurement import escaped
from openwork.partitions import Slices
from openwork.penalties import L1, GroupLasso, NuclearNorm
from openwork.structure import Rank, Support
from tests.altmin.tasks import labelled, linear, network


def planted(seed: int = 0, size: int = 150) -> tuple[Tensor, Tensor]:
    """Four informative inputs, then six of noise."""
    x, y = labelled(seed, size, 4, 3)
    noise = torch.randn(size, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 50))
    return torch.cat([x, noise], 1), y


def trained(lam: float, sweeps: int) -> tuple[AMTrainer, Tensor]:
    x, y = planted()
    trainer = AMTrainer(network(widths=(10, 16, 3)), penalties={"0": GroupLasso(lam, Slices(1))}, rho=1.0, mu=0.05)
    trainer.start(x, y)
    for _ in range(sweeps):
        trainer.sweep()
    trainer.evaluate()
    trainer.finish()
    return trainer, x


def test_irrelevant_inputs_are_dropped_exactly_and_shrink_takes_them_out() -> None:
    trainer, x = trained(lam=0.016, sweeps=70)
    weight = linear(trainer.model, 0).weight.detach()
    alive = (weight != 0).any(0)
    assert alive[:4].sum() >= 3
    assert alive[4:].sum() == 0
    structure = GroupLasso(0.016, Slices(1)).structure(weight)
    assert isinstance(structure, Support)
    assert torch.equal(structure.kept, alive)
    found = trainer.structures()
    assert list(found) == ["0.weight"]
    assert torch.equal(found["0.weight"].kept, alive)
    outputs = trainer.model(x)
    small = ow.shrink(trainer.model, x[:4]).model
    assert small(x).shape == outputs.shape
    torch.testing.assert_close(small(x), outputs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inertia", [(0.0, 0.0, 0.0), (0.633, 0.633, 0.5)])
def test_zeros_are_exact_after_every_sweep(inertia: tuple[float, float, float]) -> None:
    trainer = AMTrainer(
        network(), penalties={"0": L1(0.01), "2": GroupLasso(0.01, Slices(1))}, inertia=inertia, rho=1.0
    )
    trainer.start(*labelled())
    seen = 0
    for _ in range(30):
        trainer.sweep()
        weight = linear(trainer.model, 0).weight.detach()
        seen += int((weight == 0).sum() > 0)
        # Nothing is nearly zero: what a proximal step drops is exactly so.
        assert not ((weight != 0) & (weight.abs() < 1e-9)).any()
    assert seen > 15


def test_fit_chooses_among_networks_with_their_penalties() -> None:
    x, y = planted()
    penalty = GroupLasso(0.016, Slices(1))
    trainer = AMTrainer(network(widths=(10, 16, 3)), penalties={"0": penalty}, rho=1.0, mu=0.05, readout=False)
    model = trainer.fit(x, y, 60)
    weight = linear(model, 0).weight.detach()
    # The loss alone is smallest early on, when no input is dropped yet.
    losses = trainer.report()["forward_loss"]
    chosen = float(torch.nn.functional.cross_entropy(model(x), y).detach())
    assert chosen > min(float(str(loss)) for loss in losses)
    assert (weight == 0).all(0).any()


def test_removed_units_leave_the_same_network() -> None:
    x, y = labelled()
    trainer = AMTrainer(network(), penalties={"2": GroupLasso(0.015, Slices(1))}, readout=False, rho=1.0)
    trainer.start(x, y)
    for _ in range(60):
        trainer.sweep()
    model = trainer.finish()
    dropped = (linear(model, 2).weight == 0).all(0)
    assert dropped.any()
    small = ow.shrink(model, x[:4]).model
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(x), model(x), rtol=1e-12, atol=1e-12)


def test_the_nuclear_norm_lowers_the_rank_exactly() -> None:
    trainer = AMTrainer(network(), penalties={"2": NuclearNorm(0.02)}, rho=1.0)
    trainer.start(*labelled())
    for _ in range(40):
        trainer.sweep()
    structure = NuclearNorm(0.02).structure(linear(trainer.model, 2).weight.detach())
    assert isinstance(structure, Rank)
    assert structure.rank < 6


def test_the_refit_keeps_zeros_of_a_penalized_output_layer() -> None:
    trainer = AMTrainer(network(), penalties={"4": L1(0.02)})
    x, y = labelled()
    model = trainer.fit(x, y, 30)
    layer = trainer._started()[0].problem.layers[-1]
    assert (linear(model, 4).weight == 0).any()
    best = trainer._started()[1].best_weights
    zeros = best[4] == 0
    assert layer.penalized and zeros.any()
    assert (linear(model, 4).weight[zeros] == 0).all()


@pytest.mark.parametrize(
    ("every", "remedy"),
    [(0, "balance=10, a smaller penalty, or a larger mu"), (10, "a smaller penalty, or a larger mu")],
)
def test_nobody_is_told_to_balance_who_does(every: int, remedy: str) -> None:
    trainer = AMTrainer(network(widths=(5, 12, 3)), penalties={"0": L1(1.0)}, balance=every)
    trainer.start(*labelled())
    with pytest.warns(UserWarning, match=f"without training the network; take {remedy}$"):
        trainer.sweep()


def test_layers_that_escape_from_the_penalty_are_warned_of() -> None:
    trainer = AMTrainer(
        network(widths=(5, 12, 3)), penalties={"0": GroupLasso(0.05)}, rho=0.01, mu=0.0, balance=0, inertia=(0, 0, 0)
    )
    trainer.start(*labelled())
    with pytest.warns(
        UserWarning, match=r"layer 1 shrank more than tenfold or to zero while that of layer 2 grew"
    ) as caught:
        for _ in range(400):
            trainer.sweep()
            if caught.list:
                break
    progress = trainer._started()[1]
    start, norms = progress.norms, progress.series["weight_norm"][-1]
    assert norms[0] * 10 < start[0] and norms[1] > start[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trainer.sweep()


def test_what_is_no_penalty_of_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"penalties name 'first', which is no weight layer; there are 0, 2, 4"):
        AMTrainer(network(), penalties={"first": L1(0.1)})
    with pytest.raises(TypeError, match=r"the penalty of '0' must be a penalty of one weight, .* got 0.1"):
        AMTrainer(network(), penalties={"0": 0.1})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("start", "now", "pair"),
    [
        ([1.0, 1.0, 1.0], [0.09, 1.0, 3.1], (0, 2)),
        ([1.0, 1.0, 1.0], [0.0, 1.1, 1.0], (0, 1)),
        ([1.0, 1.0, 1.0], [0.0, 0.9, 1.0], None),
        ([1.0, 1.0, 1.0], [0.09, 2.9, 2.9], None),
        ([1.0, 1.0, 1.0], [3.1, 0.09, 1.0], None),
    ],
)
def test_a_later_layer_that_takes_over_is_an_escape(
    start: list[float], now: list[float], pair: tuple[int, int] | None
) -> None:
    assert escaped(start, now) == pair
