from math import inf, nan
from typing import Any

import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from openwork.altmin import CrossEntropy, Hinge, Huber, Logistic, OutputLoss, Squared
from openwork.altmin.losses import newton_step

RHOS = (1e-6, 1e-3, 0.1, 1.0, 100.0)
ENTRYWISE = {"squared": Squared(0.7), "huber": Huber(0.6), "hinge": Hinge(), "logistic": Logistic()}


def logits(rows: int, classes: int, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    c, z = torch.randn(2, rows, classes, dtype=torch.float64, generator=generator) * scale
    return c, torch.randint(classes, (rows,), generator=generator), z


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_the_gradient_vanishes_at_the_prox_of_cross_entropy(rho: float, scale: float) -> None:
    c, y, z = logits(60, 5, scale)
    found = CrossEntropy().prox(c, y, rho, z)
    gradient = CrossEntropy().gradient(found, y) + rho * (found - c)
    assert gradient.norm() < 1e-8
    from_c = CrossEntropy().prox(c, y, torch.tensor(rho, dtype=torch.float64), c)
    assert ((from_c - found) * min(rho, 1.0)).norm() < 1e-8


@pytest.mark.parametrize("rho", RHOS)
def test_the_prox_of_cross_entropy_is_that_of_scipy(rho: float) -> None:
    c, y, z = logits(3, 4)
    found = CrossEntropy().prox(c, y, rho, z)
    for row in range(3):

        def cost(v, row=row):
            v = torch.tensor(v)
            loss = v.logsumexp(0) - v[y[row]] + rho / 2 * (v - c[row]).square().sum()
            slope = v.softmax(0) + rho * (v - c[row])
            slope[y[row]] -= 1
            return float(loss), slope.numpy()

        reference: Any = minimize(cost, c[row].numpy(), jac=True, method="BFGS", options={"gtol": 1e-9})
        assert cost(found[row].numpy())[0] <= reference.fun + 1e-9
        if rho >= 0.1:
            torch.testing.assert_close(found[row], torch.tensor(reference.x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rho", RHOS)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_stay_finite(rho: float, size: float) -> None:
    c = torch.zeros(4, 3, dtype=torch.float64)
    c[:2, 0] = size
    c[2:, 1] = size
    y = torch.tensor([0, 1, 2, 1])
    for dtype in (torch.float64, torch.float32):
        z = CrossEntropy().prox(c.to(dtype), y, rho, c.to(dtype))
        assert z.isfinite().all() and z.dtype == dtype
        assert CrossEntropy().value(c.to(dtype), y).isfinite()
    z = CrossEntropy().prox(c, y, rho, torch.zeros_like(c))
    gradient = CrossEntropy().gradient(z, y) + rho * (z - c)
    assert gradient.norm() < 1e-8 * max(1.0, rho)


@pytest.mark.parametrize("rho", [1e-6, 1e-2, 1.0])
def test_the_newton_step_solves_the_dense_system(rho: float) -> None:
    c, _, g = logits(50, 6, 4.0)
    p = c.softmax(1)
    hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert torch.linalg.matrix_norm(hessian, 2).max() <= 0.5 + 1e-12
    dense = torch.linalg.solve(hessian + rho * torch.eye(6, dtype=torch.float64), g)
    torch.testing.assert_close(newton_step(p.T, g.T, rho).T, dense, rtol=1e-8, atol=1e-8)


def test_the_hessian_reaches_one_half() -> None:
    p = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    v = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(newton_step(p.T, v.T, 0.3), v.T / 0.8)


def test_the_prox_never_loses_against_the_present_point_and_writes_nothing() -> None:
    c, y, z = logits(40, 4)
    given = c.clone(), z.clone()
    for rho in (0.049, 0.051):
        best = CrossEntropy().prox(c, y, rho, z)
        again = CrossEntropy().prox(c, y, rho, best)
        torch.testing.assert_close(again, best, rtol=0, atol=1e-9)
    assert torch.equal(c, given[0]) and torch.equal(z, given[1])


@pytest.mark.parametrize("loss", ENTRYWISE.values(), ids=ENTRYWISE)
@pytest.mark.parametrize("rho", RHOS)
def test_the_prox_of_an_entrywise_loss_is_that_of_scipy(loss: OutputLoss, rho: float) -> None:
    generator = torch.Generator().manual_seed(1)
    c = torch.randn(4, 2, dtype=torch.float64, generator=generator) * 3
    y = torch.randn(4, 2, dtype=torch.float64, generator=generator)
    y = y.sign() if isinstance(loss, Hinge | Logistic) else y
    z = loss.prox(c, y, rho, torch.zeros_like(c))
    torch.testing.assert_close(loss.prox(c, y, torch.tensor(rho, dtype=torch.float64), c), z, rtol=0, atol=1e-9)
    for point, center, target in zip(z.flatten(), c.flatten(), y.flatten(), strict=True):

        def cost(v, center=center, target=target):
            value = loss.value(torch.tensor([[v]], dtype=torch.float64), target.view(1, 1))
            return float(value + rho / 2 * (v - center) ** 2)

        width = abs(float(center)) + 3 + min(30.0, 2 / rho)
        reference: Any = minimize_scalar(cost, bounds=(-width, width), method="bounded", options={"xatol": 1e-8})
        assert cost(float(point)) <= reference.fun + 1e-12 * (1 + abs(reference.fun))


@pytest.mark.parametrize("loss", [*ENTRYWISE.values(), CrossEntropy()], ids=[*ENTRYWISE, "cross_entropy"])
def test_the_gradient_is_that_of_the_value(loss: OutputLoss) -> None:
    c, y, z = logits(9, 3)
    targets = y if isinstance(loss, CrossEntropy) else c.sign() if isinstance(loss, Hinge | Logistic) else c
    z.requires_grad_()
    loss.value(z, targets).backward()
    torch.testing.assert_close(loss.gradient(z.detach(), targets), z.grad)
    assert loss.value(z.detach().float(), targets).dtype == torch.float64


@pytest.mark.parametrize(
    ("loss", "y", "outputs", "message"),
    [
        (
            CrossEntropy(),
            torch.zeros(2),
            3,
            r"CrossEntropy: y must hold class numbers as torch.int64, got torch.float32",
        ),
        (CrossEntropy(), torch.tensor([0, 3]), 3, r"labels must be in 0, \.\.\., 2 for 3 outputs, got 0 to 3"),
        (CrossEntropy(), torch.tensor([-1, 2]), 3, r"labels must be in 0, \.\.\., 2 for 3 outputs, got -1 to 2"),
        (CrossEntropy(), torch.tensor([[0], [1]]), 3, r"y must be of shape \(2,\), got \(2, 1\); reshape it"),
        (CrossEntropy(), torch.tensor([0, 0]), 1, r"must have two or more outputs, got 1; use Logistic"),
        (CrossEntropy(), torch.zeros(0, dtype=torch.int64), 3, r"there are no samples; pass at least one row"),
        (Squared(), torch.zeros(0, 3), 3, r"Squared: there are no samples"),
        (Squared(), torch.zeros(2), 1, r"y must be of shape \(2, 1\), got \(2,\)"),
        (Squared(), torch.zeros(2, 1, dtype=torch.int64), 1, r"must hold floating-point targets, got torch.int64"),
        (Huber(), torch.tensor([[0.0], [nan]]), 1, r"Huber: y has entries that are NaN or infinite"),
        (Hinge(), torch.tensor([[1.0], [0.0]]), 1, r"Hinge: y must hold \+1 and -1 only, got 0; use 2 \* y - 1"),
        (Logistic(), torch.tensor([[1.0], [inf]]), 1, r"Logistic: y has entries that are NaN or infinite"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OutputLoss) else "",
)
def test_labels_that_do_not_fit_are_refused(loss: OutputLoss, y: Tensor, outputs: int, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        loss.check(y, outputs, len(y))


def test_labels_that_fit_are_taken() -> None:
    CrossEntropy().check(torch.tensor([0, 2]), 3, 2)
    Hinge().check(torch.tensor([[1.0, -1.0]]), 2, 1)
    Huber().check(torch.randn(4, 2), 2, 4)


@pytest.mark.parametrize("make", [Squared, Huber])
@pytest.mark.parametrize("value", [0.0, -1.0, nan, inf])
def test_weights_must_be_positive(make, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__}: \w+ must be > 0 and finite, got {value}"):
        make(value)
