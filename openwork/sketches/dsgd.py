"""Stochastic gradient descent on the sketched loss."""

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from openwork.sketches.algorithm import Algorithm, Closure, mean
from openwork.sketches.module import SketchedModule


class DSGD(Algorithm):
    """Double sketched gradient descent, ``x <- x - lr Sᵀ h(v + S (x - v))`` with a new S in each step.

    h is what the closure's loss gives: an exact gradient on all data, or a stochastic one on a batch. With several
    workers it simulates in one process what n processes do: worker i has its own draws, closure and data, and the
    optimizer steps along the mean of their gradients.

    Args:
        optimizer: As in ``Algorithm``; with the identity as sketch the steps are its own, to the bit.
        sketched: As in ``Algorithm``.
        draws: b, >= 1: independent draws per step and worker, whose gradients are averaged.
        workers: n, >= 1, if this process is to be all of them; 1 for one process as the worker of the module's key.
        recenter_every: Steps after each of which the shift moves to the present weights, >= 1; never if None. With 1,
            draws sketch gradients only, and the dense loss is minimized.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Demidovich et al. (ICLR 2025), arXiv:2311.16086, double sketched SGD, and its distributed form.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sketched: SketchedModule,
        *,
        draws: int = 1,
        workers: int = 1,
        recenter_every: int | None = None,
    ) -> None:
        super().__init__(optimizer, sketched)
        for name, value in (("draws", draws), ("workers", workers), ("recenter_every", recenter_every)):
            if value is not None and value < 1:
                raise ValueError(f"DSGD: {name} must be at least 1, got {value}")
        self.draws = draws
        self.workers = workers
        self.recenter_every = recenter_every

    def step(self, closure: Closure | Sequence[Closure]) -> Tensor:
        """Take one step.

        Args:
            closure: Computes the loss, calls ``backward()`` and returns it; called once per draw. With several workers
                one for each, in order.

        Returns:
            The mean loss under the draws, detached.

        Raises:
            ValueError: If there are not as many closures as workers, or one leaves no gradient.
        """
        closures = [closure] if callable(closure) else list(closure)
        if len(closures) != self.workers:
            raise ValueError(
                f"DSGD: {self.workers} workers need as many closures, got {len(closures)}; pass one for each"
            )
        now = self.sketched.now
        terms = [
            self._mean(one, [key.at(draw=key.draw + draw) for draw in range(self.draws)])
            for key, one in zip(
                [now] if self.workers == 1 else [now.at(worker=worker) for worker in range(self.workers)],
                closures,
                strict=True,
            )
        ]
        loss, gradients = mean(terms)
        self._take(gradients)
        if self.recenter_every and self.sketched.key.step % self.recenter_every == 0:
            self.sketched.recenter_()
        return loss


__all__ = ["DSGD"]
