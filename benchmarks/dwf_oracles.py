"""Factorized training against what it should converge to: the lasso on real data, and scalar problems of any depth.

The lasso (depth 2) is solved for scikit-learn's diabetes data by gradient descent with momentum on two factors, and by
scikit-learn. The scalar problems ``(w - z)^2 / 2 + lam |w|^(2/D)`` have a known answer (a root, and a point from which
on it exists): the factors must end at 0 or at that root.
"""

import numpy as np
import torch
from readme_table import Cell
from record import write_table
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from openwork.factorizations import Split
from openwork.optim import FactorizedSGD

NAME = "dwf_oracles"
STEPS = 30_000


def lasso(share: float) -> list[Cell]:
    """One strength, as a fraction of the one that makes all zero."""
    x, y = load_diabetes(return_X_y=True)
    # Columns of mean square 1, so that one learning rate suits all.
    x, y = torch.as_tensor(x) * len(x) ** 0.5, torch.as_tensor(y)
    y = (y - y.mean()) / y.std()
    lam = share * float((x.t() @ y).abs().max()) / len(x)
    weight = nn.Parameter(torch.full((1, x.shape[1]), 0.1, dtype=torch.float64))
    optimizer = FactorizedSGD([weight], lr=0.02, depth=2, lam=lam, momentum=0.9, init=Split())
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((x @ weight[0] - y).square().mean() / 2).backward()
        optimizer.step()
    optimizer.settle_()
    exact = Lasso(alpha=lam, fit_intercept=False, tol=1e-14, max_iter=1_000_000).fit(x.numpy(), y.numpy()).coef_
    found = weight.detach()[0].numpy()
    difference = float(np.abs(found - exact).max())
    same = bool(((found != 0) == (exact != 0)).all())
    return ["lasso, diabetes", "2", f"{lam:.3g}", f"{int((exact != 0).sum())} of {len(exact)} nonzero",
            f"{difference:.1e}", "yes" if same else "NO"]  # fmt: skip


def scalar(depth: int, lam: float) -> list[Cell]:
    """Targets on both sides of the point from which on there is a minimum other than 0."""
    q = 2 / depth
    low = (lam * q * (1 - q)) ** (1 / (2 - q)) if depth > 2 else 0.0
    exists = low * (2 - q) / (1 - q) if depth > 2 else lam
    z = torch.cat([torch.linspace(0.2, 0.9, 40), torch.linspace(1.1, 4.0, 60)]).double() * exists
    weight = nn.Parameter(z[None].clone())
    optimizer = FactorizedSGD([weight], lr=0.05, depth=depth, lam=lam, momentum=0.0, init=Split())
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((weight[0] - z).square() / 2).sum().backward()
        optimizer.step()
    optimizer.settle_()
    found, exact = weight.detach()[0], root(z, lam, q, low, exists)
    # Beyond that point both 0 and the root are minima: the start at z leads to the root.
    difference = float((found - exact).abs().max())
    same = bool(((found != 0) == (exact != 0)).all())
    return [f"scalar, |w|^(2/{depth})", str(depth), f"{lam:g}", f"{int((exact != 0).sum())} of {len(z)} nonzero",
            f"{difference:.1e}", "yes" if same else "NO"]  # fmt: skip


def root(z: Tensor, lam: float, q: float, low: float, exists: float) -> Tensor:
    """The larger root of ``w - z + lam q w^(q-1) = 0`` by bisection; 0 where there is none."""
    left, right = torch.full_like(z, low), z.clone()
    for _ in range(200):
        middle = (left + right) / 2
        positive = middle - z + lam * q * middle ** (q - 1) > 0
        left, right = torch.where(positive, left, middle), torch.where(positive, middle, right)
    return torch.where(z > exists, right, 0.0)


def main() -> None:
    """Solve and write the table."""
    torch.set_num_threads(1)
    # Weights without a gradient become so small that they would be slow.
    torch.set_flush_denormal(True)
    rows = [lasso(share) for share in (0.01, 0.05, 0.2, 0.5)]
    rows += [scalar(depth, lam) for depth in (2, 3, 4) for lam in (0.05, 0.2, 1.0)]
    columns = ["problem", "depth", "strength", "solution", "largest difference", "same support"]
    write_table(
        NAME,
        "Factorized training against exact solutions",
        columns,
        rows,
        f"FactorizedSGD in float64 on full batches, {STEPS} steps, at learning rate 0.02 with momentum 0.9 (lasso) "
        "or at 0.05 without (scalar), factors from a split of the start; nothing is random but the split. "
        "Lasso: scikit-learn's diabetes data, columns and target standardized, exact coefficients from scikit-learn. "
        "Scalar: 100 targets at 0.2 to 0.9 and 1.1 to 4 times the point from which on there is a minimum other than 0; "
        "the start is the target.",
    )


if __name__ == "__main__":
    main()
