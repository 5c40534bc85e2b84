"""What the transcriptions of the papers' algorithms share: noisy gradients, and a naive solver of the subproblem."""

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from openwork.optim import groups

Gradient = Callable[[Tensor, int], Tensor]
Follow = Callable[[Optimizer, Tensor, int], None]
Solve = Callable[[Tensor, Tensor, float], Tensor]
Through = Callable[[str], None]


@pytest.fixture
def weight() -> Tensor:
    """Five outputs of six inputs; every other input starts small."""
    start = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start[:, ::2] *= 0.1
    return start


@pytest.fixture
def gradient() -> Gradient:
    """Gradient at a weight at time t = 0, 1, ... of a quadratic that does not need every other input, with noise."""
    generator = torch.Generator().manual_seed(2)
    target = torch.randn(5, 6, dtype=torch.float64, generator=generator)
    target[:, ::2] = 0
    noise = 0.2 * torch.randn(100, 5, 6, dtype=torch.float64, generator=generator)
    return lambda weight, time: weight.detach() - target + noise[time]


@pytest.fixture
def follow(gradient: Gradient) -> Follow:
    """One step of an optimizer at time t = 0, 1, ..."""

    def step(optimizer: Optimizer, param: Tensor, time: int) -> None:
        param.grad = gradient(param, time)
        optimizer.step()

    return step


@pytest.fixture
def solve() -> Solve:
    """Minimize ``0.5 x'Dx - b'x + kappa sum_g ||x_g||`` over columns g, by bisection on the norm of each."""

    def one(b: Tensor, d: Tensor, kappa: float) -> Tensor:
        if b.norm() <= kappa:
            return torch.zeros_like(b)
        low, high = 0.0, float((b / d).norm())
        for _ in range(80):
            middle = (low + high) / 2
            if (b / (middle * d + kappa)).norm() > 1:
                low = middle
            else:
                high = middle
        return high * b / (high * d + kappa)

    return lambda b, d, kappa: torch.stack([one(b[:, j], d[:, j], kappa) for j in range(b.shape[1])], dim=1)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Through:
    """Sets the backend of ``compile=True``, whose own one takes up to a minute.

    What ``eager`` captures is the whole step as one graph, with the guards that decide what is compiled again.
    """

    def through(backend: str) -> None:
        compiled = cache(partial(torch.compile, fullgraph=True, recompile_limit=128, backend=backend))  # pyright: ignore[reportCallIssue]
        monkeypatch.setattr(groups, "_compiled", compiled)

    return through
