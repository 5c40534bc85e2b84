"""Blocks W and b: the surrogate's minimizer, the test of the curvature, exact solutions, mean residuals."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, ExactWeights, Inertia, MajorizedWeights, Squared, Visit
from openwork.altmin.curvature import majorized
from openwork.altmin.state import Layer
from openwork.altmin.weight_block import bias_step
from openwork.partitions import Slices
from openwork.penalties import L1, GroupLasso, Penalty
from tests.altmin.tasks import network, targets

PLAIN = Inertia()


def layer_of(rho: float = 0.4, mu: float = 0.3, penalty: Penalty | None = None) -> tuple[Layer, Tensor]:
    """The middle layer of a small network whose residuals are not zero, and its input."""
    trainer = AMTrainer(
        network(),
        loss=Squared(),
        rho=rho,
        mu=mu,
        inertia=(0, 0, 0),
        penalties={} if penalty is None else {"2": penalty},
        w_solver=MajorizedWeights(),
    )
    trainer.start(*targets())
    for _ in range(3):
        trainer.sweep()
    problem = trainer._started()[0].problem
    return problem.layers[1], problem.input_of(1)


def test_the_step_minimizes_its_surrogate() -> None:
    layer, a = layer_of()
    weight, theta0 = layer.weight.now, layer.weight_curvature
    gradient = layer.rho * layer.residual.T @ a + layer.mu * weight
    MajorizedWeights().step(layer, a, PLAIN, constant=False)
    theta = float(layer.weight_curvature * layer.rho + layer.mu)
    assert theta > 0
    assert layer.weight_curvature <= 2 * theta0
    # Minimizer of <G, V - W> + theta/2 ||V - W||^2, as a linear system.
    torch.testing.assert_close(theta * (layer.weight.now - weight), -gradient, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.link.weight, layer.weight.now)


@pytest.mark.filterwarnings("ignore:AMTrainer. the weight of layer 2 shrank")
@pytest.mark.parametrize("penalty", [L1(0.05), GroupLasso(0.05, Slices(1)), GroupLasso(0.05, Slices(0))])
def test_the_penalized_step_is_never_beaten_on_a_grid(penalty: Penalty) -> None:
    layer, a = layer_of(penalty=penalty)
    weight = layer.weight.now
    gradient = layer.rho * layer.residual.T @ a + layer.mu * weight
    MajorizedWeights().step(layer, a, PLAIN, constant=False)
    theta = float(layer.weight_curvature * layer.rho + layer.mu)

    def surrogate(v: Tensor) -> float:
        smooth = (gradient * (v - weight)).sum() + theta / 2 * (v - weight).square().sum()
        return float(smooth + layer.penalty_weight * penalty.value(v))

    best = surrogate(layer.weight.now)
    for offset in torch.linspace(-0.3, 0.3, 31, dtype=torch.float64).tolist():
        for other in (0.0, 0.05, -0.1):
            for i, j in ((0, 0), (2, 3), (5, 6)):
                v = layer.weight.now.clone()
                v[i, j] += offset
                v[i, (j + 1) % 7] += other
                assert surrogate(v) >= best - 1e-12


def test_the_curvature_test_is_the_descent_lemma() -> None:
    layer, a = layer_of()
    weight, rho, mu = layer.weight.now, layer.rho, layer.mu
    rest = layer.residual - a @ weight.T
    generator = torch.Generator().manual_seed(5)

    def f(w: Tensor) -> Tensor:
        return rho / 2 * (a @ w.T + rest).square().sum() + mu / 2 * w.square().sum()

    gradient = rho * layer.residual.T @ a + mu * weight
    for theta in (0.5, 2.0, 8.0):
        change = torch.randn(weight.shape, dtype=torch.float64, generator=generator)
        ours = theta * change.square().sum() - rho * (a @ change.T).square().sum() - mu * change.square().sum()
        lemma = f(weight) + (gradient * change).sum() + theta / 2 * change.square().sum() - f(weight + change)
        torch.testing.assert_close(2 * lemma, ours, rtol=1e-12, atol=1e-12)


def test_a_curvature_that_is_too_small_is_doubled_until_it_holds() -> None:
    layer, a = layer_of()
    weight = layer.weight.now
    true = torch.linalg.matrix_norm(a, 2).square()
    gradient = layer.residual.T @ a
    start = true / 1000
    step = majorized((weight,), start, lambda c: (weight - gradient / c,), lambda d: a @ d.T)
    assert start < step.curvature <= 2 * true
    assert torch.log2(step.curvature / start).item() == pytest.approx(round(torch.log2(step.curvature / start).item()))
    change = step.point[0] - weight
    assert (a @ change.T).square().sum() <= step.curvature * change.square().sum()
    torch.testing.assert_close(step.image, a @ change.T)


def test_a_block_that_no_curvature_fits_says_so() -> None:
    point = torch.ones(2, dtype=torch.float64)
    with pytest.raises(FloatingPointError, match=r"doubled 30 times .* scale the inputs"):
        majorized((point,), point.new_tensor(1.0), lambda c: (point + 1,), lambda d: d * 1e9)


def test_the_exact_step_solves_the_normal_equations() -> None:
    layer, a = layer_of()
    assert layer.bias is not None
    weight, target = layer.weight.now, layer.z.now - layer.bias.now
    before = layer.residual
    ExactWeights(t=0.2).step(layer, a, PLAIN, constant=False)
    left = layer.rho * a.T @ a + (layer.mu + 0.2) * torch.eye(7, dtype=torch.float64)
    right = layer.rho * target.T @ a + 0.2 * weight
    torch.testing.assert_close(layer.weight.now @ left, right, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.residual - before, a @ (layer.weight.now - weight).T)


def test_an_exact_step_needs_no_more_samples_than_there_are() -> None:
    x, y = targets(size=3)
    trainer = AMTrainer(network(), loss=Squared(), mu=0.0, w_solver=ExactWeights(), inertia=(0.0, 0.0, 0.0))
    trainer.start(x, y)
    values = [trainer.sweep().objective for _ in range(5)]
    assert values == sorted(values, reverse=True)
    for t, limit, message in ((-1.0, 1, "t must be >= 0, got -1"), (0.0, -1, "limit must be a number of inputs >= 0")):
        with pytest.raises(ValueError, match=f"ExactWeights: {message}"):
            ExactWeights(t, limit)


def test_the_factor_of_a_constant_input_is_kept_and_follows_rho() -> None:
    layer, a = layer_of()
    ExactWeights().step(layer, a, PLAIN, constant=True)
    kept = layer.factor
    layer.rho, layer.mu = 2 * layer.rho, 2 * layer.mu
    ExactWeights().step(layer, a, PLAIN, constant=True)
    assert layer.factor is kept
    layer.rho = 2 * layer.rho
    other, _ = layer_of()
    for name in ("weight", "residual", "rho", "mu"):
        setattr(other, name, getattr(layer, name))
    ExactWeights().step(layer, a, PLAIN, constant=True)
    ExactWeights().step(other, a, PLAIN, constant=False)
    torch.testing.assert_close(layer.weight.now, other.weight.now, rtol=1e-12, atol=1e-12)
    assert layer.factor is not kept
    assert other.factor is None


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)),
        nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)),
    ],
    ids=["a convolution", "a wide layer"],
)
def test_layers_that_are_not_solved_for_take_majorized_steps(model: nn.Sequential) -> None:
    model = model.to(torch.float64)
    x, y = targets(inputs=8, outputs=2)
    x = x[:, None] if isinstance(model[0], nn.Conv1d) else x
    models = model, deepcopy(model)
    for one, solver in zip(models, (ExactWeights(limit=7), MajorizedWeights()), strict=True):
        trainer = AMTrainer(one, loss=Squared(), w_solver=solver)
        trainer.start(x, y)
        trainer._blocks.move(Visit("W", 0), PLAIN)  # pyright: ignore
    assert torch.equal(*(next(one.parameters()) for one in models))


def test_a_step_of_a_pointwise_convolution_is_that_of_a_linear_layer() -> None:
    x, y = targets(inputs=8, outputs=2)
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    pointwise = nn.Sequential(nn.Conv1d(8, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for own, other in zip(pointwise.parameters(), linear.parameters(), strict=True):
            own.copy_(other.view(own.shape))
    solver = MajorizedWeights()
    first, second = (AMTrainer(model, loss=Squared(), w_solver=solver, balance=3) for model in (linear, pointwise))
    first.start(x, y)
    second.start(x[..., None], y)
    for _ in range(5):
        assert second.sweep().objective == pytest.approx(first.sweep().objective, rel=1e-9)
    for own, other in zip(pointwise.parameters(), linear.parameters(), strict=True):
        torch.testing.assert_close(own, other.view(own.shape), rtol=1e-8, atol=1e-9)


def test_the_bias_takes_the_mean_residual_away() -> None:
    layer, a = layer_of()
    MajorizedWeights().step(layer, a, PLAIN, constant=False)
    bias_step(layer, PLAIN)
    assert layer.residual.mean(0).abs().max() < 1e-15
    assert layer.bias is not None
    at_zero, residual = layer.bias.now, layer.residual
    bias_step(layer, Inertia(0.6, 0.6, 0.0))
    torch.testing.assert_close(layer.bias.now, at_zero, rtol=0, atol=1e-15)
    torch.testing.assert_close(layer.residual, residual, rtol=0, atol=1e-15)


def test_unequal_inertia_shifts_the_bias_by_its_difference() -> None:
    layer, _ = layer_of()
    bias_step(layer, PLAIN)
    assert layer.bias is not None
    now, before = layer.bias.now, layer.bias.before
    assert before is not None
    bias_step(layer, Inertia(0.7, 0.2, 0.0))
    torch.testing.assert_close(layer.bias.now, now + 0.5 * (now - before), rtol=0, atol=1e-15)


def test_in_single_precision_the_units_of_inputs_do_not_matter() -> None:
    """The same network in other units, whose sums of squares differ by a factor of 1e8."""
    x, y = targets()
    ends: list[float] = []
    for scale in (torch.ones(5), torch.tensor([1e4, 1.0, 1.0, 1.0, 1.0])):
        model = network().float()
        with torch.no_grad():
            next(model.parameters()).div_(scale)
        trainer = AMTrainer(model, loss=Squared(), mu=0.0, balance=0, w_solver=ExactWeights())
        trainer.start(x.float() * scale, y.float())
        ends.append([trainer.sweep().objective for _ in range(10)][-1])
    assert ends[1] == pytest.approx(ends[0], rel=1e-3)
