"""How well a model predicts when parts of it are dropped, over the ratio that is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import nn

from openwork.sketches.key import Key
from openwork.sketches.masks import Batches, MaskRule, check_ratio, check_rule, masks, prune_, pruned_weights
from openwork.sketches.module import SketchedModule
from openwork.sketches.objective import check_sketched


@dataclass(frozen=True)
class Spread:
    """One measure of several masks.

    Args:
        values: Of each mask.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the masks."""
        return fmean(self.values)

    @property
    def std(self) -> float:
        """Standard deviation over the masks; 0 for a single one."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """A quarter, a half and three quarters of the masks are below, linearly between them."""
        at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        low, middle, high = torch.tensor(self.values, dtype=torch.float64).quantile(at).tolist()
        return low, middle, high

    @property
    def min(self) -> float:
        """Over the masks."""
        return min(self.values)

    @property
    def max(self) -> float:
        """Over the masks."""
        return max(self.values)

    def record(self) -> dict[str, float]:
        """Plain values for a log."""
        low, middle, high = self.quartiles
        ends = {"min": self.min, "first_quartile": low, "median": middle, "third_quartile": high, "max": self.max}
        return {"mean": self.mean, "std": self.std, **ends}


@dataclass(frozen=True)
class PrunePoint:
    """What comes of one keep ratio.

    Args:
        ratio: That is kept, in (0, 1].
        metrics: By the names that ``evaluate`` gave.
    """

    ratio: float
    metrics: Mapping[str, Spread]

    def record(self) -> dict[str, float | dict[str, float]]:
        """Plain values for a log."""
        return {"ratio": self.ratio, **{name: spread.record() for name, spread in self.metrics.items()}}


@torch.no_grad()
def prune_curve(
    sketched: SketchedModule,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
    ratios: Sequence[float],
    n: int = 16,
    rule: MaskRule = "random",
    batches: Batches | None = None,
    key: Key | None = None,
) -> list[PrunePoint]:
    """Prune a model in many ways, and measure each.

    A model that was trained without sketches is wrapped first: in the granularity in which it is pruned, and with the
    shift that dropped parts fall back to.

    Args:
        sketched: Its shift, granularity and present weights; not changed.
        evaluate: Numbers of a plain module in evaluation mode, the same names every time.
        ratios: Keep ratios, each in (0, 1].
        n: Masks at each ratio, >= 1; where there is only one, because everything is kept or the rule is not random,
            one.
        rule: Which entries or units are kept, and how they are scaled: see ``export_submodel``.
        batches: Inputs and targets with which batch normalization is recalibrated for every mask; as it is if left out.
        key: What names the masks; ``Key(0)`` if left out.

    Returns:
        A point for each ratio, in the order given.

    Raises:
        TypeError: If ``sketched`` is no ``SketchedModule``.
        ValueError: If there is no ratio, one or ``n`` is out of range, there is no such rule, or the law has no masks.
    """
    check_sketched("prune_curve", sketched)
    check_rule("prune_curve", rule)
    if len(ratios) == 0:
        raise ValueError("prune_curve: ratios is empty; pass at least one keep ratio, such as [1.0, 0.5]")
    for ratio in ratios:
        check_ratio("prune_curve", ratio)
    if n < 1:
        raise ValueError(f"prune_curve: n must be at least 1 mask, got {n}")
    key = Key(0) if key is None else key
    # One copy for all masks: every mask writes the same parameters.
    pruned, whole = sketched.dense(), sketched.dense().state_dict()
    points: list[PrunePoint] = []
    for ratio in ratios:
        found: list[Mapping[str, float]] = []
        for number in range(n if rule == "random" and ratio < 1 else 1):
            pruned.load_state_dict(whole)
            weights = pruned_weights(sketched, masks(sketched, ratio, rule, key.at(draw=number)))
            found.append(evaluate(prune_(pruned, weights, batches)))
        points.append(PrunePoint(ratio, {name: Spread(tuple(one[name] for one in found)) for name in found[0]}))
    return points


__all__ = ["PrunePoint", "Spread", "prune_curve"]
