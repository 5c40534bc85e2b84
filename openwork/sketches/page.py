"""Recursive variance reduction over a finite pool of draws."""

from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from openwork.sketches.algorithm import Closure, Gradients, Members, PoolAlgorithm, corrected
from openwork.sketches.module import SketchedModule


class PAGE(PoolAlgorithm):
    """PAGE for losses that need not be convex: ``g <- g + mean_b(g_s(x) - g_s(x_old))``, sometimes made anew.

    With probability ``refresh``, and in the first step, g is the mean gradient over the whole pool, or over some
    members of it. All gradients of a step come from the same closure, so it must see the same batch when it is called
    several times. Running statistics of batch normalizations also see the passes at ``x_old``.

    Args:
        optimizer: As in ``Algorithm``.
        sketched: As in ``Algorithm``.
        pool: N draws: a ``Pool`` for the module's only family, or the keys of draws of its law. Their mean is the
            identity for whole permutations, such as all workers' keys of ``PermK`` at some steps.
        refresh: Probability of a new g, in (0, 1]; b / (b + N) if None.
        draws: b, >= 1: members in other steps, drawn independently.
        refresh_draws: Members in a new g, drawn without replacement; all if None.

    Raises:
        ValueError: If an argument is out of range, or the pool is not for this module.

    References:
        Li, Bao, Zhang & Richtárik (ICML 2021), arXiv:2008.10898, algorithm 1, with draws in place of samples.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sketched: SketchedModule,
        pool: Members,
        *,
        refresh: float | None = None,
        draws: int = 1,
        refresh_draws: int | None = None,
    ) -> None:
        if draws < 1:
            raise ValueError(f"PAGE: draws must be at least 1, got {draws}")
        super().__init__(optimizer, sketched, pool, draws / (draws + len(pool)) if refresh is None else refresh)
        self._check_count("refresh_draws", refresh_draws)
        self.draws = draws
        self.refresh_draws = refresh_draws
        self._point: list[Tensor] | None = None
        self._gradient: Gradients | None = None

    def step(self, closure: Closure, refresh_closure: Closure | None = None) -> Tensor:
        """Take one step.

        Args:
            closure: Computes the loss, calls ``backward()`` and returns it; called at the weights and at those before.
            refresh_closure: The same for a new g, over all data perhaps where the other sees a batch.

        Returns:
            The mean loss under the draws, detached.
        """
        point = self._copies()
        if self._point is None or self._gradient is None or self._refreshing():
            whole = closure if refresh_closure is None else refresh_closure
            loss, gradient = self._mean(whole, self._subset(self.refresh_draws))
        else:
            members = self._members(self.draws)
            loss, new = self._mean(closure, members)
            with self._at(self._point):
                _, old = self._mean(closure, members)
            gradient = corrected(new, old, self._gradient)
        # The optimizer may write into what it is given.
        kept = [None if g is None else g.clone() for g in gradient]
        if self._take(gradient):
            self._point, self._gradient = point, kept
        return loss

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "point": self._point, "gradient": self._gradient}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        point, gradient = (self._loaded(state_dict[name], name) for name in ("point", "gradient"))
        super().load_state_dict(state_dict)
        self._point, self._gradient = cast("list[Tensor] | None", point), gradient


__all__ = ["PAGE"]
