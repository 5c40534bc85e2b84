"""The common run: a model, a loss, an optimizer, and data in memory."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.data import Batches, Data
from openwork.training.evaluation import Loss
from openwork.training.factorized import Factorized, FactorsInModel
from openwork.training.processes import processes
from openwork.training.run import Run
from openwork.training.schedules import Kind, Schedule
from openwork.training.trainer import Trainer

Precision = Literal["no", "bf16", "fp16"]
Transform = Callable[[Tensor, torch.Generator], Tensor]


def supervised(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    *,
    data: Data,
    epochs: int,
    batch_size: int = 128,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    schedule: Kind = "stages",
    warmup: int = 0,
    clip: float | None = None,
    accumulate: int = 1,
    precision: Precision = "no",
    augment: Transform | None = None,
    select: Literal["last", "best"] = "last",
    refit: int = 0,
    refit_lr: float | None = None,
    shrink_after: Sequence[int] = (),
    seed: int = 0,
) -> Run:
    """A run that trains ``model`` on ``data``; a unit is one step of the optimizer, a period one epoch.

    At every report both the weights and the structured weights are evaluated, on validation samples only. Batch
    normalization is recalibrated for the structured weights, whose activations differ from those of the weights. With
    factorized weights, reports also have the collapse budget and the diagnostics of the factors.

    Args:
        model: Built; trained in place.
        loss: Mean over the samples of a batch, from outputs and targets.
        optimizer: Built over the model's parameters; this package's, or any other.
        data: Training, validation and test samples.
        epochs: Passes over the training samples, >= 1.
        batch_size: Samples of a batch, per process.
        milestones: Epochs after which a new stage begins, increasing; ``lr`` is multiplied by ``gamma``.
        gamma: Factor at a milestone, in (0, 1].
        schedule: ``"stages"`` is that of ``milestones``; ``"cosine"`` lets ``lr`` grow linearly for ``warmup`` epochs,
            then fall to 0 along half a cosine, step by step.
        warmup: Epochs in which ``lr`` grows, >= 0.
        clip: Largest norm of all gradients together, > 0; None for no clipping.
        accumulate: Batches whose gradients are averaged into one step, >= 1.
        precision: Of the forward pass; weights and state stay as they are.
        augment: Transform of a batch of training inputs.
        select: What ``finish`` hands over: the last structured weights, or those with the best validation loss (the
            best accuracy, where there are classes) of the last stage once the weights are exactly structured.
        refit: Epochs after the others in which there is no penalty and what is zero stays zero, >= 0.
        refit_lr: Learning rate of those; default that of the first stage times ``gamma``.
        shrink_after: Epochs after which what is zero by then is really taken out, so that the rest of the training runs
            on a smaller model; increasing. The weights become exactly structured there.
        seed: Of the order of the samples and of ``augment``.

    Returns:
        The run.

    Raises:
        ValueError: If a number is out of range, options contradict each other, or ``select`` is ``"best"`` without
            validation samples, or without a refit where weights are factorized.

    Warns:
        UserWarning: If the last stage is too short for ``averaging`` to reach 1. While training, if the collapse budget
            of factorized weights is too small, or their diagnostics say that something goes wrong.
    """
    rates = Schedule(schedule, epochs, milestones, gamma, warmup)
    if accumulate < 1:
        raise ValueError(f"supervised: accumulate must be a positive integer, got {accumulate}")
    if clip is not None and not clip > 0:
        raise ValueError(f"supervised: clip must be above 0, got {clip}; leave it out for no clipping")
    if refit < 0:
        raise ValueError(f"supervised: refit must be at least 0, got {refit}")
    if refit_lr is not None and not refit_lr > 0:
        raise ValueError(f"supervised: refit_lr must be above 0, got {refit_lr}; leave it out for the default")
    if any(b <= a for a, b in pairwise((0, *shrink_after))) or any(e > epochs for e in shrink_after):
        raise ValueError(
            f"supervised: shrink_after must increase from 1 to {epochs} epochs at most, got {list(shrink_after)}"
        )
    if select == "best" and not data.valid:
        raise ValueError(f"supervised: select='best' needs validation samples, and {data.name} has none")
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
    trainer = Trainer(accelerator, model, loss, optimizer, data, batches, clip, accumulate, select)
    if select == "best" and not refit and isinstance(trainer.structured, Factorized):
        raise ValueError(
            "supervised: select='best' needs a refit where weights are factorized, since before that their zeros are "
            "not final; take refit=1 or more, or select='last'"
        )
    if shrink_after and isinstance(trainer.structured, FactorsInModel):
        raise ValueError(
            "supervised: shrink_after cannot cut a model whose weights are factors; leave it out and shrink after the "
            "training, or train with FactorizedSGD"
        )
    trainer.plan_phases(shrink_after, epochs if refit else None, refit_lr, gamma)
    trainer.plan(rates)
    return Run(
        model=model,
        example=data.train.inputs[:2],
        units=(epochs + refit) * trainer.period,
        period=trainer.period,
        advance=trainer.advance,
        finish=trainer.finish,
        evaluate=trainer.evaluate,
        state_dict=trainer.state_dict,
        load_state_dict=trainer.load_state_dict,
    )


def accelerator_of(precision: Precision) -> Accelerator:
    """The accelerator of this process, which from now on draws random numbers of its own, such as those of dropout.

    Args:
        precision: Of the forward pass.

    Raises:
        ValueError: If an earlier run of this process had another precision.
    """
    here = processes()
    if here.process_index:
        # The first draws those of a single process.
        torch.manual_seed(torch.initial_seed() + here.process_index)
    try:
        return Accelerator(mixed_precision=precision)
    except ValueError as error:
        # Accelerate has one precision for all of a process.
        raise ValueError(
            f"supervised: precision={precision!r} differs from that of an earlier run of this process; give each "
            "precision a process of its own"
        ) from error
