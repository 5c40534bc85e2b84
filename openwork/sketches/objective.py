"""The objective of sketched training, ``E f(v + S (x - v))``, by Monte Carlo."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from math import ceil, sqrt
from typing import TypeVar

import torch
from torch import Tensor

from openwork.forward_pass import arguments, evaluating
from openwork.sketches.families import Drawn, Family, joined
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.sketch import Draw

Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class Estimate:
    """A mean over random draws.

    Args:
        mean: Of the draws.
        stderr: Standard error of the mean.
        n: How many draws.
    """

    mean: float
    stderr: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.stderr:.2g}"


@torch.no_grad()
def mc_objective(
    sketched: SketchedModule,
    loss: Callable[[Outputs, Tensor], Tensor],
    batch: tuple[object, Tensor],
    n: int = 64,
    complementary: bool = True,
    key: Key | None = None,
) -> Estimate:
    """``f_D(x) = E f(v + S (x - v))`` on a batch, in evaluation mode.

    Draws come in sets: all shares of one permutation for ``PermK``, disjoint subsets for ``RandK``. What one of a set
    drops, another keeps, so that their mean varies less than that of as many independent draws. The standard error is
    that of the sets, which are independent.

    Args:
        sketched: Its shift, law and present weights.
        loss: From outputs and targets, a number.
        batch: Inputs, as ``example_inputs`` are given elsewhere, and targets.
        n: Draws, at least 2; raised to whole sets, of which a standard error needs two, so that none is larger than a
            half of ``n``.
        complementary: Draw in sets; if not, every draw is independent of all others.
        key: What names the draws; by default that of the model, so that the same weights at the same step give the
            same number.

    Returns:
        Mean and standard error.

    Raises:
        TypeError: If ``sketched`` is no ``SketchedModule``.
        ValueError: If ``n`` is less than 2, the batch is empty, or the loss is not one number.
    """
    check_sketched("mc_objective", sketched)
    inputs, targets = batch
    args, kwargs = arguments("mc_objective", inputs)
    if n < 2:
        raise ValueError(f"mc_objective: n must be at least 2 draws, got {n}; a standard error needs two")
    key = sketched.key if key is None else key
    size = _set_size(sketched, key, n // 2) if complementary else 1
    sets = islice(_sets(sketched, key, size), ceil(n / size))
    means: list[float] = []
    with evaluating(sketched):
        for drawn in sets:
            losses: list[float] = []
            for one in drawn:
                with sketched.draw(one):
                    losses.append(_number(loss(sketched(*args, **kwargs), targets)))
            means.append(sum(losses) / len(losses))
    mean = sum(means) / len(means)
    variance = sum((value - mean) ** 2 for value in means) / (len(means) - 1)
    return Estimate(mean, sqrt(variance / len(means)), len(means) * size)


def check_sketched(place: str, sketched: object) -> None:
    """Refuse what is no sketched module.

    Args:
        place: The function that the user called, for the message.
        sketched: What they passed.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(sketched, SketchedModule):
        raise TypeError(
            f"{place}: sketched must be a SketchedModule, got {type(sketched).__name__}; wrap the model with the law "
            "under which it is looked at, for example SketchedModule(model, RandK(0.5), shift='zero')"
        )


def _set_size(sketched: SketchedModule, key: Key, most: int) -> int:
    device = next(sketched.module.parameters()).device
    return min(most, max(len(_complements(family, key, device)) for family in sketched.families))


def _sets(sketched: SketchedModule, key: Key, size: int) -> Iterator[list[Drawn]]:
    """Sets of draws without end; of a single one they are independent."""
    device = next(sketched.module.parameters()).device
    for position in count():
        found: list[list[dict[str, Draw]]] = []
        for family in sketched.families:
            if size == 1:
                found.append([family.sample(key.at(draw=position), device)])
                continue
            # A family whose own sets are shorter has several of them here, the last one perhaps in part.
            own: list[dict[str, Draw]] = []
            while len(own) < size:
                own += _complements(family, key.at(draw=position * size + len(own)), device)
            found.append(own[:size])
        yield [joined(draws) for draws in zip(*found, strict=True)]


def _complements(family: Family, key: Key, device: torch.device) -> list[dict[str, Draw]]:
    draws = family.law.complements(key.at(family=family.name), family.size, device)
    return [family.maps(draw) for draw in draws]


def _number(value: Tensor) -> float:
    if value.numel() != 1:
        raise ValueError(
            f"mc_objective: loss must give one number, got a tensor of shape {tuple(value.shape)}; take its mean"
        )
    return float(value)


__all__ = ["Estimate", "mc_objective"]
