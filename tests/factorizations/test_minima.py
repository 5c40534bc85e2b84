"""Where training ends: minima of the penalty that L2 on the factors stands for."""

from collections.abc import Callable

import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from openwork.factorizations import Entries, Split, collapse, factorize
from openwork.optim import FactorizedSGD


def problem(rows: int = 200, columns: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    truth = torch.zeros(columns, dtype=torch.float64)
    truth[:8] = torch.tensor([2.0, -1.5, 1.0, -0.8, 0.6, -0.4, 0.3, 0.2], dtype=torch.float64)
    return x, x @ truth + 0.3 * torch.randn(rows, generator=generator, dtype=torch.float64)


def descend(loss: Callable[[Tensor], Tensor], weight: nn.Parameter, steps: int, **options) -> Tensor:
    """The collapsed weight after that many steps."""
    generator = torch.Generator().manual_seed(0)
    optimizer = FactorizedSGD([{"params": [weight], "depth": options["depth"]}], generator=generator, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(weight).backward()
        optimizer.step()
    optimizer.settle_()
    return weight.detach()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["model", "optimizer"])
def test_depth_two_is_the_lasso(where: str) -> None:
    x, y = problem()
    lam = 0.1
    wanted = torch.from_numpy(Lasso(lam, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(x, y).coef_)
    layer = nn.Linear(50, 1, bias=False, dtype=torch.float64)
    if where == "model":
        handle = factorize(layer, 2, lam, form=Entries(Split()))
        optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1, momentum=0.9)
    else:
        optimizer = FactorizedSGD(layer.parameters(), lr=0.1, depth=2, lam=lam, momentum=0.9, init=Split())
    for _ in range(3000):
        optimizer.zero_grad()
        # Half of the mean square: scikit-learn's objective.
        ((layer(x)[:, 0] - y).square().mean() / 2).backward()
        optimizer.step()
    if isinstance(optimizer, FactorizedSGD):
        optimizer.settle_()
    else:
        collapse(layer)
    found = layer.weight.detach()[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-8)
    assert torch.equal(found != 0, wanted != 0)
    assert 0 < int((wanted != 0).sum()) < 50


def root(z: float, lam: float, q: float) -> float:
    """The larger solution of w - z + lam q w^(q-1) = 0, by bisection from where the left side is least."""
    low, high = (lam * q * (1 - q)) ** (1 / (2 - q)), z
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle - z + lam * q * middle ** (q - 1) < 0 else (low, middle)
    return low


@pytest.mark.parametrize(("depth", "exists", "switch"), [(3, 4.0, 0.26240), (4, 3.0, 0.32317)])
def test_deeper_is_a_minimum_of_the_power_below_one(depth: int, exists: float, switch: float) -> None:
    lam, q = 0.1, 2 / depth
    least = (lam * q * (1 - q)) ** (1 / (2 - q))
    # The formulas of the example: where a second minimum appears, and where it becomes the lower one.
    assert least * (2 - q) / (1 - q) == pytest.approx(exists * least)
    assert (2 * lam * (1 - q)) ** (1 / (2 - q)) * (2 - q) / (2 * (1 - q)) == pytest.approx(switch, abs=1e-5)
    sizes = torch.cat([torch.linspace(0.02, 1.5, 60), torch.tensor([exists * least * 0.98, exists * least * 1.02])])
    z = torch.cat([sizes, -sizes]).double()
    start = nn.Parameter(0.9 * z)
    found = descend(
        lambda w: (w - z).square().sum() / 2, start, 3000, lr=0.05, depth=depth, lam=lam, momentum=0.9, init=Split()
    )
    for target, value in zip(z.tolist(), found.tolist(), strict=True):
        if abs(target) < exists * least:
            assert value == 0
        else:
            # It started in the basin of the minimum that is not zero.
            assert value * target > 0
            assert abs(value) == pytest.approx(root(abs(target), lam, q), abs=1e-6)
            assert abs(value) >= least


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_what_is_left_is_stationary(depth: int) -> None:
    x, y = problem(100, 20)
    lam = 0.08
    weight = nn.Parameter(torch.linspace(-1, 1, 20, dtype=torch.float64))

    def loss(w: Tensor) -> Tensor:
        return (x @ w - y).square().mean() / 2

    found = descend(loss, weight, 3000, lr=0.1, depth=depth, lam=lam, momentum=0.9, init=Split()).requires_grad_()
    (slope,) = torch.autograd.grad(loss(found), found)
    found = found.detach()
    kept = found != 0
    assert 3 <= int(kept.sum()) < 20
    wanted = -2 * lam / depth * found.abs() ** (2 / depth - 1) * found.sign()
    torch.testing.assert_close(slope[kept], wanted[kept], rtol=1e-3, atol=0)
    if depth == 2:
        assert float(slope[~kept].abs().max()) <= lam
    else:
        # Nothing that is left lies in the gap that the steepest slope allows.
        gap = (2 * lam / (depth * float(slope.abs().max()))) ** (depth / (depth - 2))
        assert float(found[kept].abs().min()) >= gap * (1 - 1e-3)
