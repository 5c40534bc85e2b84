"""Runs of alternating minimization, whose unit is a sweep."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, Sign
from openwork.altmin.homotopy import hardened
from openwork.data import Data, Split
from openwork.files import Json, State
from openwork.metrics import sparsity
from openwork.training.evaluation import evaluate
from openwork.training.processes import processes
from openwork.training.run import Metrics, Run

# Samples at a time where nothing is trained.
EVALUATION_BATCH = 4096


def alternating_run(
    trainer: AMTrainer,
    data: Data,
    *,
    sweeps: int,
    every: int = 5,
    choose_from: int = 0,
) -> Run:
    """A run that trains by alternating minimization on all training samples; a unit is a sweep.

    Weights are chosen by their loss on the validation samples, penalties included, after each sweep. Reports have the
    objective, the loss of the network beside that of its surrogate, and how far links and activations are from holding.
    Checkpoints hold all codes, until the last sweep is done: from then on they hold the network alone.

    Args:
        trainer: Around the model, not started.
        data: Training, validation and test samples.
        sweeps: Of the whole run, >= 1.
        every: Sweeps between two reports, and thus between two checkpoints, >= 1.
        choose_from: Sweeps before which weights are not chosen, such as those in which signs are ramps, in
            [0, ``sweeps``].

    Returns:
        The run.

    Raises:
        TypeError: If the samples are of the wrong kind for the model.
        ValueError: If a number is out of range, the samples do not fit the model, there are no validation samples, or
            several processes run.
        MemoryError: If the codes do not fit into memory.
    """
    if sweeps < 1:
        raise ValueError(f"alternating_run: sweeps must be at least 1, got {sweeps}")
    if every < 1:
        raise ValueError(f"alternating_run: every must be at least 1 sweep between two reports, got {every}")
    if not 0 <= choose_from <= sweeps:
        raise ValueError(f"alternating_run: choose_from must be from 0 to sweeps={sweeps}, got {choose_from}")
    if not data.valid:
        raise ValueError(f"alternating_run: weights are chosen on validation samples, and {data.name} has none")
    if processes().num_processes > 1:
        raise ValueError(
            f"alternating_run: alternating minimization runs in one process, got {processes().num_processes}; start it "
            "without a launcher"
        )
    device = next(trainer.model.parameters()).device
    # Samples that come in chunks stay where they are: there may be too many for the device.
    train = data.train if trainer.chunk_size is not None else data.train.to(device)
    data = replace(data, train=train, valid=data.valid.to(device), test=data.test.to(device))
    run = _Alternation(trainer, data, sweeps, every, choose_from)
    return Run(
        model=trainer.model,
        example=data.train.inputs[:2].to(device),
        units=sweeps,
        period=every,
        advance=run.advance,
        finish=run.finish,
        evaluate=run.evaluate,
        state_dict=run.state_dict,
        load_state_dict=run.load_state_dict,
    )


class _Alternation:
    """State and sweeps of a run; the arguments are those of ``alternating_run``.

    Args:
        trainer: Starts here.
        data: On the model's device.
        sweeps: Of the whole run.
        every: Sweeps between two reports.
        choose_from: Sweeps before which weights are not chosen.
    """

    def __init__(self, trainer: AMTrainer, data: Data, sweeps: int, every: int, choose_from: int) -> None:
        self.trainer, self.data = trainer, data
        self.sweeps, self.every, self.choose_from = sweeps, every, choose_from
        self.model = trainer.model
        self.unit = 0
        self.ended: Metrics | None = None
        trainer.start(data.train.inputs, data.train.targets, (data.valid.inputs, data.valid.targets))

    def advance(self, units: int) -> Metrics:
        """See ``Run``."""
        for _ in range(min(units, self.every - self.unit % self.every, self.sweeps - self.unit)):
            self.trainer.sweep()
            self.unit += 1
            if self.unit >= self.choose_from:
                self.trainer.evaluate()
        return self._report() if self.unit % self.every == 0 or self.unit == self.sweeps else {}

    def _report(self) -> Metrics:
        series = cast("dict[str, list[Json]]", self.trainer.report())
        names = ("objective", "surrogate_loss", "link_residual", "coupling_gap", "weight_norm", "rho", "restarts")
        metrics: Metrics = {"unit": self.unit, "sweep": self.unit, **{name: series[name][-1] for name in names}}
        # Ramps are evaluated as the signs that they become.
        with hardened([sign.activation for sign in _signs(self.model)]):
            metrics["train_loss"] = self.trainer.forward_gap().forward
            metrics |= self._evaluate(self.model, "valid", self.data.valid)
        return metrics | self._sparsity(self.model)

    def _losses(self, module: nn.Module, split: Split) -> Metrics:
        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            return self.trainer.loss.value(outputs, targets) / len(targets)

        return evaluate(module, loss, split, batch_size=EVALUATION_BATCH, classes=self.data.classes)

    def _evaluate(self, module: nn.Module, name: str, split: Split) -> Metrics:
        return {f"{name}_{key}": value for key, value in self._losses(module, split).items()}

    def _sparsity(self, module: nn.Module) -> Metrics:
        found = sparsity(module, self.trainer.structures() if module is self.model else None)
        groups = [layer for layer in found.layers.values() if layer.size is not None]
        metrics = cast("Metrics", found.record())
        if groups:
            metrics |= {"alive": sum(layer.alive for layer in groups), "total": sum(layer.total for layer in groups)}
        return metrics

    def finish(self) -> nn.Module:
        """See ``Run``."""
        if self.ended is None:
            self.trainer.finish()
            chosen = self.trainer.chosen_sweep
            self.ended = {"chosen_sweep": self.unit if chosen is None else chosen, "refitted": self.trainer.readout}
        return self.model.eval()

    def evaluate(self, module: nn.Module) -> Metrics:
        """See ``Run``."""
        metrics: Metrics = {"unit": self.unit, "sweep": self.unit, **self._sparsity(module)}
        if module is self.model and self.ended is not None:
            metrics["alternating"] = {**self.ended, "zero_inputs": _zero_inputs(module)}
        metrics |= self._evaluate(module, "valid", self.data.valid)
        return metrics | self._evaluate(module, "test", self.data.test) if self.data.test else metrics

    def state_dict(self) -> Mapping[str, State]:
        """See ``Run``."""
        if self.unit < self.sweeps:
            return {"unit": self.unit, "trainer": self.trainer.state_dict()}
        model = self.finish()
        return {"unit": self.unit, "trainer": None, "model": model.state_dict(), "ended": cast("State", self.ended)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Run``."""
        self.unit = state["unit"]
        if state["trainer"] is not None:
            self.trainer.load_state_dict(state["trainer"])
            self.ended = None
            return
        self.model.load_state_dict(state["model"])
        for sign in _signs(self.model):
            sign.activation.slope = torch.inf
        self.ended = state["ended"]


def _signs(model: nn.Module) -> list[Sign]:
    return [module for module in model.modules() if isinstance(module, Sign)]


def _zero_inputs(model: nn.Module) -> list[Json]:
    """Which inputs a fully connected network does not read, since all their weights are exactly zero."""
    first = next(module for module in model.modules() if not list(module.children()) and list(module.parameters()))
    if not isinstance(first, nn.Linear):
        return []
    return cast("list[Json]", (first.weight == 0).all(0).nonzero().flatten().tolist())
