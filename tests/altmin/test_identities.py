"""Special cases that are other methods, and what must not change a result."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import (
    AMTrainer,
    Band,
    Exact,
    Inertia,
    LinearLink,
    MajorizedWeights,
    Nesterov,
    QuadraticPenalty,
    Squared,
    forward,
    mdlam,
    red_black,
    tiam,
)
from openwork.altmin.orders import Visit
from openwork.penalties import L1
from tests.altmin.tasks import blocks_of, labelled, linear, network, targets


def weights(trainer: AMTrainer) -> list[Tensor]:
    return [layer.weight.now for layer in trainer._started()[0].problem.layers]


def run(trainer: AMTrainer, sweeps: int, seed: int = 0) -> list[Tensor]:
    trainer.start(*labelled(seed))
    for _ in range(sweeps):
        trainer.sweep()
    return weights(trainer)


def test_without_inertia_tiam_is_mdlam() -> None:
    band = Band(0.5, 0.9, 0.1)
    ours = tiam(network(), inertia=(0, 0, 0), band=band)
    theirs = mdlam(network(), inertia=(0, 0, 0), band=band)
    for trainer in (ours, theirs):
        trainer.start(*labelled())
    for _ in range(8):
        assert ours.sweep().objective == theirs.sweep().objective
        assert all(torch.equal(a, b) for a, b in zip(weights(ours), weights(theirs), strict=True))


@dataclass
class Weights:
    """Equal inertias p1 = p2 = w_k from a list."""

    values: list[float]

    def at(self, clock: int) -> Inertia:
        return Inertia(self.values[clock], self.values[clock])

    def unstable(self) -> str | None:
        return None


def test_equal_inertias_with_nesterovs_weights_are_nesterov() -> None:
    values, t = [], 1.0
    for _ in range(8):
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        values.append((t - 1) / following)
        t = following
    ours = run(AMTrainer(network(), inertia=Nesterov()), 8)
    by_hand = run(AMTrainer(network(), inertia=Weights(values)), 8)
    assert all(torch.equal(a, b) for a, b in zip(ours, by_hand, strict=True))


LEAST_SQUARES = {
    "ista": (0.0, 0.0),
    "fista": None,
    "heavy-ball": (0.5, 0.0),
    "ipalm": (0.5, 0.3),
}


@pytest.mark.parametrize("method", LEAST_SQUARES)
@pytest.mark.parametrize("lam", [0.0, 0.05])
def test_one_layer_with_squared_loss_is_proximal_gradient_on_least_squares(method: str, lam: float) -> None:
    x, y = targets()
    p = LEAST_SQUARES[method]
    model = nn.Sequential(nn.Linear(5, 3, bias=False, dtype=torch.float64))
    trainer = AMTrainer(
        model,
        # So heavy a loss puts z at the targets, which leaves rho/2 ||W x - y||^2.
        loss=Squared(1e13),
        rho=1.0,
        mu=0.0,
        inertia=Nesterov() if p is None else (*p, 0.0),
        penalties={"0": L1(lam / 40)} if lam else {},
        safeguard="none",
        w_solver=MajorizedWeights(),
    )
    trainer.start(x, y)
    trainer.sweep()
    layer = trainer._started()[0].problem.layers[0]
    layer.forget()
    now = before = layer.weight.now
    step, t = 1 / float(layer.weight_curvature), 1.0
    trainer._started()[1].clock = 0
    for _ in range(15):
        trainer.sweep()
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        p1, p2 = ((t - 1) / following,) * 2 if p is None else p
        t = following
        at, base = now + p2 * (now - before), now + p1 * (now - before)
        v = base - step * (x @ at.T - y).T @ x
        before, now = now, v.sign() * (v.abs() - lam * step).clamp(min=0)
        torch.testing.assert_close(layer.weight.now, now, rtol=1e-8, atol=1e-9)


def test_one_layer_with_a_large_rho_follows_logistic_regression() -> None:
    x, y = labelled()
    model = nn.Sequential(nn.Linear(5, 3, bias=False, dtype=torch.float64))
    trainer = AMTrainer(model, rho=1e5, mu=0.0, inertia=(0, 0, 0), w_solver=MajorizedWeights())
    trainer.start(x, y)
    trainer.sweep()
    layer = trainer._started()[0].problem.layers[0]
    for _ in range(4):
        weight = layer.weight.now
        # The blocks know the gradient at the outputs they were left with.
        gradient = ((x @ weight.T).softmax(1) - nn.functional.one_hot(y, 3)).T @ x
        theta = trainer.sweep().theta[0]
        torch.testing.assert_close(theta * (layer.weight.now - weight), -gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("coupling", [Exact(), QuadraticPenalty(), Band(0.5, 1.0)], ids=repr)
def test_inertia_is_live(coupling: Exact | QuadraticPenalty | Band) -> None:
    solver = MajorizedWeights()
    plain = run(AMTrainer(network(), coupling=coupling, inertia=(0, 0, 0), w_solver=solver), 2)
    for p in ((0.5, 0.5, 0.0), (0.0, 0.0, 0.5), (0.5, 0.0, 0.0)):
        moved = run(AMTrainer(network(), coupling=coupling, inertia=p, w_solver=solver), 2)
        assert max(float((a - b).abs().max()) for a, b in zip(plain, moved, strict=True)) > 1e-6


def test_weights_of_different_layers_do_not_see_each_other() -> None:
    """Given all codes, so that a red-black phase may run in parallel."""
    visits = [visit for visit in red_black(3) if visit.block in "Wb"]
    results: list[list[Tensor]] = []
    for order in (visits, [*visits[4:], *visits[:4]], [*visits[2:4], *visits[4:], *visits[:2]]):
        trainer = AMTrainer(network())
        run(trainer, 3)
        for visit in order:
            blocks_of(trainer).move(visit, Inertia(0.5, 0.5, 0.3))
        results.append(weights(trainer))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_codes_two_layers_apart_do_not_see_each_other() -> None:
    codes = [visit for visit in red_black(4) if visit.block == "z" and visit.layer < 3]
    assert codes == [Visit("z", 1), Visit("z", 0), Visit("z", 2)]
    results: list[list[Tensor]] = []
    for order in (codes, [codes[0], codes[2], codes[1]]):
        trainer = AMTrainer(network(widths=(5, 6, 6, 6, 3)))
        run(trainer, 2)
        for visit in order:
            blocks_of(trainer).move(visit, Inertia())
        results.append([layer.z.now for layer in trainer._started()[0].problem.layers])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_order_of_samples_does_not_matter() -> None:
    x, y = labelled()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(6))
    one, other = AMTrainer(network()), AMTrainer(network())
    one.start(x, y)
    other.start(x[order], y[order])
    for _ in range(10):
        one.sweep()
        other.sweep()
    for a, b in zip(weights(one), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_order_of_units_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    # The power method starts at a vector that knows the order.
    monkeypatch.setattr(LinearLink, "weight_curvature", lambda self, x, *_: torch.linalg.matrix_norm(x, 2) ** 2)
    monkeypatch.setattr(LinearLink, "input_curvature", lambda self, *_: torch.linalg.matrix_norm(self.weight, 2) ** 2)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(6))
    model, shuffled = network(), network()
    with torch.no_grad():
        linear(shuffled, 0).weight.copy_(linear(model, 0).weight[order])
        linear(shuffled, 0).bias.copy_(linear(model, 0).bias[order])
        linear(shuffled, 2).weight.copy_(linear(model, 2).weight[:, order])
    first, second = run(AMTrainer(model), 12), run(AMTrainer(shuffled), 12)
    torch.testing.assert_close(first[0][order], second[0], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(first[1][:, order], second[1], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(first[2], second[2], rtol=1e-9, atol=1e-10)


def test_orders_visit_every_block() -> None:
    assert [f"{block}{layer}" for block, layer in forward(2)] == ["W0", "b0", "z0", "a0", "W1", "b1", "z1"]
    names = [f"{block}{layer}" for block, layer in red_black(3)]
    assert names == ["W0", "b0", "W1", "b1", "W2", "b2", "z2", "z1", "a1", "z0", "a0"]


@pytest.mark.gpu
def test_a_device_gives_the_same_numbers() -> None:
    x, y = labelled()
    cpu, cuda = AMTrainer(network()), AMTrainer(network().cuda())
    cpu.start(x, y)
    cuda.start(x.cuda(), y.cuda())
    for _ in range(15):
        cpu.sweep()
        cuda.sweep()
    for a, b in zip(weights(cpu), weights(cuda), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_sweep_does_not_wait_for_a_device() -> None:
    x, y = labelled()
    trainer = AMTrainer(network().cuda())
    trainer.start(x.cuda(), y.cuda())
    trainer.sweep()
    blocks, _ = trainer._started()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            blocks.sweep(Inertia(0.5, 0.5, 0.3))
    finally:
        torch.cuda.set_sync_debug_mode("default")
