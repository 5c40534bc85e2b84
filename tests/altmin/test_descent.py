"""The objective never rises: block by block without inertia, sweep by sweep with any."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from openwork.altmin import (
    AMTrainer,
    Band,
    Coupling,
    Exact,
    ExactWeights,
    Inertia,
    MajorizedWeights,
    QuadraticPenalty,
    Quantizer,
    Sign,
    Squared,
    WeightSolver,
    backward_forward,
    forward,
    output_to_input,
    red_black,
)
from openwork.altmin.orders import Order
from openwork.penalties import L1, GroupLasso, GroupMCP, NuclearNorm, Penalty, SparseGroupLasso
from tests.altmin.tasks import Samples, blocks_of, labelled, network, targets

COUPLINGS: dict[str, Coupling] = {
    "band": Band(0.3, 1.0),
    "penalty": QuadraticPenalty(0.7),
    "penalty-exact": QuadraticPenalty(solver="exact", alpha=0.5),
    "exact": Exact(),
    "coordinates": Exact("coordinates"),
}
ORDERS: dict[str, Order] = {
    "forward": forward,
    "red-black": red_black,
    "backward-forward": backward_forward,
    "output-to-input": output_to_input,
}


def check_every_block(trainer: AMTrainer, samples: Samples, sweeps: int) -> None:
    trainer.start(*samples)
    blocks = blocks_of(trainer)
    first = before = float(blocks.objective())
    for _ in range(sweeps):
        for visit in blocks.visits:
            blocks.move(visit, Inertia())
            after = float(blocks.objective())
            assert after <= before * (1 + 1e-10), visit
            before = after
    assert before < 0.9 * first


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_no_block_raises_the_objective(coupling: str, order: str) -> None:
    trainer = AMTrainer(network(), coupling=COUPLINGS[coupling], order=ORDERS[order], rho=0.5)
    check_every_block(trainer, labelled(), sweeps=8)


# Every coupling, activation, order and penalty is in a row.
ROWS: dict[str, tuple[str, Callable[[], nn.Module], str, Penalty | None]] = {
    "relu": ("exact", nn.ReLU, "forward", None),
    "leaky": ("exact", nn.LeakyReLU, "red-black", L1(1e-3)),
    "prelu": ("band", lambda: nn.PReLU(dtype=torch.float64), "backward-forward", None),
    "relu6": ("penalty", nn.ReLU6, "forward", SparseGroupLasso(1e-3, 0.5)),
    "hardtanh": ("band", nn.Hardtanh, "output-to-input", L1(1e-3)),
    "elu": ("penalty-exact", nn.ELU, "red-black", None),
    "tanh": ("band", nn.Tanh, "forward", NuclearNorm(1e-3)),
    "sigmoid": ("band", nn.Sigmoid, "red-black", GroupMCP(1e-3)),
    "softplus": ("penalty", nn.Softplus, "output-to-input", GroupLasso(1e-3)),
    "gelu": ("exact", nn.GELU, "backward-forward", None),
    "silu": ("penalty", nn.SiLU, "red-black", GroupLasso(1e-3)),
    "sign": ("exact", Sign, "output-to-input", SparseGroupLasso(1e-3, 0.5)),
    "quantizer": ("exact", lambda: Quantizer([-1.0, -0.3, 0.4, 1.0]), "forward", NuclearNorm(1e-3)),
    "units": ("coordinates", nn.ReLU, "red-black", GroupMCP(1e-3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_no_block_raises_the_objective_in_thirty_sweeps_and_five_seeds(row: str) -> None:
    coupling, activation, order, penalty = ROWS[row]
    widths = (3, 4, 3, 2) if row in ("relu", "leaky") else (3, 4, 2)
    for seed in range(5):
        trainer = AMTrainer(
            network(seed, widths, activation),
            coupling=COUPLINGS[coupling],
            order=ORDERS[order],
            rho=0.5,
            penalties={} if penalty is None else {"0": penalty, "2": penalty},
        )
        check_every_block(trainer, labelled(seed, 20, 3, 2), sweeps=30)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU])
@pytest.mark.parametrize("coupling", ["penalty", "exact"])
def test_whatever_the_activation(coupling: str, activation: type[nn.Module]) -> None:
    trainer = AMTrainer(network(1, activation=activation), coupling=COUPLINGS[coupling], rho=0.5)
    check_every_block(trainer, labelled(1), sweeps=10)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_majorized_weights_neither(coupling: str, order: str) -> None:
    trainer = AMTrainer(
        network(2), coupling=COUPLINGS[coupling], order=ORDERS[order], w_solver=MajorizedWeights(), rho=0.5
    )
    check_every_block(trainer, labelled(2), sweeps=12)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.ReLU6, nn.Hardtanh, nn.Tanh, nn.ELU, nn.Sigmoid])
def test_whatever_the_monotone_activation_in_a_band(activation: type[nn.Module]) -> None:
    check_every_block(AMTrainer(network(1, activation=activation), coupling=Band(0.3, 1.0), rho=0.5), labelled(1), 10)


@pytest.mark.parametrize(
    "penalty",
    [L1(1e-3), GroupLasso(1e-3), SparseGroupLasso(1e-3, 0.5), GroupMCP(1e-3), NuclearNorm(1e-3)],
    ids=repr,
)
def test_whatever_the_penalty(penalty: Penalty) -> None:
    for seed in range(2):
        trainer = AMTrainer(network(seed), penalties={"0": penalty, "2.weight": penalty}, rho=0.5)
        check_every_block(trainer, labelled(seed), sweeps=10)


@pytest.mark.parametrize("solver", [ExactWeights(), ExactWeights(0.5)], ids=repr)
def test_whatever_the_solver(solver: WeightSolver) -> None:
    check_every_block(AMTrainer(network(), w_solver=solver, rho=0.5), labelled(), sweeps=10)


@pytest.mark.parametrize("safeguard", ["sweep", "block"])
@pytest.mark.parametrize("coupling", ["band", "penalty", "exact"])
def test_no_accepted_sweep_raises_the_objective_whatever_the_inertia(coupling: str, safeguard: str) -> None:
    draws = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).tolist()
    restarts = 0
    for seed, p in enumerate(draws):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = AMTrainer(
                network(seed),
                coupling=COUPLINGS[coupling],
                inertia=(1.5 * p[0], 1.5 * p[1], 1.5 * p[2]),
                safeguard="block" if safeguard == "block" else "sweep",
                balance=0,
            )
        trainer.start(*labelled(seed))
        before = float(trainer._started()[0].objective())
        for _ in range(20):
            after = trainer.sweep().objective
            assert after <= before * (1 + 1e-10)
            before = after
        restarts += trainer._started()[1].restarts
    assert restarts > 0


def test_a_restart_restores_the_bits() -> None:
    trainer = AMTrainer(network())
    trainer.start(*labelled())
    for _ in range(4):
        trainer.sweep()
    blocks, _ = trainer._started()
    saved = blocks.snapshot()
    bits = [p.detach().clone() for p in trainer.model.parameters()]
    codes = [one.layer.z.now.clone() for one in saved]
    objective = blocks.objective()
    blocks.sweep(Inertia(3.0, 3.0, 2.0))
    assert blocks.objective() > objective
    blocks.restore(saved)
    assert torch.equal(blocks.objective(), objective)
    assert all(torch.equal(old, new) for old, new in zip(bits, trainer.model.parameters(), strict=True))
    for layer, old, code in zip(blocks.problem.layers, saved, codes, strict=True):
        assert vars(layer) == vars(old.layer)
        assert torch.equal(layer.z.now, code)


def test_a_repeated_sweep_is_the_plain_one() -> None:
    with pytest.warns(UserWarning, match="inertia"):
        wild = AMTrainer(network(), inertia=(3.0, 3.0, 2.0), balance=0)
    plain = AMTrainer(network(), inertia=(0, 0, 0), balance=0)
    for trainer in (wild, plain):
        trainer.start(*labelled())
    for _ in range(4):
        assert wild.sweep().objective == plain.sweep().objective
    # The first sweep has no history, but its third step.
    assert wild.report()["restarts"] == [1, 2, 3, 4]


def test_changes_of_the_blocks_go_to_zero() -> None:
    for inertia in ((0, 0, 0), (0.633, 0.633, 0.5)):
        trainer = AMTrainer(network(), inertia=inertia, mu=1.0, rho=1.0, balance=0)
        trainer.start(*labelled())
        layers = trainer._started()[0].problem.layers
        smallest: list[float] = []
        for _ in range(500):
            before = [(layer.weight.now, layer.z.now) for layer in layers]
            trainer.sweep()
            change = sum(
                float((layer.weight.now - w).square().sum() + (layer.z.now - z).square().sum())
                for layer, (w, z) in zip(layers, before, strict=True)
            )
            smallest.append(min([change, *smallest[-1:]]))
        assert smallest[-1] < 1e-4 * smallest[0]


def test_a_strongly_convex_problem_converges_linearly_and_faster_with_inertia() -> None:
    """Linear activations: log(F - F*) falls at least along a line."""
    slopes: dict[bool, float] = {}
    for inertia in ((0.0, 0.0, 0.0), (0.633, 0.633, 0.5)):
        trainer = AMTrainer(
            network(widths=(5, 4, 3), activation=nn.Identity),
            loss=Squared(),
            inertia=inertia,
            mu=2.0,
            rho=1.0,
            balance=0,
        )
        trainer.start(*targets())
        objectives = [trainer.sweep().objective for _ in range(500)]
        limit = objectives[-1] - 1e-13
        gap = [value - limit for value in objectives]
        tail = [g for g in gap if 1e-8 < g < 0.1]
        first, last = tail[: len(tail) // 2], tail[len(tail) // 2 :]
        rate = [(torch.tensor(part).log()[-1] - torch.tensor(part).log()[0]) / len(part) for part in (first, last)]
        assert len(tail) >= 10
        assert rate[1] < 0.5 * rate[0] < 0
        slopes[any(inertia)] = float(rate[1])
    assert slopes[True] < 1.5 * slopes[False]


@pytest.mark.slow
@pytest.mark.parametrize("coupling", [QuadraticPenalty, Exact])
def test_the_default_inertia_needs_less_than_half_of_the_sweeps(coupling: Callable[[], Coupling]) -> None:
    for seed in range(3):
        reached: dict[bool, list[float]] = {}
        for inertia in ((0.0, 0.0, 0.0), (0.633, 0.633, 0.5)):
            trainer = AMTrainer(
                network(seed, (12, 32, 32, 4)), coupling=coupling(), inertia=inertia, mu=1e-3, balance=0
            )
            trainer.start(*labelled(seed, 400, 12, 4))
            reached[any(inertia)] = [trainer.sweep().objective for _ in range(60 if any(inertia) else 150)]
        assert min(reached[True]) <= reached[False][-1]
