"""Step sizes that theorems allow, from the constants of a law, and those carried over from dense training.

Throughout, ``smoothness`` is ``L_f``, the Lipschitz constant of the gradient of the dense loss, and ``size`` that of
the vectors which the law sketches. With stochastic gradients h of
``E||h||^2 <= 2 A (f - inf f) + B ||grad f||^2 + C``, pass ``A + B L_f`` in its place to ``theory_lr``.
"""

from math import sqrt
from typing import Literal

from torch import Tensor

from openwork.sketches.group import Group
from openwork.sketches.perm_k import PermK
from openwork.sketches.sketch import Sketch


def expected_smoothness(smoothness: float, law: Sketch, size: int, draws: int = 1) -> float:
    """``L_f (L_S^max / b + (1 - 1/b) L_D)`` for the mean of b independent draws; bounds the estimator's second moment.

    ``E||g||^2`` is at most twice this times ``f_D(x) - inf f_D``, plus ``2 L_f L_S^max / b`` times
    ``inf f_D - inf f``.

    Args:
        smoothness: ``L_f``, > 0.
        law: Of the sketch.
        size: Numbers in a vector, >= 1.
        draws: b, >= 1: draws per step, or workers with draws of their own.

    Raises:
        ValueError: If ``smoothness`` or ``draws`` is out of range.
    """
    _check("smoothness", smoothness)
    _check_count("draws", draws)
    constants = law.constants(size)
    return smoothness * (constants.largest / draws + (1 - 1 / draws) * constants.smooth)


def theory_lr(smoothness: float, law: Sketch, size: int, *, workers: int = 1) -> float:
    """The step of DSGD for strongly convex losses: ``1 / (L_f L_S^max)`` for one worker, larger ones for several.

    For convex losses, where the mean of the iterates is what converges, take half of it.
    Workers with independent draws allow one over ``expected_smoothness``. All n workers of ``PermK`` together, whose
    gradients are orthogonal, allow ``1 / (n L_f)``: as many steps as dense gradient descent needs.

    Args:
        smoothness: ``L_f``, > 0; the largest one if workers have losses of their own.
        law: Of the sketch, of every worker.
        size: Numbers in a vector, >= 1.
        workers: Whose gradients are averaged, >= 1.

    Raises:
        ValueError: If an argument is out of range, or ``workers`` is neither 1 nor that of ``PermK``.
    """
    if isinstance(law, Group):
        return theory_lr(smoothness, law.law, law.count(size), workers=workers)
    if not isinstance(law, PermK) or workers == 1:
        return 1 / expected_smoothness(smoothness, law, size, workers)
    _check("smoothness", smoothness)
    if workers != law.workers:
        raise ValueError(f"theory_lr: PermK is for {law.workers} workers, got workers={workers}; take all, or 1")
    return workers / (smoothness * law.constants(size).largest * law.overlap(size))


def nonconvex_lr(smoothness: float, law: Sketch, size: int, steps: int) -> float:
    """The step of DSGD for non-convex losses, ``1 / (L_f sqrt(L_D L_S^max T))`` for T steps.

    Args:
        smoothness: ``L_f``, > 0.
        law: Of the sketch.
        size: Numbers in a vector, >= 1.
        steps: T, >= 1.

    Raises:
        ValueError: If ``smoothness`` or ``steps`` is out of range.
    """
    _check("smoothness", smoothness)
    _check_count("steps", steps)
    constants = law.constants(size)
    return 1 / (smoothness * sqrt(constants.smooth * constants.largest * steps))


def lsvrg_lr(smoothness: float, law: Sketch, size: int, anchor: Literal["full", "minibatch"] = "full") -> float:
    """The step of L-SVRG for convex losses: ``1 / (6 L_f L_S^max)``, with minibatch anchors ``1 / (10 L_f L_S^max)``.

    Args:
        smoothness: ``L_f``, > 0.
        law: Of the sketch, a pool.
        size: Numbers in a vector, >= 1.
        anchor: Whether anchors are means over the whole pool, or over some members that are drawn anew every step.

    Raises:
        ValueError: If ``smoothness`` is out of range or ``anchor`` unknown.
    """
    _check("smoothness", smoothness)
    if anchor not in ("full", "minibatch"):
        raise ValueError(f"lsvrg_lr: anchor must be 'full' or 'minibatch', got {anchor!r}")
    return 1 / ((6 if anchor == "full" else 10) * smoothness * law.constants(size).largest)


def page_lr(
    smoothness: float, law: Sketch, size: int, refresh: float, draws: int = 1, convexity: float | None = None
) -> float:
    """The step of PAGE, ``1 / (L_D L_f + L sqrt((1 - p) / (p b)))`` with ``L = L_f sqrt(L_D L_S^max)``.

    Args:
        smoothness: ``L_f``, > 0.
        law: Of the sketch, a pool.
        size: Numbers in a vector, >= 1.
        refresh: p, the probability of a full gradient, in (0, 1].
        draws: b, members of the pool in other steps, >= 1.
        convexity: mu > 0 of the sketched loss, strong convexity or Polyak and Łojasiewicz, for linear convergence: the
            root is twice as large under it then, and the step at most ``p / (2 mu)``. None for non-convex losses.

    Raises:
        ValueError: If an argument is out of range.
    """
    _check("smoothness", smoothness)
    _check_count("draws", draws)
    if not 0 < refresh <= 1:
        raise ValueError(f"page_lr: refresh must be a probability in (0, 1], got {refresh}")
    if convexity is not None:
        _check("convexity", convexity)
    constants = law.constants(size)
    average = smoothness * sqrt(constants.smooth * constants.largest)
    variance = (1 if convexity is None else 2) * (1 - refresh) / (refresh * draws)
    step = 1 / (constants.smooth * smoothness + average * sqrt(variance))
    return step if convexity is None else min(step, refresh / (2 * convexity))


def rescaled_lr(
    dense_lr: float, p: float | Tensor, optimizer: Literal["sgd", "adam"] = "sgd", *, scaled: bool = True
) -> float | Tensor:
    """The learning rate that does in sketched training what ``dense_lr`` does in dense training.

    With the scale 1 / p weights are in other units: steps of SGD are ``p^2``, those of Adam p times as large, and
    without it they stay. Training is the same in both units, see ``scaled_point``.

    Args:
        dense_lr: Of dense training.
        p: Probability that an entry is kept, in (0, 1]; a number, or one for each entry, with rates for each then.
        optimizer: Whether steps are proportional to gradients, as in SGD, or do not depend on their scale, as in Adam.
        scaled: Whether kept entries are multiplied by 1 / p.

    Raises:
        ValueError: If ``p`` is out of range or ``optimizer`` unknown.
    """
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"rescaled_lr: optimizer must be 'sgd' or 'adam', got {optimizer!r}")
    inside = (p > 0) & (p <= 1) if isinstance(p, Tensor) else 0 < p <= 1
    if not (bool(inside.all()) if isinstance(inside, Tensor) else inside):
        raise ValueError(f"rescaled_lr: p must be in (0, 1], got {p}")
    if not scaled:
        return dense_lr
    return dense_lr * p * p if optimizer == "sgd" else dense_lr * p


def _check(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"step sizes: {name} must be above 0, got {value}")


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"step sizes: {name} must be at least 1, got {value}")


__all__ = ["expected_smoothness", "lsvrg_lr", "nonconvex_lr", "page_lr", "rescaled_lr", "theory_lr"]
