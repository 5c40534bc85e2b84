"""Runs of the baselines: any optimizer under masks, with the same data, budget and reports as the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from openwork.baselines import Baseline, Pruning, Training
from openwork.data import Batches, Data, Transform
from openwork.files import State
from openwork.metrics import support
from openwork.optim import StructuredOptimizer, unwrap
from openwork.partitions import Elements
from openwork.structure import Structure
from openwork.training.evaluation import Loss
from openwork.training.run import Metrics, Run
from openwork.training.schedules import Kind, Schedule
from openwork.training.structured import Structured
from openwork.training.supervised import Precision, accelerator_of
from openwork.training.trainer import Trainer
from openwork.wiring import Selection


def pruned(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    baseline: Baseline,
    *,
    data: Data,
    epochs: int,
    batch_size: int = 128,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    schedule: Kind = "stages",
    warmup: int = 0,
    clip: float | None = None,
    precision: Precision = "no",
    augment: Transform | None = None,
    include: Selection | None = None,
    exclude: Selection | None = None,
    seed: int = 0,
) -> Run:
    """A run that trains ``model`` under the masks of a baseline; a unit is one step, a period one epoch.

    ``epochs`` are all there is: fine-tuning and the rounds of a lottery ticket are among them. Where a baseline is made
    of several trainings, the learning rate goes through its whole schedule in each, squeezed into its length.

    Reports have the weights, and as structured ones those that ``finish`` would hand over; batch normalization is
    recalibrated for these. ``density`` is the fraction of the prunable weights that is kept at the moment.

    Args:
        model: Built; trained in place.
        loss: Mean over the samples of a batch, from outputs and targets.
        optimizer: Any, built over the model's parameters; none of this package's, which make zeros of their own.
        baseline: Such as ``RigL(density=0.1)``.
        data: Training, validation and test samples.
        epochs: Passes over the training samples, everything included, >= 1.
        batch_size: Samples of a batch, per process; SNIP looks at as many.
        milestones: Epochs after which ``lr`` is multiplied by ``gamma``, increasing.
        gamma: Factor at a milestone, in (0, 1].
        schedule: ``"stages"`` is that of ``milestones``; ``"cosine"`` lets ``lr`` grow linearly for ``warmup`` epochs,
            then fall to 0 along half a cosine, step by step.
        warmup: Epochs in which ``lr`` grows, >= 0.
        clip: Largest norm of all gradients together, those of masked entries left out, > 0; None for no clipping.
        precision: Of the forward pass, ``"no"`` or ``"bf16"``.
        augment: Transform of a batch of training inputs.
        include: Only these weights are pruned, see ``Masks``.
        exclude: These are not pruned, see ``Masks``.
        seed: Of the order of the samples, of ``augment``, and of random masks.

    Returns:
        The run.

    Raises:
        TypeError: If the optimizer is one of this package's.
        ValueError: If a number is out of range, options contradict each other, or the baseline does not fit.

    Warns:
        UserWarning: While training, if nothing is left of a weight.
    """
    if isinstance(unwrap(optimizer), StructuredOptimizer):
        raise TypeError(
            f"pruned: {type(unwrap(optimizer)).__name__} makes zeros of its own, which masks would mix with; take an "
            "optimizer such as torch.optim.SGD, or train without a baseline"
        )
    if precision == "fp16":
        raise ValueError("pruned: precision='fp16' leaves out steps, which masks count; take 'bf16' or 'no'")
    if clip is not None and not clip > 0:
        raise ValueError(f"pruned: clip must be above 0, got {clip}; leave it out for no clipping")
    rates = Schedule(schedule, epochs, milestones, gamma, warmup)
    accelerator = accelerator_of(precision)
    data = data.to(accelerator.device)
    batches = Batches(
        data.train,
        batch_size,
        seed=seed,
        transform=augment,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    trainer = Trainer(accelerator, model, loss, optimizer, data, batches, None, 1, "last")
    pruning = Pruning(
        baseline,
        model,
        trainer.optimizer,
        steps=epochs * trainer.period,
        period=trainer.period,
        seed=seed,
        include=include,
        exclude=exclude,
    )
    if clip is not None:
        # After the masks, whose hook was there first.
        trainer.optimizer.register_step_pre_hook(lambda *_: _clip(model, clip))
    trainer.structured = Masked(model, pruning)
    trainings = baseline.trainings(pruning.steps)
    trainer.decay = LambdaLR(trainer.optimizer, _factor(rates.factor(trainer.period), trainings, pruning.steps))
    # The same samples in every process, so that masks are the same.
    run = _PrunedRun(trainer, pruning, Batches(data.train, min(batch_size, len(data.train)), seed=seed))
    return Run(
        model=model,
        example=data.train.inputs[:2],
        units=pruning.steps,
        period=trainer.period,
        advance=run.advance,
        finish=run.finish,
        evaluate=trainer.evaluate,
        state_dict=run.state_dict,
        load_state_dict=run.load_state_dict,
    )


class Masked(Structured):
    """Weights whose zeros are those of masks.

    Args:
        model: In training.
        pruning: Its masks.
    """

    def __init__(self, model: nn.Module, pruning: Pruning) -> None:
        self.model, self.pruning = model, pruning

    @override
    @contextmanager
    def held(self) -> Iterator[nn.Module]:
        with self.pruning.settled():
            yield self.model

    @override
    def structures(self, module: nn.Module) -> dict[str, Structure]:
        weights = dict(module.named_parameters())
        return {name: support(weights[name], Elements()) for name in self.pruning.masks.weights}

    @override
    def numbers(self) -> Metrics:
        return {"density": self.pruning.masks.alive / self.pruning.masks.total}

    @override
    def settle_(self) -> None:
        self.pruning.settle_()

    @override
    def free_(self) -> None:
        pass


class _PrunedRun:
    """A supervised run that begins with masks, and saves them.

    Args:
        trainer: Does the steps.
        pruning: Follows its optimizer.
        batches: Of which the first is what masks are chosen with.
    """

    def __init__(self, trainer: Trainer, pruning: Pruning, batches: Batches) -> None:
        self.trainer, self.pruning, self.batches = trainer, pruning, batches

    def _begin(self) -> None:
        if not self.pruning.begun:
            inputs, targets = next(self.batches.epoch(0))
            self.pruning.begin(self.trainer.loss, inputs, targets)

    def advance(self, units: int) -> Metrics:
        """See ``Run``."""
        self._begin()
        return self.trainer.advance(units)

    def finish(self) -> nn.Module:
        """See ``Run``."""
        self._begin()
        module = self.trainer.finish()
        self.pruning.close()
        return module

    def state_dict(self) -> Mapping[str, State]:
        """See ``Run``."""
        return {**self.trainer.state_dict(), "pruning": self.pruning.state_dict()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See ``Run``."""
        self.trainer.load_state_dict(state)
        self.pruning.load_state_dict(cast("Mapping[str, Any]", state["pruning"]))


def _clip(model: nn.Module, norm: float) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), norm)


def _factor(schedule: Callable[[int], float], trainings: Sequence[Training], steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at step 0, 1, ... of a run.

    Args:
        schedule: The factor of one training of that many steps.
        trainings: Those of the run, in order.
        steps: Of the run.
    """

    def factor(step: int) -> float:
        training = next((one for one in trainings if step < one.stop), trainings[-1])
        position, length = training.skipped + step - training.start, training.skipped + training.stop - training.start
        return training.rate * schedule(position * steps // length)

    return factor


__all__ = ["Masked", "pruned"]
