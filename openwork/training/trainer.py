"""State and steps of a supervised run."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from openwork.data import Batches, Data
from openwork.files import State
from openwork.metrics import sparsity
from openwork.optim import ProximalOptimizer, Stages, unwrap
from openwork.running_statistics import recalibrate_, statistics_kept
from openwork.training.evaluation import Loss, evaluate
from openwork.training.factorized import Factorized, Progress, structured_of
from openwork.training.phases import Refit, rebuild_, take_out_, taken
from openwork.training.run import Metrics
from openwork.training.schedules import Schedule

# Samples at a time where no gradient is needed, and batches from which batch normalization learns its statistics.
EVALUATION_BATCH = 1024
RECALIBRATION_BATCHES = 100


@dataclass(frozen=True)
class _Best:
    """The model that ``finish`` will hand over, were it called now.

    Args:
        score: The smaller the better.
        model: State of the model with its structured weights.
        numbers: When that was, and the structure.
    """

    score: float
    model: dict[str, Tensor]
    numbers: Metrics


class Trainer:
    """State and steps of a supervised run; the arguments are those of ``supervised``.

    Args:
        accelerator: Of the process.
        model: Trained in place.
        loss: From outputs and targets.
        optimizer: Over the model's parameters.
        data: On the accelerator's device.
        batches: Of its training samples.
        clip: Largest norm of all gradients together, if any.
        accumulate: Batches of one step.
        select: What ``finish`` hands over.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer,
        data: Data,
        batches: Batches,
        clip: float | None,
        accumulate: int,
        select: Literal["last", "best"],
    ) -> None:
        self.accelerator, self.loss, self.data, self.batches = accelerator, loss, data, batches
        self.clip, self.accumulate, self.select = clip, accumulate, select
        self.period = -(-len(batches) // accumulate)
        self.model = model
        # What goes forward may be a wrapper around the model, and what steps one around the optimizer.
        self.forward, self.stepper = accelerator.prepare(model, optimizer)
        # Autocast is on where training goes forward; the model itself stays plain, to be evaluated and handed over.
        for name in ("forward", "_original_forward"):
            vars(model).pop(name, None)
        self.optimizer = unwrap(optimizer)
        self.structured = structured_of(model, self.optimizer)
        self.progress: Progress | None = None
        self.stages: Stages | None = None
        self.decay: LambdaLR | None = None
        self.unit = 0
        self.loss_sum = torch.zeros((), device=accelerator.device)
        self.best: _Best | None = None
        self.built = model
        self.taken: list[Mapping[str, Any]] = []
        self.shrink_at: frozenset[int] = frozenset()
        self.refit_at: int | None = None
        self.refit_lr = 0.0
        self.refit: Refit | None = None
        self._coming: Iterator[tuple[Tensor, Tensor]] = iter(())

    def plan(self, rates: Schedule) -> None:
        """Divide training into stages, and let the learning rate follow its schedule."""
        factor = rates.factor(self.period)
        if isinstance(self.structured, Factorized):
            self.progress = Progress(self.structured, factor, rates.epochs * self.period, self.data)
        if isinstance(self.optimizer, ProximalOptimizer):
            # These restart at a milestone too.
            milestones, gamma = rates.milestones, rates.gamma
            self.stages = Stages(self.optimizer, milestones, gamma, steps_per_epoch=self.period, total=rates.epochs)
        if rates.kind == "cosine" or (rates.milestones and self.stages is None):
            self.decay = LambdaLR(self.optimizer, factor)

    def plan_phases(
        self, shrink_after: Sequence[int], refit_after: int | None, refit_lr: float | None, gamma: float
    ) -> None:
        """Epochs after which units are taken out, and after which the penalty is gone."""
        self.shrink_at = frozenset(epoch * self.period for epoch in shrink_after)
        self.refit_at = None if refit_after is None else refit_after * self.period
        self.refit_lr = float(self.optimizer.param_groups[0]["lr"]) * gamma if refit_lr is None else refit_lr

    def _begin_phase(self) -> None:
        """What happens between two epochs."""
        if self.progress is not None and self.unit == 0:
            self.progress.begin()
        if self.unit in self.shrink_at:
            shrunk = take_out_(self.model, self.data.train.inputs[:2], self.optimizer)
            if shrunk is not None:
                self.taken.append(taken(shrunk))
                self._use(shrunk.model)
        if self.unit == self.refit_at and self.refit is None:
            if self.structured is not None:
                self.structured.settle_()
            self.refit = Refit(self.optimizer, self.refit_lr, self.structured)
            self.best = None

    def _use(self, model: nn.Module) -> None:
        """Train another model from now on, with whose parameters the optimizer goes on already."""
        self.model = model
        self.structured = structured_of(model, self.optimizer)
        if self.progress is not None and isinstance(self.structured, Factorized):
            self.progress.structured = self.structured
        self.forward = self.accelerator.prepare_model(model)
        for name in ("forward", "_original_forward"):
            vars(model).pop(name, None)

    def advance(self, units: int) -> Metrics:
        """See ``Run``."""
        if self.unit % self.period == 0:
            self._begin_phase()
        self.forward.train()
        for _ in range(min(units, self.period - self.unit % self.period)):
            self._step()
        return self._report() if self.unit % self.period == 0 else {}

    def _step(self) -> None:
        epoch, position = divmod(self.unit, self.period)
        if position == 0:
            self.loss_sum.zero_()
        batches = list(islice(self._coming, self.accumulate))
        if not batches:
            self._coming = self.batches.epoch(epoch, start=position * self.accumulate)
            batches = list(islice(self._coming, self.accumulate))
        for inputs, targets in batches[:-1]:
            with self.accelerator.no_sync(self.forward):
                self._backward(inputs, targets, len(batches))
        self._backward(*batches[-1], len(batches))
        if self.clip is not None:
            self.accelerator.clip_grad_norm_(self.forward.parameters(), self.clip)
        if self.refit is not None:
            self.refit.before_step()
        self.stepper.step()
        self.stepper.zero_grad()
        if self.decay is not None and self.refit is None:
            self.decay.step()
        self.unit += 1

    def _backward(self, inputs: Tensor, targets: Tensor, parts: int) -> None:
        with self.accelerator.autocast():
            loss = self.loss(self.forward(inputs), targets)
        self.accelerator.backward(loss / parts if parts > 1 else loss)
        self.loss_sum += loss.detach() / parts

    def _report(self) -> Metrics:
        group = self.optimizer.param_groups[0]
        metrics: Metrics = {
            **self._position(),
            "train_loss": float(cast("Tensor", self.accelerator.reduce(self.loss_sum, "mean"))) / self.period,
            "lr": float(group["lr"]),
        }
        if self.data.valid:
            metrics |= self._evaluate(self.model, "valid")
        if self.structured is None:
            return metrics | self._sparsity(self.model)
        with self.structured.held() as module, statistics_kept(module):
            if self.data.valid:
                self._recalibrate(module)
                metrics |= self._evaluate(module, "valid", "structured_")
            structure = self._sparsity(module)
            self._remember(module, metrics, structure)
        metrics |= structure
        return metrics if self.progress is None else metrics | self.progress.report(metrics)

    def _position(self) -> Metrics:
        return {"unit": self.unit, "epoch": self.unit // self.period}

    def _evaluate(self, module: nn.Module, split: Literal["valid", "test"], prefix: str = "") -> Metrics:
        samples = self.data.valid if split == "valid" else self.data.test
        found = evaluate(module, self.loss, samples, batch_size=EVALUATION_BATCH, classes=self.data.classes)
        return {f"{prefix}{split}_{key}": value for key, value in found.items()}

    def _sparsity(self, module: nn.Module) -> Metrics:
        if self.structured is None:
            return cast("Metrics", sparsity(module).record())
        found = sparsity(module, self.structured.structures(module))
        return cast("Metrics", found.record()) | self.structured.numbers()

    def _recalibrate(self, module: nn.Module) -> None:
        recalibrate_(module, islice(self.batches.epoch(0), RECALIBRATION_BATCHES))

    def _remember(self, module: nn.Module, metrics: Metrics, structure: Metrics) -> None:
        """Keep a copy of a module that holds the structured weights, if it is the best so far."""
        if self.stages is None:
            # Which weights of a factorized model are zero is open until its refit.
            final = self.refit is not None
        else:
            final = self.stages.in_last_stage and structure["averaging"] == 1
        if self.select == "last" or not final:
            return
        accuracy = metrics.get("structured_valid_accuracy")
        score = cast("float", metrics["structured_valid_loss"]) if accuracy is None else -cast("float", accuracy)
        if self.best is None or score < self.best.score:
            self.best = _Best(score, deepcopy(module.state_dict()), self._position() | structure)

    def finish(self) -> nn.Module:
        """See ``Run``."""
        if self.progress is not None and self.best is None:
            self.progress.try_thresholds(self._at_threshold)
        if self.structured is not None:
            self.structured.finish_()
        if self.best is not None:
            self.model.load_state_dict(self.best.model)
        elif self.structured is not None:
            self._recalibrate(self.model)
        return self.model.eval()

    def _at_threshold(self, module: nn.Module) -> Metrics:
        """How much of a factorized model is zero, and how well the rest predicts."""
        if not self.data.valid:
            return self._sparsity(module)
        with statistics_kept(module):
            self._recalibrate(module)
            return self._sparsity(module) | self._evaluate(module, "valid")

    def evaluate(self, module: nn.Module) -> Metrics:
        """See ``Run``."""
        if module is not self.model:
            # Structures are those of the optimizer's own weights.
            metrics = self._position() | cast("Metrics", sparsity(module).record())
        elif self.best is None:
            metrics = self._position() | self._sparsity(module)
        else:
            metrics = self.best.numbers
        if self.progress is not None and module is self.model:
            metrics = metrics | self.progress.summary(metrics)
        if self.data.valid:
            metrics = metrics | self._evaluate(module, "valid")
        return metrics | self._evaluate(module, "test") if self.data.test else metrics

    def state_dict(self) -> Mapping[str, State]:
        """See ``Run``."""
        scaler = self.accelerator.scaler
        return {
            "unit": self.unit,
            "loss_sum": self.loss_sum.clone(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stages": None if self.stages is None else self.stages.state_dict(),
            "decay": None if self.decay is None else {"last_epoch": self.decay.last_epoch},
            "scaler": None if scaler is None else scaler.state_dict(),
            "best": None if self.best is None else vars(self.best),
            "taken": list(self.taken),
            "zeros": None if self.refit is None else self.refit.zeros(),
            "watch": None if self.progress is None else self.progress.watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Run``."""
        self.taken = list(state["taken"])
        if self.taken:
            self._use(rebuild_(self.built, self.taken, self.optimizer))
        zeros: Sequence[Tensor] | None = state["zeros"]
        self.refit = None if zeros is None else Refit(self.optimizer, self.refit_lr, self.structured)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.refit is not None and zeros is not None:
            self.refit.set_zeros(zeros)
        if self.stages is not None:
            self.stages.load_state_dict(state["stages"])
        if self.decay is not None:
            self.decay.last_epoch = state["decay"]["last_epoch"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.progress is not None:
            self.progress.watch.load_state_dict(state["watch"])
        self.best = None if state["best"] is None else _Best(**state["best"])
        self.unit = state["unit"]
        self.loss_sum.copy_(state["loss_sum"])
        self._coming = iter(())
