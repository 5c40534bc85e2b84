"""Training in stages: decay, restart, and the growth of averaging that makes zeros final."""

import warnings
from collections.abc import Sequence
from math import ceil
from typing import Any

from torch.optim import Optimizer

from openwork.optim.dual_averaging import DualAveraging
from openwork.optim.proximal import ProximalOptimizer
from openwork.optim.unwrap import unwrap


class Stages:
    """Divides training at milestones, as the papers do.

    At a milestone ``lr`` (and RAMDA's ``eps``) is multiplied by ``gamma`` and dual averaging restarts at the present
    weights. In the last stage ``averaging`` grows to ``min(c * sqrt(i), 1)`` at its step i = 1, 2, ..., which makes the
    weights exactly structured after ``ceil(c^-2)`` steps (100 for c = 0.1, 10 000 for 0.01).

    It acts at the beginning of ``optimizer.step()``, so that what is evaluated after the last step of a stage still has
    its prox points. There is nothing to call, and it must not be handed to a scheduler wrapper: under n processes some
    step a scheduler n times. A scheduler that computes ``lr`` from its first value (``LambdaLR``, and the default of
    some trainers) undoes the decay; ``MultiplicativeLR`` does not. A call in which a gradient was not finite counts
    towards the milestones but not towards the growth.

    Args:
        optimizer: One of this package's, wrapped or not.
        milestones: Steps after which a new stage begins, increasing, > 0. With ``steps_per_epoch``, epochs.
        gamma: Factor of ``lr`` and ``eps`` at a milestone, in (0, 1].
        steps_per_epoch: Steps in an epoch, if the milestones are epochs.
        total: Steps of the whole training, if known; in epochs if the milestones are. Only for the warning.

    Raises:
        ValueError: If milestones do not increase, or a number is out of range.
        TypeError: If the optimizer is not one of this package's.

    Warns:
        UserWarning: If the last stage is too short for ``averaging`` to reach 1.

    References:
        Huang & Lee (NeurIPS 2024), arXiv:2403.14398, appendix A.1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        *,
        steps_per_epoch: int = 1,
        total: int | None = None,
    ) -> None:
        inner = unwrap(optimizer)
        if not isinstance(inner, ProximalOptimizer):
            raise TypeError(f"Stages needs an openwork optimizer such as RMDA, got {type(optimizer).__name__}")
        if not 0 < gamma <= 1:
            raise ValueError(f"Stages: gamma must be above 0 and at most 1, got {gamma}")
        if steps_per_epoch < 1:
            raise ValueError(f"Stages: steps_per_epoch must be a positive integer, got {steps_per_epoch}")
        if any(b <= a for a, b in zip((0, *milestones), milestones, strict=False)):
            raise ValueError(f"Stages: milestones must be positive and increase, got {list(milestones)}")
        self.optimizer = inner
        self.milestones = [m * steps_per_epoch for m in milestones]
        self.gamma = gamma
        self.position = 0
        if total is not None:
            self._warn_if_short(total * steps_per_epoch)
        inner.register_step_pre_hook(self._before_step)

    @property
    def in_last_stage(self) -> bool:
        """Whether the next step belongs to the last stage, where averaging grows."""
        return not self.milestones or self.position >= self.milestones[-1]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that say where training is; ``lr``, ``eps`` and sums are in the optimizer's."""
        return {"position": self.position, "milestones": list(self.milestones), "gamma": self.gamma}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken.

        Args:
            state_dict: From stages with the same milestones and ``gamma``.

        Raises:
            ValueError: If the stages differ.
        """
        for name in ("milestones", "gamma"):
            if state_dict[name] != getattr(self, name):
                raise ValueError(
                    f"Stages: the state to load has {name} {state_dict[name]}, these stages have "
                    f"{getattr(self, name)}; build them as they were"
                )
        self.position = int(state_dict["position"])

    def _before_step(self, *_: object) -> None:
        if self.position in self.milestones:
            for group in self.optimizer.param_groups:
                for name in ("lr", "eps") if isinstance(self.optimizer, DualAveraging) else ("lr",):
                    if name in group:
                        # Not in place: groups may share one tensor, which is to decay once.
                        group[name] = group[name] * self.gamma
            self.optimizer.restart()
        # At every step, since groups may be added in between.
        for group in self.optimizer.param_groups:
            if "averaging_grows" in group:
                group["averaging_grows"] = self.in_last_stage
        self.position += 1

    def _warn_if_short(self, total: int) -> None:
        length = total - (self.milestones[-1] if self.milestones else 0)
        for group in self.optimizer.param_groups:
            if "averaging_grows" in group and length < (needed := ceil(group["averaging"] ** -2)):
                warnings.warn(
                    f"Stages: the last stage has {length} steps, and averaging={group['averaging']} needs {needed} to "
                    "grow to 1, so the zeros will not be in the weights; train longer, set earlier milestones or a "
                    "larger averaging",
                    stacklevel=3,
                )
                return
