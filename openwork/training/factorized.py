"""Runs whose weights are products of factors: what is planned, watched and read out."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from openwork.data import Data
from openwork.factorizations import (
    Block,
    Budget,
    Factors,
    Gates,
    Hadamard,
    Handle,
    Watch,
    blocks_of,
    collapse,
    plan_budget,
)
from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.collapsing import SWEEP
from openwork.factorizations.factorization import Part
from openwork.metrics import support
from openwork.optim import FactorizedSGD, StructuredOptimizer
from openwork.partitions import Elements, Partition, Slices
from openwork.structure import Structure
from openwork.training.run import Metrics
from openwork.training.structured import InOptimizer, Structured


@dataclass(frozen=True)
class Strength:
    """What the collapse budget of some weights is made of.

    Args:
        names: Of the weights.
        lam: Strength.
        lr: Largest learning rate.
        momentum: Of SGD.
    """

    names: Sequence[str]
    lam: float
    lr: float
    momentum: float


class Factorized(Structured):
    """The exactly structured weights of a factorized model."""

    @abstractmethod
    def held(self, threshold: float | None = None) -> AbstractContextManager[nn.Module]:
        """A module that holds them, inside the ``with``; nothing has changed after it.

        Args:
            threshold: What counts as zero, if not what the training says.
        """

    @abstractmethod
    def factors(self) -> Iterator[Factors]:
        """Factors of every factorized weight."""

    @abstractmethod
    def strengths(self) -> list[Strength]:
        """Of all factorized weights; none where an optimizer has no such budget."""

    def spent(self, planned: float | None) -> float | None:
        """The collapse budget that training has spent so far; None where there is no such number.

        Args:
            planned: What the schedule says it should be.
        """
        return planned


class FactorsInOptimizer(InOptimizer, Factorized):
    """Those of a model that ``FactorizedSGD`` trains.

    Args:
        model: In training.
        optimizer: Over its parameters.
    """

    def __init__(self, model: nn.Module, optimizer: FactorizedSGD) -> None:
        super().__init__(model, optimizer)
        self.factorized = optimizer
        self.names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}

    @override
    @contextmanager
    def held(self, threshold: float | None = None) -> Iterator[nn.Module]:
        before = [group["threshold"] for group in self.factorized.param_groups]
        try:
            for group, own in zip(self.factorized.param_groups, before, strict=True):
                group["threshold"] = own if threshold is None else threshold
            with self.factorized.structured():
                yield self.model
        finally:
            for group, own in zip(self.factorized.param_groups, before, strict=True):
                group["threshold"] = own

    @override
    def numbers(self) -> Metrics:
        return dict(vars(self.factorized.read_out()))

    @override
    def factors(self) -> Iterator[Factors]:
        return self.factorized.measured(self.names)

    @override
    def strengths(self) -> list[Strength]:
        return [
            Strength([self.names[p] for p in group["params"]], group["lam"], float(group["lr"]), group["momentum"])
            for group in self.factorized.param_groups
            if group["depth"] > 1
        ]

    @override
    def spent(self, planned: float | None) -> float | None:
        return self.factorized.budget


class FactorsInModel(Factorized):
    """Those of a model that ``factorize`` has made, whatever trains it.

    Args:
        model: In training.
        optimizer: Over its factors.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        found = {part.name: _groups_of(part) for block in blocks_of(model) for part in block.parts}
        self.groups = {name: groups for name, groups in found.items() if groups is not None}

    @override
    @contextmanager
    def held(self, threshold: float | None = None) -> Iterator[nn.Module]:
        plain = deepcopy(self.model)
        collapse(plain, THRESHOLD if threshold is None else threshold)
        yield plain

    @override
    def structures(self, module: nn.Module) -> dict[str, Structure]:
        weights = dict(module.named_parameters())
        return {name: support(weights[name], groups) for name, groups in self.groups.items()}

    @override
    def numbers(self) -> Metrics:
        return {}

    @override
    @torch.no_grad()
    def settle_(self) -> None:
        for block in blocks_of(self.model):
            block.zero_below_(THRESHOLD)
            for factor in (factor for part in block.parts for factor in part.factors):
                # A momentum of before would move them away from zero again.
                for state in self.optimizer.state.get(factor, {}).values():
                    if isinstance(state, Tensor) and state.shape == factor.shape:
                        state.masked_fill_(factor == 0, 0.0)

    @override
    def finish_(self) -> None:
        if blocks_of(self.model):
            collapse(self.model)

    @override
    def free_(self) -> None:
        for block in blocks_of(self.model):
            for part in block.parts:
                part.factorization.lam = 0.0
        for group, _ in self._groups():
            group["weight_decay"] = 0.0

    @override
    def factors(self) -> Iterator[Factors]:
        return Handle(self.model).measured()

    def _groups(self) -> list[tuple[dict[str, Any], Block]]:
        """Param groups of the optimizer that hold factors, each with a block whose factors it holds."""
        owners = {id(part.factors[0]): block for block in blocks_of(self.model) for part in block.parts}
        found: list[tuple[dict[str, Any], Block]] = []
        for group in self.optimizer.param_groups:
            block = next((owners[id(param)] for param in group["params"] if id(param) in owners), None)
            if block is not None:
                found.append((group, block))
        return found

    @override
    def strengths(self) -> list[Strength]:
        # What the budget is for adaptive optimizers, nobody knows.
        return [
            Strength([block.name], block.lam, float(group["lr"]), group["momentum"])
            for group, block in self._groups()
            if "momentum" in group
        ]


