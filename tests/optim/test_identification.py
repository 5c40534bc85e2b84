"""Dual averaging finds the solution's structure after finitely many steps and stays with it; proximal SGD does not."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from openwork.optim import RAMDA, RMDA, ProximalOptimizer, ProxSGD
from openwork.partitions import Blocks
from openwork.penalties import GroupLasso, NuclearNorm, Penalty

SAMPLES, BATCH, NOISE, STEPS, SEEDS = 1000, 20, 0.5, 1000, 3


class LeastSquares:
    """Half the mean squared error of ``inputs @ weight`` with a planted weight."""

    def __init__(self, planted: Tensor) -> None:
        generator = torch.Generator().manual_seed(6)
        self.inputs = torch.randn(SAMPLES, planted.shape[0], generator=generator, dtype=torch.float64)
        noise = torch.randn(SAMPLES, planted.shape[1], generator=generator, dtype=torch.float64)
        self.targets = self.inputs @ planted + NOISE * noise

    def gradient(self, weight: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        inputs = self.inputs[rows]
        return inputs.T @ (inputs @ weight - self.targets[rows]) / len(inputs)

    def solution(self, penalty: Penalty) -> Tensor:
        step = 1 / torch.linalg.matrix_norm(self.inputs.T @ self.inputs / SAMPLES, ord=2)
        weight = torch.zeros_like(self.inputs.T @ self.targets)
        for _ in range(1000):
            weight = penalty.prox(weight - step * self.gradient(weight), step)
        assert (weight - penalty.prox(weight - step * self.gradient(weight), step)).abs().max() < 1e-12
        return weight

    def trained(
        self, method: Callable[..., ProximalOptimizer], seeds: Sequence[int], **options
    ) -> tuple[list[nn.Parameter], ProximalOptimizer]:
        """A weight for each seed, which draws its batches; one optimizer steps all of them in the time of one."""
        zeros = torch.zeros_like(self.inputs.T @ self.targets)
        weights = [nn.Parameter(zeros.clone()) for _ in seeds]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        optimizer = method(weights, **options)
        for _ in range(STEPS):
            for weight, generator in zip(weights, generators, strict=True):
                rows = torch.randint(SAMPLES, (BATCH,), generator=generator)
                weight.grad = self.gradient(weight.detach(), rows)
            optimizer.step()
        return weights, optimizer


def planted(shape: tuple[int, int]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def groups() -> tuple[LeastSquares, Penalty, Tensor]:
    """200 inputs, each of the 20 groups a run of ten; one target, so that a group is a run of the weight's rows."""
    weight = planted((200, 1))
    weight[50:] = 0
    problem, penalty = LeastSquares(weight), GroupLasso(0.25, Blocks((10, 1)))
    return problem, penalty, penalty.structure(problem.solution(penalty)).kept


@pytest.fixture(scope="module")
def ranks() -> tuple[LeastSquares, Penalty, Tensor]:
    problem, penalty = LeastSquares(planted((12, 3)) @ planted((3, 8))), NuclearNorm(1.0)
    return problem, penalty, penalty.structure(problem.solution(penalty)).kept


AVERAGED = [pytest.param(RMDA, 0.02), pytest.param(RMDA, 0.1), pytest.param(RAMDA, 0.01), pytest.param(RAMDA, 0.02)]


@pytest.mark.parametrize("experiment", ["groups", "ranks"])
@pytest.mark.parametrize(("method", "lr"), AVERAGED)
def test_dual_averaging_settles_on_the_structure_of_the_solution(method, lr, experiment, request):
    problem, penalty, kept = request.getfixturevalue(experiment)
    weights, optimizer = problem.trained(method, range(SEEDS), lr=lr, averaging=0.05, penalty=penalty)
    assert all(torch.equal(optimizer.structures()[weight].kept, kept) for weight in weights)
    # Those of whichever seed changes last.
    assert optimizer.read_out().steps_unchanged >= STEPS / 2


def test_the_solutions_have_the_planted_structure(groups, ranks):
    assert groups[2].flatten().tolist() == [True] * 5 + [False] * 15
    assert ranks[2].tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize("seed", range(SEEDS))
def test_proximal_sgd_does_not_settle(seed, groups):
    problem, penalty, _ = groups
    _, optimizer = problem.trained(ProxSGD, [seed], lr=0.02, averaging=1.0, penalty=penalty)
    assert optimizer.read_out().steps_unchanged < STEPS / 2
