"""Training with deep weight factorization, as the scripts here share it: one network, one strength, one seed."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from openwork.baselines import Masks
from openwork.data import Batches, Data, Split
from openwork.factorizations import Initialization, Sampled
from openwork.factorizations.budget import THRESHOLD, learning_rates
from openwork.optim import FactorizedSGD

BATCH, MOMENTUM = 256, 0.9
THRESHOLDS = (THRESHOLD, 1e-5, 1e-3, 1e-2)


@dataclass(frozen=True)
class Plan:
    """One training: half a cosine after ``warmup`` epochs of linear growth; depth 1 is plain SGD."""

    depth: int
    lam: float
    lr: float
    epochs: int
    warmup: int = 1
    seed: int = 0
    init: Initialization = field(default_factory=Sampled)
    weight_decay: float = 0.0


def train(model: nn.Module, data: Data, plan: Plan, watched: Split | None = None) -> list[dict[str, float]]:
    """Train a model in place, to weights of which the small ones are exactly zero.

    Args:
        model: Its weights say with which deviation the factors start.
        data: Its training samples are used.
        plan: How.
        watched: Samples to predict after every epoch; None for the numbers without accuracy.

    Returns:
        Numbers before training and after every epoch.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    if plan.depth == 1:
        optimizer: Any = torch.optim.SGD(
            [
                {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": plan.weight_decay},
                {"params": [p for p in model.parameters() if p.ndim == 1]},
            ],
            lr=plan.lr,
            momentum=MOMENTUM,
        )
    else:
        optimizer = FactorizedSGD(
            model.parameters(),
            lr=plan.lr,
            depth=plan.depth,
            lam=plan.lam,
            momentum=MOMENTUM,
            init=plan.init,
            generator=generator,
            compile=True,
        )
    # All batches are full, as the budgets of the plans count them.
    steps = len(data.train) // BATCH
    factor = learning_rates("cosine", plan.epochs * steps, plan.warmup * steps)
    batches = Batches(data.train, BATCH, seed=plan.seed)
    rows = [numbers(model, optimizer, watched)]
    for epoch in range(plan.epochs):
        for at, (inputs, targets) in enumerate(batches.epoch(epoch)):
            if at == steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = plan.lr * factor(epoch * steps + at)
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        rows.append(numbers(model, optimizer, watched))
        if not rows[-1]["norm"] < 1e6:
            break
    if isinstance(optimizer, FactorizedSGD):
        optimizer.settle_()
    return rows


@torch.no_grad()
def numbers(model: nn.Module, optimizer: Any, watched: Split | None) -> dict[str, float]:
    """What the trajectory of a training shows."""
    magnitudes = torch.cat([p.detach().abs().flatten() for p in model.parameters() if p.ndim > 1])
    found = {"norm": float(magnitudes.norm())}
    found |= {f"cr_{t:.1e}": ratio(magnitudes, t) for t in THRESHOLDS}
    if isinstance(optimizer, FactorizedSGD):
        factors = list(optimizer.factors().values())
        depth = len(factors[0])
        excess = sum(float(f.square().sum()) for fs in factors for f in fs) / depth / len(magnitudes)
        penalty = float(magnitudes.pow(2 / depth).mean())
        found |= {"budget": optimizer.budget, "penalty": penalty, "misalignment": excess - penalty}
    if watched is not None:
        found["accuracy"] = accuracy(model, watched)
    return found


def ratio(magnitudes: Tensor, threshold: float) -> float:
    """Compression ratio if what is below a threshold is zero; 0 if that is everything."""
    left = int((magnitudes >= threshold).sum())
    return len(magnitudes) / left if left else 0.0


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Fraction of right predictions."""
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(split.inputs.split(2000), split.targets.split(2000), strict=True)
    )
    model.train()
    return right / len(split)


@torch.no_grad()
def prune_(model: nn.Module, keep: int) -> None:
    """Keep the ``keep`` weights of largest magnitude over all layers; the others become zero."""
    masks = Masks(model)
    for name, kept in masks.by_magnitude(keep / masks.total, "global").items():
        masks.weights[name].masked_fill_(~kept, 0.0)


def at_accuracy(curve: list[tuple[float, float]], wanted: float) -> float | None:
    """The compression ratio at which a frontier of (ratio, accuracy) falls below an accuracy; None if it never holds.

    Between two points the accuracy is linear in the logarithm of the ratio.
    """
    # Only points that nothing beats in both.
    best = [(r, a) for r, a in sorted(curve) if all(a > b for s, b in curve if s > r)]
    holds = [(r, a) for r, a in best if a >= wanted]
    if not holds:
        return None
    for (r, a), (s, b) in pairwise(best):
        if a >= wanted > b:
            return r * (s / r) ** ((a - wanted) / (a - b))
    return holds[-1][0]
