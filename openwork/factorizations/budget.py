"""Whether a training is long enough for its weights to become exactly zero."""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, inf, log, pi
from operator import index
from typing import Any, Literal, TypeVar

import torch

# Collapsed weights smaller than this are zero: the step between 1 and the next float32.
THRESHOLD: float = torch.finfo(torch.float32).eps
# Below the first there are no exact zeros to speak of; from the second on the number of zeros is not one of the budget.
LEAST, ENOUGH = 14.0, 25.0

N = TypeVar("N", int, float)

LearningRates = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Budget:
    """The collapse budget ``B = 2 lam sum_t lr_t / (1 - momentum)`` of a training.

    Without a gradient a weight shrinks to ``exp(-B)`` of itself, whatever the depth, and it is exactly zero after
    collapse if that is below the threshold: ``B >= log(|w| / threshold)``, which is 12 to 13.5 for common weights.

    Args:
        budget: B.
        lam: Strength.
        lr: Largest learning rate.
        steps: Of the optimizer.
        lr_enough: Learning rate with which the budget would be 25.
        steps_enough: Steps with which the budget would be 25, at the learning rate of now.
        zeroed: Largest magnitude that a weight without a gradient may have now to be zero at the end.
    """

    budget: float
    lam: float
    lr: float
    steps: int
    lr_enough: float
    steps_enough: int
    zeroed: float

    @property
    def too_small(self) -> bool:
        """Whether weights will hardly become exactly zero, although there is a penalty."""
        return self.lam > 0 and self.budget < LEAST

    def __str__(self) -> str:
        if self.lam == 0:
            return "no collapse budget: lam is 0, and nothing becomes zero"
        said = (
            f"collapse budget {self.budget:.3g} (lam {self.lam:g}, lr {self.lr:g}, {self.steps} steps): a weight "
            f"without a gradient becomes exactly zero if it is below {self.zeroed:.2g} now"
        )
        if self.budget >= ENOUGH:
            return said
        if self.budget == 0:
            return f"{said}; take a schedule whose learning rate is above 0"
        return (
            f"{said}; for {ENOUGH:g}, take lr={self.lr_enough:.2g}, or {self.steps_enough} steps, or "
            f"lam={self.lam * ENOUGH / self.budget:.2g}"
        )


def plan_budget(
    lam: float,
    lr: float,
    steps: int,
    *,
    momentum: float = 0.0,
    schedule: LearningRates | Callable[[int], float] = "cosine",
    warmup: int = 0,
) -> Budget:
    """Plan a factorized training: will its weights be exactly zero at the end?

    Args:
        lam: Strength, >= 0, against a loss averaged over samples.
        lr: Largest learning rate, > 0.
        steps: Of the optimizer, >= 1.
        momentum: Of SGD, in [0, 1).
        schedule: How the learning rate falls after the warm-up: not at all, or to 0 along half a cosine. Or a function
            that gives the factor of ``lr`` at step 0, 1, ...
        warmup: Steps at the beginning in which the learning rate grows linearly, in [0, steps].

    Returns:
        The budget, and what would be enough.

    Raises:
        ValueError: If a number is out of range.
    """
    lam, lr, momentum = (
        _number(name, value, float, "a number") for name, value in (("lam", lam), ("lr", lr), ("momentum", momentum))
    )
    steps, warmup = (
        _number(name, value, index, "an integer") for name, value in (("steps", steps), ("warmup", warmup))
    )
    for name, value, low in (("lam", lam, 0.0), ("lr", lr, 0.0), ("steps", steps, 1), ("warmup", warmup, 0)):
        if not low <= value < inf or (name == "lr" and value == 0):
            raise ValueError(
                f"plan_budget: {name} must be {'above 0' if name == 'lr' else f'at least {low:g}'}, got {value}"
            )
    if not 0 <= momentum < 1:
        raise ValueError(f"plan_budget: momentum must be at least 0 and below 1, got {momentum}")
    if warmup > steps:
        raise ValueError(f"plan_budget: warmup must be at most the {steps} steps of the training, got {warmup}")
    if not callable(schedule) and schedule not in ("constant", "cosine"):
        raise ValueError(f"plan_budget: schedule must be 'constant', 'cosine' or a function, got {schedule!r}")
    if callable(schedule) and warmup:
        raise ValueError(f"plan_budget: a schedule that is a function has its own warm-up, got warmup={warmup} too")
    factor = schedule if callable(schedule) else learning_rates(schedule, steps, warmup)
    per_lr = 2 * lam * sum(map(factor, range(steps))) / (1 - momentum)
    budget = per_lr * lr
    growth = ENOUGH / budget if budget else inf
    return Budget(
        budget=budget,
        lam=lam,
        lr=lr,
        steps=steps,
        lr_enough=lr * growth,
        steps_enough=0 if growth == inf else round(steps * growth),
        zeroed=THRESHOLD * 2.0 ** min(budget / log(2.0), 1000.0),
    )


def _number(name: str, value: object, convert: Callable[[Any], N], kind: str) -> N:
    """A number of Python, from one of any library.

    Raises:
        ValueError: If it is none.
    """
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"plan_budget: {name} must be {kind}, got {value!r}") from error


def learning_rates(schedule: LearningRates, steps: int, warmup: int) -> Callable[[int], float]:
    """The factor of the learning rate at step 0, 1, ..., in [0, 1].

    Args:
        schedule: See ``plan_budget``.
        steps: Of the whole training.
        warmup: The first of them: the factor is ``1 / warmup, 2 / warmup, ..., 1``.

    Returns:
        A function of the number of the step.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if schedule == "constant":
            return 1.0
        return (1 + cos(pi * min(step - warmup, steps - warmup) / max(steps - warmup, 1))) / 2

    return factor


__all__ = ["ENOUGH", "LEAST", "THRESHOLD", "Budget", "LearningRates", "learning_rates", "plan_budget"]
