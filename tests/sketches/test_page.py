"""PAGE: transcription, resuming, safety."""

from math import nan

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.testing import assert_close

from openwork.sketches import PAGE, Key, PermK, SketchedModule
from openwork.sketches.numbers import permutation, uniform
from tests.sketches.members import POOL, D, closure_of, rows, stored


class Rational(nn.Module):
    """Not convex: the mean of ``r^2 / (1 + r^2)`` over residuals r."""

    features: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("features", torch.randn(20, D, dtype=torch.float64, generator=generator))
        self.x = nn.Parameter(torch.randn(D, dtype=torch.float64, generator=generator))

    def forward(self) -> Tensor:
        return loss_at(self.features, self.x)


def loss_at(features: Tensor, x: Tensor) -> Tensor:
    squares = (features @ x - 1).square()
    return (squares / (1 + squares)).mean()


def sketched_loss() -> SketchedModule:
    return SketchedModule(Rational(), PermK(2), shift="zero", key=Key(7))


def gradients(sketched: SketchedModule, x: Tensor, members: list[Tensor]) -> Tensor:
    """Of every member, ``(N, D)``, from the definition."""
    found: list[Tensor] = []
    for s in members:
        y = (s * x).requires_grad_()
        found.append(s * torch.autograd.grad(loss_at(sketched.module.get_buffer("features"), y), y)[0])
    return torch.stack(found)


@pytest.mark.parametrize("refresh_draws", [None, 4])
@pytest.mark.parametrize("draws", [1, 3])
def test_the_algorithm_as_it_is_written(draws: int, refresh_draws: int | None) -> None:
    sketched, lr = sketched_loss(), 0.2
    algorithm = PAGE(SGD(sketched.parameters(), lr=lr), sketched, POOL, draws=draws, refresh_draws=refresh_draws)
    n, p = len(POOL), draws / (draws + len(POOL))
    assert algorithm.refresh == p
    x = sketched.module.get_parameter("x").detach().clone()
    g, old, refreshes, pool = torch.zeros(D), x, 0, rows()
    for t in range(30):
        if t == 0 or float(uniform(Key(7, step=t, family="PAGE: refresh"), 1)) < p:
            order = permutation(Key(7, step=t, family="PAGE: subset"), n)[: refresh_draws or n]
            g, refreshes = gradients(sketched, x, pool)[order].mean(0), refreshes + 1
        else:
            members = (uniform(Key(7, step=t, family="PAGE: members"), draws) * n).long()
            g = g + (gradients(sketched, x, pool)[members] - gradients(sketched, old, pool)[members]).mean(0)
        x, old = x - lr * g, x
        algorithm.step(closure_of(sketched))
    assert 1 < refreshes < 30
    assert_close(sketched.module.get_parameter("x").detach(), x, rtol=0, atol=1e-12)


def test_clipping_in_place_does_not_reach_the_estimator() -> None:
    """A hook of the optimizer may write into gradients; g is the algorithm's own."""
    sketched = sketched_loss()
    optimizer = SGD(sketched.parameters(), lr=0.2)

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(sketched.parameters(), 0.0)

    optimizer.register_step_pre_hook(clip)
    algorithm = PAGE(optimizer, sketched, POOL)
    x = sketched.module.get_parameter("x").detach().clone()
    for _ in range(3):
        algorithm.step(closure_of(sketched))
    assert torch.equal(sketched.module.get_parameter("x"), x)
    # At the same point all differences are zero.
    assert_close(algorithm.state_dict()["gradient"][0], gradients(sketched, x, rows()).mean(0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("at", [0, 7])
def test_a_resumed_run_goes_on_to_the_same_bits(at: int) -> None:
    def begin() -> tuple[SketchedModule, SGD, PAGE]:
        sketched = sketched_loss()
        optimizer = SGD(sketched.parameters(), lr=0.1, momentum=0.9)
        return sketched, optimizer, PAGE(optimizer, sketched, POOL, draws=2)

    parts = begin()
    for _ in range(at):
        parts[2].step(closure_of(parts[0]))
    again = begin()
    for part, state in zip(again, [part.state_dict() for part in parts], strict=True):
        part.load_state_dict(stored(state))
    for _ in range(10):
        assert torch.equal(parts[2].step(closure_of(parts[0])), again[2].step(closure_of(again[0])))
    assert torch.equal(parts[0].module.get_parameter("x"), again[0].module.get_parameter("x"))


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    sketched = sketched_loss()
    algorithm = PAGE(SGD(sketched.parameters(), lr=0.2), sketched, POOL)
    algorithm.step(closure_of(sketched))
    before, state = sketched.module.get_parameter("x").detach().clone(), algorithm.state_dict()
    for _ in range(3):
        algorithm.step(closure_of(lambda: sketched() * nan))
    assert algorithm.skipped == 3
    assert torch.equal(sketched.module.get_parameter("x"), before)
    assert torch.equal(algorithm.state_dict()["gradient"][0], state["gradient"][0])


def test_bad_arguments_are_refused() -> None:
    sketched = sketched_loss()
    optimizer = SGD(sketched.parameters(), lr=0.03)
    with pytest.raises(ValueError, match="PAGE: draws must be at least 1, got 0"):
        PAGE(optimizer, sketched, POOL, draws=0)
    with pytest.raises(ValueError, match="PAGE: refresh_draws must be a number of members from 1 to 6, got 0"):
        PAGE(optimizer, sketched, POOL, refresh_draws=0)
    with pytest.raises(ValueError, match="PAGE: pool is empty"):
        PAGE(optimizer, sketched, [])
