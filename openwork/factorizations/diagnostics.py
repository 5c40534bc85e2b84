"""How far a factorized training has come: balance of the factors, weights near zero, and what goes wrong.

All of it is measured once per epoch in a few passes over the weights. References: Kolb et al., Deep Weight
Factorization (ICLR 2025), arXiv:2502.02496; Kolb et al., D-Gating (NeurIPS 2025), arXiv:2509.23898.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from openwork.factorizations.budget import ENOUGH, THRESHOLD
from openwork.factorizations.collapsing import SWEEP
from openwork.factorizations.products import leave_one_out

#: Bins of the histogram of ``log10 |w|``: from the first to the second number, so many for each power of ten.
LOWEST, HIGHEST, BINS_PER_POWER = -12, 2, 2

# The first epoch whose compression ratio is above this is the onset of exact zeros.
ONSET = 1.01
# Fraction of its start to which the mean penalty of a network falls that still learns nothing: it collapses.
COLLAPSED = 0.1
# Relative misalignment from which factors are balanced well enough for nobody to ask whether it still falls.
BALANCED = 1e-3


@dataclass(frozen=True)
class Factors:
    """The factors of one weight, as everything here sees them: single weights, and groups with gates, alike.

    Args:
        name: Of the weight.
        squares: Squares of the D factors, tensors of one shape: ``w_i^2`` entry by entry, or for groups the squared
            norm of ``omega_j`` and the squares of its gates. One tensor if all factors are equal (tied).
        magnitudes: Of that shape: ``|w|``, or the norms of the groups.
        lam: Strength.
        depth: Number of factors D, >= 2.
        signed: The weight itself, of that shape, to see which signs change; None for groups.
    """

    name: str
    squares: Sequence[Tensor]
    magnitudes: Tensor
    lam: float
    depth: int
    signed: Tensor | None = None


@dataclass(frozen=True)
class LayerDiagnostics:
    """Numbers of one weight. Sums are over its entries, or its groups.

    Args:
        size: Entries, or groups.
        nonzero: How many are at least as large as each of the thresholds that ``collapse`` sweeps over.
        lam: Strength.
        depth: Number of factors.
        excess: ``sum_j (1/D) sum_i w_ij^2``, the penalty of the factors over ``lam``.
        penalty: ``sum_j |w_j|^(2/D)``, the penalty of the weights over ``lam``.
        misalignment: Their difference, which is 0 where all factors of a weight have one magnitude.
        imbalance: Largest difference of the squares of two factors of one weight.
        multiplier: Median over the nonzero weights of ``Q = sum_i prod_(k != i) w_k^2``, by which the factors multiply
            the learning rate of a weight; None if there are none.
        dead: Weights with two or more factors of which the square is zero: no gradient reaches them any more.
        norm: Of the weight.
        histogram: Weights by ``log10 |w|``; the first and the last bin have those beyond too, zeros and NaN.
        flipped: Nonzero weights whose sign is not that of the start; None if there are no signs.
    """

    size: int
    nonzero: Sequence[int]
    lam: float
    depth: int
    excess: float
    penalty: float
    misalignment: float
    imbalance: float
    multiplier: float | None
    dead: int
    norm: float
    histogram: Sequence[int]
    flipped: int | None = None

    @property
    def relative_misalignment(self) -> float:
        """Misalignment over the penalty, whatever the scale of the weights; 0 for a weight of zeros."""
        return self.misalignment / self.penalty if self.penalty else 0.0


@torch.no_grad()
def diagnose(factors: Factors, positive: Tensor | None = None) -> LayerDiagnostics:
    """Measure the factors of one weight.

    Args:
        factors: Of the weight.
        positive: Where it was positive at the start.

    Returns:
        The numbers; a device is waited for.
    """
    squares, magnitudes, depth = factors.squares, factors.magnitudes, factors.depth
    # In single precision entry by entry, and summed in double: misalignment is a small difference of large sums.
    means = squares[0] if len(squares) == 1 else reduce(torch.add, squares) / depth
    penalties = _root(magnitudes, depth)
    excess, penalty, misalignment = (_total(x) for x in (means, penalties, means - penalties))
    if len(squares) > 1:
        spread = reduce(torch.maximum, squares) - reduce(torch.minimum, squares)
        imbalance = float(spread.max()) if spread.numel() else 0.0
        zeros = reduce(torch.add, [(square == 0).to(torch.uint8) for square in squares])
        dead = _count(zeros >= 2)
    else:
        imbalance, dead = 0.0, _count(squares[0] == 0)
    alive = magnitudes >= THRESHOLD
    nonzero = [_count(magnitudes >= threshold) for threshold in SWEEP]
    survivors = [square[alive] for square in squares] if nonzero[0] < magnitudes.numel() else list(squares)
    multiplier: float | None = None
    if nonzero[0]:
        products = leave_one_out(survivors * (depth // len(squares)), torch.mul)
        multiplier = float(reduce(torch.add, products).median())
    bins = (HIGHEST - LOWEST) * BINS_PER_POWER
    places = ((magnitudes.log10() - LOWEST) * BINS_PER_POWER).clamp_(0, bins - 1).nan_to_num_(bins - 1).flatten()
    flipped = None
    if factors.signed is not None and positive is not None:
        flipped = _count(((factors.signed > 0) != positive) & alive)
    return LayerDiagnostics(
        size=magnitudes.numel(),
        nonzero=nonzero,
        lam=factors.lam,
        depth=depth,
        excess=excess,
        penalty=penalty,
        misalignment=max(misalignment, 0.0),
        imbalance=imbalance,
        multiplier=multiplier,
        dead=dead,
        norm=sqrt(_total(magnitudes.square())),
        histogram=[int(count) for count in torch.bincount(places.int(), minlength=bins)],
        flipped=flipped,
    )


def _total(x: Tensor) -> float:
    return float(x.double().sum())  # faster than a sum of float32 into float64


def _count(mask: Tensor) -> int:
    return int(mask.count_nonzero())


def _root(magnitudes: Tensor, depth: int) -> Tensor:
    """``|w|^(2/D)``, without a general power where there is a faster way."""
    if depth == 2:
        return magnitudes
    return magnitudes.sqrt() if depth == 4 else magnitudes.pow(2 / depth)


@dataclass(frozen=True)
class Diagnostics:
    """Numbers of all factorized weights together.

    Args:
        layers: Of each, by name; at least one.
    """

    layers: Mapping[str, LayerDiagnostics]

    def _sum(self, number: Callable[[LayerDiagnostics], float]) -> float:
        return sum(map(number, self.layers.values()))

    @property
    def size(self) -> int:
        """Entries, or groups."""
        return sum(layer.size for layer in self.layers.values())

    @property
    def nonzero(self) -> list[int]:
        """How many are at least as large as each of the thresholds that ``collapse`` sweeps over."""
        return [sum(counts) for counts in zip(*(layer.nonzero for layer in self.layers.values()), strict=True)]

    @property
    def mean_penalty(self) -> float:
        """Mean of ``|w|^(2/D)``."""
        return self._sum(lambda layer: layer.penalty) / max(self.size, 1)

    @property
    def relative_misalignment(self) -> float:
        """``sum_j ((1/D) sum_i w_ij^2 - |w_j|^(2/D))`` over ``sum_j |w_j|^(2/D)``; 0 if all weights are zero."""
        penalty = self._sum(lambda layer: layer.penalty)
        return self._sum(lambda layer: layer.misalignment) / penalty if penalty else 0.0

    @property
    def compression_ratio(self) -> float | None:
        """Weights over nonzero weights; None if all are zero."""
        return self.size / self.nonzero[0] if self.nonzero[0] else None

    def record(self) -> dict[str, Any]:
        """Plain values for a log: nested tables go by threshold or by the name of a weight."""
        layers = self.layers.values()
        names = [f"{threshold:.2g}" for threshold in SWEEP]
        signed = [layer for layer in layers if layer.flipped is not None]
        alive = sum(layer.nonzero[0] for layer in signed)
        found: dict[str, Any] = {
            "misalignment": self._sum(lambda layer: layer.misalignment),
            "relative_misalignment": self.relative_misalignment,
            "max_imbalance": max(layer.imbalance for layer in layers),
            "penalty_factors": self._sum(lambda layer: layer.lam * layer.excess),
            "penalty_weights": self._sum(lambda layer: layer.lam * layer.penalty),
            "mean_penalty": self.mean_penalty,
            "weight_norm": sqrt(self._sum(lambda layer: layer.norm**2)),
            "factorized": self.size,
            "nonzero_at": dict(zip(names, self.nonzero, strict=True)),
            "compression_at": {
                name: self.size / count if count else None for name, count in zip(names, self.nonzero, strict=True)
            },
            "dead": sum(layer.dead for layer in layers),
            "log10_weights": [sum(counts) for counts in zip(*(layer.histogram for layer in layers), strict=True)],
            "factors": {
                name: {
                    "size": layer.size,
                    "nonzero": layer.nonzero[0],
                    "relative_misalignment": layer.relative_misalignment,
                    "multiplier": layer.multiplier,
                }
                for name, layer in self.layers.items()
            },
        }
        if signed and alive:
            found["sign_flips"] = sum(layer.flipped or 0 for layer in signed) / alive
        return found


@dataclass
class Watch:
    """Diagnoses a training epoch by epoch, remembers what takes memory, and says once what goes wrong.

    Call ``begin`` before the first step, and ``observe`` after each epoch. ``state_dict`` goes into the checkpoint, so
    that a run that is resumed finds the same numbers and repeats no alarm.

    Args:
        where: Who says the alarms.
    """

    where: str = "diagnostics"
    onset: int | None = field(default=None, init=False)
    alarms: list[str] = field(default_factory=list[str], init=False)
    _raised: list[str] = field(default_factory=list[str], init=False)
    _positive: dict[str, Tensor] = field(default_factory=dict[str, Tensor], init=False)
    _start: float = field(default=0.0, init=False)
    _misalignment: float = field(default=0.0, init=False)

    @torch.no_grad()
    def begin(self, factors: Iterable[Factors]) -> None:
        """Look at the start.

        Args:
            factors: Of every weight, before the first step.
        """
        found: dict[str, LayerDiagnostics] = {}
        for layer in factors:
            self._remember(layer)
            found[layer.name] = diagnose(layer)
        start = Diagnostics(found)
        self._start, self._misalignment = start.mean_penalty, start.relative_misalignment

    def _remember(self, layer: Factors) -> Tensor | None:
        """Where a weight was positive at the start; from now on, if it is smaller than it was then."""
        if layer.signed is None:
            return None
        if layer.name not in self._positive or self._positive[layer.name].shape != layer.signed.shape:
            self._positive[layer.name] = layer.signed > 0
        return self._positive[layer.name]

    def observe(
        self,
        factors: Iterable[Factors],
        epoch: int,
        *,
        budget: float | None = None,
        accuracy: float | None = None,
        chance: float | None = None,
    ) -> dict[str, Any]:
        """Diagnose, and warn of what is wrong for the first time.

        Args:
            factors: Of every weight.
            epoch: How many there have been.
            budget: Smallest collapse budget that any weight has spent so far, where it is known.
            accuracy: Of the weights, in [0, 1], where there are classes.
            chance: Accuracy of guessing the most common class.

        Returns:
            Plain values for a log: those of ``Diagnostics.record``, ``onset_epoch`` if there were zeros, and all
            ``alarms`` so far.

        Warns:
            UserWarning: For each new alarm.
        """
        found = Diagnostics({layer.name: diagnose(layer, self._remember(layer)) for layer in factors})
        ratio = found.compression_ratio
        if self.onset is None and (ratio is None or ratio > ONSET):
            self.onset = epoch
        self._look_for_lost_layers(found, epoch)
        self._look_for_a_collapse(found, epoch, accuracy, chance)
        self._look_for_balance(found, epoch, budget)
        onset = {} if self.onset is None else {"onset_epoch": self.onset}
        return {**found.record(), **onset, "alarms": list(self.alarms)}

    # -- alarms -----------------------------------------------------------------------------------------------------

    def alarm(self, kind: str, said: str) -> None:
        """Warn, once for each kind.

        Args:
            kind: What the alarm is about.
            said: One sentence.

        Warns:
            UserWarning: If this kind is new.
        """
        if kind not in self._raised:
            self._raised.append(kind)
            self.alarms.append(said)
            warnings.warn(f"{self.where}: {said}", stacklevel=2)

    def _look_for_lost_layers(self, found: Diagnostics, epoch: int) -> None:
        for name, layer in found.layers.items():
            if layer.size and not layer.nonzero[0]:
                self.alarm(
                    f"lost {name}",
                    f"all of {name} is zero after epoch {epoch}, so that nothing passes through this layer; lam="
                    f"{layer.lam:g} is too strong for it: take a smaller one, or leave the layer dense",
                )

    def _look_for_a_collapse(
        self, found: Diagnostics, epoch: int, accuracy: float | None, chance: float | None
    ) -> None:
        if accuracy is None or chance is None or accuracy > 1.05 * chance:
            return
        if found.mean_penalty < COLLAPSED * self._start:
            self.alarm(
                "collapse",
                f"the network collapses: after epoch {epoch} it predicts no better than the most common class "
                f"({100 * accuracy:.3g} %), and its mean penalty is {found.mean_penalty / self._start:.2g} of that at "
                "the start; its factors started too small, or lam is too strong: start from Sampled() or UnitGate(), "
                "warm the learning rate up, or take a smaller lam",
            )

    def _look_for_balance(self, found: Diagnostics, epoch: int, budget: float | None) -> None:
        now = found.relative_misalignment
        # With that budget spent, the factors of what the data hold have long been balanced.
        if budget is not None and budget >= ENOUGH and now > max(BALANCED, self._misalignment):
            self.alarm(
                "balance",
                f"the relative misalignment of the factors, {now:.2g} after epoch {epoch}, is not below the "
                f"{self._misalignment:.2g} of the start although the penalty has acted for long: all weights shrink, "
                "and the data hold none; take a smaller lam, or see whether the network learns at all",
            )

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "onset": self.onset,
            "alarms": list(self.alarms),
            "raised": list(self._raised),
            "positive": dict(self._positive),
            "start": self._start,
            "misalignment": self._misalignment,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.onset, self._start, self._misalignment = state["onset"], state["start"], state["misalignment"]
        self.alarms, self._raised = list(state["alarms"]), list(state["raised"])
        self._positive = dict(state["positive"])


__all__ = ["Diagnostics", "Factors", "LayerDiagnostics", "Watch", "diagnose"]
