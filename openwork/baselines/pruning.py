"""A baseline at work: masks that hold whatever the optimizer does."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.baselines.baseline import Baseline, Loss
from openwork.baselines.masks import Masks
from openwork.files import State
from openwork.wiring import Selection


class Pruning:
    """A baseline in a training loop, which stays as it is.

    ::

        pruning = Pruning(RigL(density=0.1), model, optimizer, steps=10_000)
        pruning.begin(loss, inputs, targets)
        for inputs, targets in batches:
            loss(model(inputs), targets).backward()
            optimizer.step()  # masks are updated and held
            optimizer.zero_grad()
        pruning.settle_()

    After every step of any optimizer masked entries are exactly zero. Their gradients are zero before it, and their
    entries in the optimizer's state (momentum and whatever else has the shape of the weight) when they are masked, so
    that they come back, if they do, with the state of the first step.

    Args:
        baseline: What decides about the masks.
        model: Trained in place.
        optimizer: Over its parameters. Closures are supported.
        steps: Of the whole training, everything included.
        period: Steps of an epoch.
        seed: Of random masks.
        include: See ``Masks``.
        exclude: See ``Masks``.

    Raises:
        ValueError: If the schedule of the baseline does not fit into the training, there is no weight to prune, or the
            optimizer trains none of them.
    """

    def __init__(
        self,
        baseline: Baseline,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        steps: int,
        period: int = 1,
        seed: int = 0,
        include: Selection | None = None,
        exclude: Selection | None = None,
    ) -> None:
        name = type(baseline).__name__
        for label, number in (("steps", steps), ("period", period)):
            if number < 1:
                raise ValueError(f"{name}: {label} must be at least 1, got {number}")
        baseline.check(steps)
        self.baseline, self.model, self.optimizer = baseline, model, optimizer
        self.steps, self.period, self.seed = steps, period, seed
        self.masks = Masks(model, include, exclude)
        trained = {param for group in optimizer.param_groups for param in group["params"]}
        if trained.isdisjoint(self.masks.weights.values()):
            raise ValueError(
                f"{name}: the optimizer trains no prunable weight of the model; build it over its parameters"
            )
        #: Whether the first masks are chosen.
        self.begun = False
        #: Steps done.
        self.step = 0
        #: Tensors that a method remembers, by name.
        self.memory: dict[str, Tensor] = {}
        # Where there is nothing to hold, nothing is done.
        self._gone: dict[str, Tensor] = {}
        self._hooks = (
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        )

    def begin(self, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        """Choose the first masks; to be called once, before the first step, unless a state is loaded.

        Args:
            loss: Mean over the samples of a batch, from outputs and targets.
            inputs: Of a batch of training samples, ``(N, ...)``.
            targets: Of these.
        """
        self.begun = True
        self.baseline.begin(self, loss, inputs, targets)

    # -- what baselines call ------------------------------------------------------------------------------------------

    def keep_(self, kept: Mapping[str, Tensor]) -> None:
        """Mask everything else; what was masked before and is kept now is zero and can move again.

        Args:
            kept: One boolean tensor for each weight.

        Warns:
            UserWarning: If nothing of a weight is kept.
        """
        for name, before in self.masks.kept.items():
            if bool(before.any()) and not bool(kept[name].any()):
                warn(
                    f"{type(self.baseline).__name__}: nothing is left of {name!r} at this density, so nothing goes "
                    "through it; take a larger density, or another method",
                    stacklevel=2,
                )
        self.drop_({name: ~mask for name, mask in kept.items()})
        self._use(kept)

    @torch.no_grad()
    def drop_(self, gone: Mapping[str, Tensor]) -> None:
        """Make entries zero, and what the optimizer remembers of them, whether or not they are masked.

        Args:
            gone: One boolean tensor for each weight.
        """
        for name, weight in self.masks.weights.items():
            for value in (weight, *self.optimizer.state.get(weight, {}).values()):
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(gone[name], 0.0)

    def skip_step_(self) -> None:
        """Let the step that has begun change nothing: parameters without gradient do not move."""
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                param.grad = None

    # -- hooks --------------------------------------------------------------------------------------------------------

    def _use(self, kept: Mapping[str, Tensor]) -> None:
        self.masks.kept = dict(kept)
        self._gone = {name: ~mask for name, mask in kept.items() if not bool(mask.all())}

    def _before(
        self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self.begun:
            raise RuntimeError(
                f"{type(self.baseline).__name__}: call Pruning.begin(loss, inputs, targets) before the first step"
            )
        closure: Callable[[], Any] | None = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._hold_gradients()
            return None

        def masked() -> object:
            loss = closure()
            self._hold_gradients()
            return loss

        rest = {name: value for name, value in kwargs.items() if name != "closure"}
        return (self.optimizer, masked, *args[2:]), rest

    def _hold_gradients(self) -> None:
        self.baseline.before_step(self)
        for name, gone in self._gone.items():
            grad = self.masks.weights[name].grad
            if grad is not None:
                grad.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def _after(self, _: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for name, gone in self._gone.items():
            self.masks.weights[name].masked_fill_(gone, 0.0)
        self.step += 1
        self.baseline.after_step(self)

    # -- the end ------------------------------------------------------------------------------------------------------

    @contextmanager
    def settled(self) -> Generator[None]:
        """The model holds the weights that it would be handed over with; it is as before, bit for bit, after it."""
        final = self.baseline.final(self)
        changed = [name for name, kept in self.masks.kept.items() if not torch.equal(kept, final[name])]
        backups = {name: self.masks.weights[name].detach().clone() for name in changed}
        try:
            for name in changed:
                self.masks.weights[name].detach().masked_fill_(~final[name], 0.0)
            yield
        finally:
            for name, backup in backups.items():
                self.masks.weights[name].detach().copy_(backup)

    def settle_(self) -> None:
        """Make those the weights of the model, for good."""
        self.keep_(self.baseline.final(self))

    def close(self) -> None:
        """Let go of the optimizer; weights stay as they are."""
        for hook in self._hooks:
            hook.remove()

    def state_dict(self) -> dict[str, State]:
        """What to go on from, bit for bit, together with the states of model and optimizer; references."""
        return {"begun": self.begun, "step": self.step, "kept": dict(self.masks.kept), "memory": dict(self.memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; model and optimizer are loaded by themselves.

        Args:
            state: Of a pruning of the same weights.

        Raises:
            ValueError: If it is of other weights.
        """
        weights = self.masks.weights
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        if {name: tuple(kept.shape) for name, kept in state["kept"].items()} != shapes:
            raise ValueError(
                f"{type(self.baseline).__name__}: the state has masks of {', '.join(state['kept'])}, and the model has "
                f"{', '.join(weights)}, or of other shapes; load it into the model it was saved from"
            )
        self.begun, self.step = state["begun"], state["step"]
        self._use({name: state["kept"][name].to(weight.device, copy=True) for name, weight in weights.items()})
        self.memory = {name: value.clone() for name, value in state["memory"].items()}


__all__ = ["Pruning"]
