"""Loopless variance reduction over a finite pool of draws."""

from typing import Any, Literal, cast

from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from openwork.sketches.algorithm import Closure, Gradients, Members, PoolAlgorithm, corrected
from openwork.sketches.module import SketchedModule


class LSVRG(PoolAlgorithm):
    """L-SVRG, ``x <- x - lr (g_s(x) - g_s(w) + h)`` for a random member s of a pool, with the anchor ``h = mean g(w)``.

    With probability ``refresh`` a step moves w to the weights before it. With exact gradients and anchors over the
    whole pool nothing is left of the noise of the draws at the optimum. Anchors over b members leave some, less if they
    are drawn anew every step, which costs b gradients each.

    Both gradients of a step come from the same closure, so it must see the same batch when it is called twice. Running
    statistics of batch normalizations also see the passes at w.

    Args:
        optimizer: As in ``Algorithm``.
        sketched: As in ``Algorithm``.
        pool: N draws: a ``Pool`` for the module's only family, or the keys of draws of its law. Their mean is the
            identity for whole permutations, such as all workers' keys of ``PermK`` at some steps.
        refresh: Probability of a new anchor, in (0, 1]; 1 / N if None.
        anchor: b, the number of members whose mean is the anchor, drawn without replacement; all if None.
        redraw_anchor: Whether these members are drawn anew when w moves, or at every step.

    Raises:
        ValueError: If an argument is out of range, or the pool is not for this module.

    References:
        Demidovich et al. (ICLR 2025), arXiv:2311.16086; Kovalev, Horváth & Richtárik (ALT 2020), arXiv:1901.08689,
        algorithm 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sketched: SketchedModule,
        pool: Members,
        *,
        refresh: float | None = None,
        anchor: int | None = None,
        redraw_anchor: Literal["refresh", "step"] = "refresh",
    ) -> None:
        super().__init__(optimizer, sketched, pool, 1 / max(1, len(pool)) if refresh is None else refresh)
        self._check_count("anchor", anchor)
        if redraw_anchor not in ("refresh", "step"):
            raise ValueError(f"LSVRG: redraw_anchor must be 'refresh' or 'step', got {redraw_anchor!r}")
        self.anchor = anchor
        self.redraw_anchor = redraw_anchor
        self._point: list[Tensor] | None = None
        self._mean_at_point: Gradients | None = None

    def step(self, closure: Closure, anchor_closure: Closure | None = None) -> Tensor:
        """Take one step.

        Args:
            closure: Computes the loss, calls ``backward()`` and returns it; called at the weights and at w.
            anchor_closure: The same for anchors, over all data perhaps where the other sees a batch.

        Returns:
            The loss under the draw, detached.
        """
        whole = closure if anchor_closure is None else anchor_closure
        point, reference = self._point, self._mean_at_point
        if point is None or reference is None:
            point = self._copies()
            _, reference = self._mean(whole, self._subset(self.anchor))
        elif self.redraw_anchor == "step":
            with self._at(point):
                _, reference = self._mean(whole, self._subset(self.anchor))
        members = self._members(1)
        loss, new = self._mean(closure, members)
        with self._at(point):
            _, old = self._mean(closure, members)
        gradient = corrected(new, old, reference)
        if self._refreshing():
            point = self._copies()
            _, reference = self._mean(whole, self._subset(self.anchor))
        if self._take(gradient, reference):
            self._point, self._mean_at_point = point, reference
        return loss

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "point": self._point, "mean_at_point": self._mean_at_point}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        point, reference = (self._loaded(state_dict[name], name) for name in ("point", "mean_at_point"))
        super().load_state_dict(state_dict)
        self._point, self._mean_at_point = cast("list[Tensor] | None", point), reference


__all__ = ["LSVRG"]