class Progress:
    """What is planned before a factorized training, and recorded of every epoch.

    Args:
        structured: The model, before a schedule has changed a learning rate.
        factor: Of the learning rate at step 0, 1, ...
        steps: Of the training, a refit excepted.
        data: Whose validation samples the accuracy is of.
    """

    def __init__(self, structured: Factorized, factor: Callable[[int], float], steps: int, data: Data) -> None:
        self.structured = structured
        self.watch = Watch("supervised")
        self._strengths, self._factor, self._steps = structured.strengths(), factor, steps
        self._chance = _chance(data)
        self._thresholds: dict[str, Metrics] = {}

    def _plan(self, steps: int) -> list[Budget]:
        """Budgets of all groups of weights for the first steps."""
        return [
            plan_budget(s.lam, s.lr, steps, momentum=s.momentum, schedule=self._factor)
            for s in self._strengths
            if s.lr > 0 and steps > 0
        ]

    def begin(self) -> None:
        """Look at the start, and at the plan.

        Warns:
            UserWarning: If hardly any weight will become exactly zero.
        """
        self.watch.begin(self.structured.factors())
        for budget in self._plan(self._steps):
            if budget.too_small:
                self.watch.alarm("budget", f"hardly any weight will become exactly zero: {budget}")

    def report(self, metrics: Metrics) -> Metrics:
        """Numbers of an epoch.

        Args:
            metrics: What is known of it: where it is, how well the weights predict, how many are exactly zero.

        Returns:
            Budgets, compression ratio and diagnostics.
        """
        unit, epoch = cast("int", metrics["unit"]), cast("int", metrics["epoch"])
        # Balance is asked for when all have had the time for it.
        spent = min((budget.budget for budget in self._plan(min(unit, self._steps))), default=None)
        accuracy = cast("float | None", metrics.get("valid_accuracy"))
        found = self.watch.observe(
            self.structured.factors(), epoch, budget=spent, accuracy=accuracy, chance=self._chance
        )
        return self.summary(metrics) | cast("Metrics", found)

    def summary(self, metrics: Metrics) -> Metrics:
        """Budgets, compression ratio, alarms, and what comes of other thresholds where that was tried.

        Args:
            metrics: Where training is, and how much is exactly zero.
        """
        planned, spent = self._planned(self._steps), self._spent(cast("int", metrics["unit"]))
        found: Metrics = {**_compression(metrics), "alarms": list(self.watch.alarms)}
        if planned is not None and spent is not None:
            found |= {"budget_planned": planned, "budget_spent": spent}
        return found | ({"thresholds": self._thresholds} if self._thresholds else {})

    def _planned(self, steps: int) -> float | None:
        return max((budget.budget for budget in self._plan(steps)), default=None)

    def _spent(self, unit: int) -> float | None:
        return self.structured.spent(self._planned(min(unit, self._steps)))

    def try_thresholds(self, measure: Callable[[nn.Module], Metrics]) -> None:
        """Find what comes of other thresholds than that of the training: how much the choice matters.

        Args:
            measure: How much of a module is exactly zero, and how well it predicts.
        """
        for threshold in SWEEP:
            with self.structured.held(threshold) as module:
                metrics = measure(module)
            scores = {key: value for key, value in metrics.items() if key.startswith("valid")}
            self._thresholds[f"{threshold:.2g}"] = {**_compression(metrics), **scores}


def _compression(metrics: Metrics) -> Metrics:
    """Entries of the factorized weights over those that are not zero; None if all are, nothing if nobody counted."""
    layers = cast("Mapping[str, Mapping[str, int]]", metrics["layers"]).values()
    sizes = [(layer["total"] * layer["size"], layer["alive"] * layer["size"]) for layer in layers if "size" in layer]
    if not sizes:
        return {}
    total, alive = (sum(counts) for counts in zip(*sizes, strict=True))
    return {"compression_ratio": total / alive if alive else None}


def _groups_of(part: Part) -> Partition | None:
    """Which entries of a factorized weight become zero together; None if that is not what becomes of it."""
    match part.factorization:
        case Hadamard():
            return Elements()
        case Gates() as gates if len(part.value.shape) > 1:
            return Slices(gates.dim)
        case _:
            return None


def _chance(data: Data) -> float | None:
    """Accuracy of guessing the most common class; None where there are no classes or no validation samples."""
    if not data.classes or not data.valid:
        return None
    counts = torch.bincount(data.valid.targets.flatten(), minlength=data.classes)
    return float(counts.max()) / data.valid.targets.numel()


def structured_of(model: nn.Module, optimizer: Optimizer) -> Structured | None:
    """Where the exact zeros of a training are; None if it makes none.

    Args:
        model: In training.
        optimizer: Over its parameters, unwrapped.
    """
    if isinstance(optimizer, FactorizedSGD):
        return FactorsInOptimizer(model, optimizer)
    if blocks_of(model):
        return FactorsInModel(model, optimizer)
    return InOptimizer(model, optimizer) if isinstance(optimizer, StructuredOptimizer) else None


__all__ = ["Factorized", "FactorsInModel", "FactorsInOptimizer", "Progress", "Strength", "structured_of"]
