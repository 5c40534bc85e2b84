"""Dead units leave the network while it trains, and nothing else changes."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, Exact, MajorizedWeights, Sign, SignHomotopy
from openwork.partitions import Blocks, Slices
from openwork.penalties import GroupLasso, Penalty
from tests.altmin.tasks import labelled, linear, network

BY_COLUMN = GroupLasso(0.002, Slices(1), weight="one")


def killed(
    trainer: AMTrainer, *, rows: dict[int, list[int]] | None = None, columns: dict[int, list[int]] | None = None
) -> tuple[Tensor, Tensor]:
    """Train for some sweeps, then set rows and columns of weights, by layer, to zero."""
    x, y = labelled()
    trainer.start(x, y)
    for _ in range(6):
        trainer.sweep()
    problem = trainer._started()[0].problem
    for index, layer in enumerate(problem.layers):
        weight = layer.weight.now.clone()
        weight[(rows or {}).get(index, [])] = 0
        weight[:, (columns or {}).get(index, [])] = 0
        layer.set_weight(weight)
    trainer._started()[0].recompute()
    return x, y


def widths(model: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, Sign])
def test_outputs_stay_and_constants_move_on(activation: type[nn.Module]) -> None:
    trainer = AMTrainer(network(activation=activation))
    x, _ = killed(trainer, rows={0: [1, 4], 1: [0]}, columns={1: [2, 4], 2: [5]})
    outputs = trainer.model(x)
    assert trainer.remove_dead() == 5
    assert widths(trainer.model) == [(5, 4), (4, 4), (4, 3)]
    torch.testing.assert_close(trainer.model(x), outputs, rtol=1e-12, atol=1e-12)
    assert trainer.remove_dead() == 0


def test_the_objective_loses_the_terms_of_units_that_nobody_reads_and_nothing_else() -> None:
    trainer = AMTrainer(network(), penalties={"0": GroupLasso(0.01, Slices(0), weight="one")}, rho=0.5)
    killed(trainer, columns={1: [2, 5]})
    blocks = trainer._started()[0]
    layer = blocks.problem.layers[0]
    dead = layer.weight.now[[2, 5]]
    terms = 0.25 * layer.residual[:, [2, 5]].square().sum() + layer.mu / 2 * dead.square().sum()
    terms = terms + 0.01 * layer.penalty_weight * dead.norm(dim=1).sum()
    before = float(blocks.objective())
    assert trainer.remove_dead() == 2
    assert float(blocks.objective()) == pytest.approx(before - float(terms), rel=1e-12)


def test_everything_goes_on_and_later_sweeps_are_those_of_the_small_network() -> None:
    trainer = AMTrainer(network(), rho=0.5, penalties={"2": BY_COLUMN}, balance=0)
    x, y = killed(trainer, rows={1: [3]}, columns={1: [0, 6]})
    assert trainer.remove_dead() >= 3
    small = AMTrainer(deepcopy(trainer.model), rho=0.5, penalties={"2": BY_COLUMN}, balance=0)
    small.start(x, y)
    small.load_state_dict(trainer.state_dict())
    before = float(trainer._started()[0].objective())
    for _ in range(5):
        measured = trainer.sweep()
        assert measured.objective < before
        before = measured.objective
        assert small.sweep().objective == measured.objective
    trainer._started()[0].problem.recompute()
    assert float(trainer._started()[0].objective()) == pytest.approx(before, rel=1e-10)
    assert trainer.fit(x, y, 3) is trainer.model
    assert trainer.report()["forward_loss"]
    assert [p.is_leaf and p.requires_grad for p in trainer.model.parameters()] == [True] * 6


def test_in_chunks_it_is_the_same() -> None:
    trainers = [
        AMTrainer(network(), rho=0.5, penalties={"2": BY_COLUMN}, coupling=Exact(fresh=True), chunk_size=size,
                  w_solver=MajorizedWeights(fresh=True), inertia=(0, 0, 0))
        for size in (None, 16)
    ]  # fmt: skip
    objectives: list[list[float]] = []
    for trainer in trainers:
        killed(trainer, rows={1: [3]}, columns={1: [0, 6]})
        assert trainer.remove_dead() == 3
        objectives.append([trainer.sweep().objective for _ in range(5)])
    assert objectives[0] == pytest.approx(objectives[1], rel=1e-9)


def test_sweeps_get_cheaper() -> None:
    trainer = AMTrainer(network(widths=(5, 40, 3)))
    killed(trainer, columns={1: list(range(30))})
    links = [layer.link for layer in trainer._started()[0].problem.layers]
    before = sum(link.macs(40) for link in links)
    assert trainer.remove_dead() == 30
    assert sum(link.macs(40) for link in links) * 4 == before
    shapes = {tuple(t.shape) for layer in trainer._started()[0].problem.layers for t in (layer.z.now, layer.residual)}
    assert shapes == {(40, 10), (40, 3)}


def test_a_penalty_makes_units_go_while_it_trains() -> None:
    x, y = labelled()
    trainer = AMTrainer(network(), penalties={"2": GroupLasso(0.015, Slices(1))}, readout=False, rho=1.0)
    trainer.start(x, y)
    removed = 0
    for _ in range(6):
        for _ in range(10):
            trainer.sweep()
        outputs = trainer.model(x)
        removed += trainer.remove_dead()
        torch.testing.assert_close(trainer.model(x), outputs, rtol=1e-12, atol=1e-12)
    assert removed > 0
    assert widths(trainer.model)[0][1] == widths(trainer.model)[1][0] == 7 - removed


def test_best_weights_of_other_shapes_are_forgotten() -> None:
    trainer = AMTrainer(network(), readout=False)
    x, _ = killed(trainer, columns={1: [0]})
    trainer.evaluate()
    for layer in trainer._started()[0].problem.layers:
        layer.set_weight(layer.weight.now * 1.5)
    trainer.evaluate()
    trainer.remove_dead()
    outputs = trainer.model(x)
    assert torch.equal(trainer.finish()(x), outputs)


def test_what_goes_leaves_others_without_readers() -> None:
    trainer = AMTrainer(network())
    killed(trainer, columns={2: [1]})
    problem = trainer._started()[0].problem
    weight = problem.layers[1].weight.now.clone()
    weight[:, 3] = 0
    weight[1, 3] = 1.0  # read by the unit that goes, and by no other
    problem.layers[1].set_weight(weight)
    problem.recompute()
    assert trainer.remove_dead() == 2
    assert widths(trainer.model) == [(5, 6), (6, 5), (5, 3)]


def no_bias() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)).double()


def slopes() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.PReLU(7), nn.Linear(7, 3)).double()


def flattened() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Flatten(), nn.Linear(7, 3)).double()


@pytest.mark.parametrize(
    ("model", "penalties"),
    [(no_bias(), {}), (slopes(), {}), (flattened(), {}), (network(), {"2": GroupLasso(1e-3, Blocks((1, 7)))})],
    ids=["no bias to move a constant to", "a slope per unit", "a flatten between", "a penalty that would not fit"],
)
def test_units_stay_where_they_cannot_go(model: nn.Sequential, penalties: dict[str, Penalty]) -> None:
    trainer = AMTrainer(model, penalties=penalties)
    killed(trainer, rows={0: [2]})
    assert trainer.remove_dead() == 0
    assert widths(model)[0] == (5, 7)


def test_ramps_keep_their_constants_until_they_are_signs() -> None:
    trainer = AMTrainer(network(activation=Sign), homotopy=SignHomotopy(10))
    killed(trainer, rows={0: [2]}, columns={1: [4]})
    assert trainer.remove_dead() == 1
    for _ in range(5):
        trainer.sweep()
    layer = trainer._started()[0].problem.layers[0]
    weight = layer.weight.now.clone()
    weight[2] = 0
    layer.set_weight(weight)
    assert trainer.remove_dead() == 1


def test_one_unit_stays() -> None:
    trainer = AMTrainer(network(widths=(5, 4, 3)))
    x, _ = killed(trainer, rows={0: [0, 1, 2, 3]})
    outputs = trainer.model(x)
    assert trainer.remove_dead() == 3
    assert widths(trainer.model) == [(5, 1), (1, 3)]
    torch.testing.assert_close(trainer.model(x), outputs, rtol=1e-12, atol=1e-12)
    assert linear(trainer.model, 0).weight.shape == (1, 5)


def test_it_needs_samples() -> None:
    with pytest.raises(RuntimeError, match="there are no samples yet"):
        AMTrainer(network()).remove_dead()
