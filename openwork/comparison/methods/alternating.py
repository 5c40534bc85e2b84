"""Alternating minimization (TIAM) with a penalty."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from typing_extensions import override

from openwork.altmin import AMTrainer, ExactWeights
from openwork.comparison.method import Method, geometric
from openwork.comparison.methods.scale import largest_strength
from openwork.comparison.task import Task
from openwork.data import Data, Split
from openwork.penalties import L1, GroupLasso, Penalty
from openwork.training import Metrics, Run, alternating_run, evaluate, processes

# Samples at a time where nothing is trained.
EVALUATED = 4096
WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Alternating(Method):
    """TIAM with exact couplings, on all training samples at once, without backpropagation.

    The budget is one of time: there are ``sweeps_per_epoch`` sweeps for each epoch. On the digits two of them take as
    long as an epoch of 64 samples a step does with its optimizer and reports: 80 sweeps 3.4 s, 40 epochs 2.4 s (RigL)
    to 6.5 s (RAMDA), on one busy core.

    Inputs of a fully connected network are centered and scaled while it trains, and the network that is handed over
    takes them as they are. A strength is that of the penalty.

    Args:
        penalty: Of single weights (l1), or of the input features of each weight (group lasso).
        rho: Weight of the links between layers, above 0.
        sweeps_per_epoch: Sweeps that cost as much as an epoch, > 0.
        weakest: First strength of a path, as a fraction of ``largest_strength``.
        strongest: Last strength of a path, as a fraction of ``largest_strength``.
    """

    penalty: Literal["l1", "group"]
    rho: float = 0.3
    sweeps_per_epoch: float = 2.0
    weakest: float = 2e-3
    strongest: float = 0.04

    def _penalty(self, strength: float) -> Penalty:
        match self.penalty:
            case "l1":
                return L1(strength)
            case "group":
                return GroupLasso(strength)

    @override
    def about(self) -> str:
        penalty = "an L1 penalty" if self.penalty == "l1" else "a group lasso on the input features of each weight"
        return f"Alternating minimization (TIAM) without backpropagation, with {penalty}."

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        data = task.data(0)
        mean, scale = _center(task.model(0), data.train.inputs)
        centered = replace(task, data=lambda seed: _standardized(data, mean, scale))
        largest = largest_strength(centered, self._penalty(1.0))
        return geometric(largest * self.weakest, largest * self.strongest, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        if task.loss is not cross_entropy:
            raise ValueError(
                f"alternating minimization knows the loss cross_entropy, and task {task.name} has another; leave the "
                "method out"
            )
        data, model = task.data(seed), task.model(seed).to(processes().device)
        names = [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, WEIGHTS)]
        trainer = AMTrainer(
            cast("nn.Sequential", model),
            rho=self.rho,
            penalties=dict.fromkeys(names, self._penalty(strength)),
            w_solver=ExactWeights(),
        )
        mean, scale = _center(model, data.train.inputs)
        sweeps = max(1, round(epochs * self.sweeps_per_epoch))
        # As with every other method, the last weights are taken, and not the best on the validation samples.
        run = alternating_run(
            trainer,
            _standardized(data, mean, scale),
            sweeps=sweeps,
            every=max(1, round(self.sweeps_per_epoch)),
            choose_from=sweeps,
        )

        def finish() -> nn.Module:
            return _uncentered(run.finish(), mean, scale)

        def measure(module: nn.Module) -> Metrics:
            device = next(module.parameters()).device
            found: Metrics = {}
            for name, split in (("valid", data.valid), ("test", data.test)):
                if split:
                    numbers = evaluate(module, task.loss, split.to(device), batch_size=EVALUATED, classes=data.classes)
                    found |= {f"{name}_{key}": value for key, value in numbers.items()}
            return found

        return replace(run, example=data.train.inputs[:2].to(processes().device), finish=finish, evaluate=measure)

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"rho": (0.1, 3.0)}


def _first(model: nn.Module) -> nn.Linear | None:
    """The layer that reads the inputs, if it is fully connected."""
    first = next((module for module in model.modules() if isinstance(module, WEIGHTS)), None)
    return first if isinstance(first, nn.Linear) else None


def _center(model: nn.Module, inputs: Tensor) -> tuple[Tensor, float]:
    """What is subtracted from the inputs, and what divides them.

    Without this the mean of all samples is the direction of largest curvature by far, which bounds the steps.
    """
    first, flat = _first(model), inputs.flatten(1)
    if first is None or first.bias is None or not inputs.is_floating_point():
        return torch.zeros(()), 1.0
    return flat.mean(0), float(flat.std(0, correction=0).square().mean().sqrt())


def _standardized(data: Data, mean: Tensor, scale: float) -> Data:
    if mean.ndim == 0:
        return data
    flat = replace(data, train=_flat(data.train), valid=_flat(data.valid), test=_flat(data.test))
    return flat.standardize(mean, scale)


def _flat(split: Split) -> Split:
    return Split(split.inputs.flatten(1), split.targets)


@torch.no_grad()
def _uncentered(model: nn.Module, mean: Tensor, scale: float) -> nn.Module:
    """A copy that takes inputs as they are; its zeros are the same."""
    model = deepcopy(model)
    first = _first(model)
    if first is not None and mean.ndim:
        first.weight.div_(scale)
        first.bias.sub_(first.weight @ mean.to(first.weight.device))
    return model.eval()


__all__ = ["Alternating"]
