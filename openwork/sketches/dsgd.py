"""Stochastic gradient descent on the sketched loss."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.optim import Optimizer

from openwork.sketches.algorithm import Algorithm, Closure, Gradients, mean
from openwork.sketches.families import Drawn
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.pool import Pool


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
        probabilities: With which members are drawn if the law is a ``Pool``, float64 ``(N,)``; those of the pool if
            None. With others gradients are multiplied so that they keep their mean, as ``Pool.importance`` wants.

    Raises:
        ValueError: If an argument is out of range, or there are probabilities and the law is no pool.

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
        probabilities: Tensor | None = None,
    ) -> None:
        super().__init__(optimizer, sketched)
        for name, value in (("draws", draws), ("workers", workers), ("recenter_every", recenter_every)):
            if value is not None and value < 1:
                raise ValueError(f"DSGD: {name} must be at least 1, got {value}")
        self.draws = draws
        self.workers = workers
        self.recenter_every = recenter_every
        self._importance = None if probabilities is None else self._prepared(probabilities)

    def _prepared(self, probabilities: Tensor) -> Callable[[Key], tuple[Drawn, float]]:
        family = self.sketched.families[0]
        pool = family.law
        if not isinstance(pool, Pool):
            raise ValueError(
                f"DSGD: probabilities are those of a Pool, and the law is {type(pool).__name__}; leave them out"
            )
        members, multipliers = self._drawn(pool), pool.multipliers(probabilities).tolist()

        def chosen(key: Key) -> tuple[Drawn, float]:
            index = pool.index(key.at(family=family.name), probabilities)
            return members[index], multipliers[index]

        return chosen

    def _worker(self, closure: Closure, key: Key) -> tuple[Tensor, Gradients]:
        """Mean loss and gradients of one worker.

        Args:
            closure: Of its loss.
            key: Of its first draw.
        """
        keys = [key.at(draw=key.draw + draw) for draw in range(self.draws)]
        if self._importance is None:
            return self._mean(closure, keys)
        return mean([self._gradients(closure, *self._importance(one)) for one in keys])

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
        keys = [now] if self.workers == 1 else [now.at(worker=worker) for worker in range(self.workers)]
        loss, gradients = mean([self._worker(one, key) for one, key in zip(closures, keys, strict=True)])
        self._take(gradients)
        if self.recenter_every and self.sketched.key.step % self.recenter_every == 0:
            self.sketched.recenter_()
        return loss


__all__ = ["DSGD"]
