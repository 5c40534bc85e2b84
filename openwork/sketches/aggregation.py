"""Gradients of workers that each train under a draw of their own, put together on all of them."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from openwork.sketches.module import SketchedModule
from openwork.sketches.packing import add_, by_type, zeros
from openwork.sketches.replicas import Replica, Replicated, outside


class PermKAggregator(Replicated):
    """Mean gradient of n workers, of which each sends only what its draw has kept.

    After the backward pass under the draw of ``sketched.key``, ``reduce_`` gathers the kept entries of all workers, in
    the order of an index list that everyone draws again and nobody sends, and makes
    ``(1/n) (g_1 + ... + g_n)``, summed in the order of ranks, the gradient on every worker. So any optimizer takes the
    same step everywhere, to the bit, and the same as one process that computes all workers' gradients in turn.

    Under Perm-K a worker sends ``(n - 1) (d / n) s`` bytes, half of a ring's all-reduce. Overlapping sketches are
    gathered alike, which pays below a kept fraction of 2 / n. What is not sketched is sent whole. Gradients of the loss
    that are not of the sketched forward pass, such as those of a penalty on the weights themselves, would not travel:
    the first call refuses them. A parameter without a gradient gets zeros.

    Args:
        sketched: The model, built alike on all workers, with a diagonal sketch.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If a Perm-K sketch is for another number of workers, or keys differ in more than the worker.

    References:
        Szlendak, Tyurin & Richtárik (ICLR 2022), arXiv:2110.03300.
    """

    def __init__(self, sketched: SketchedModule, *, group: dist.ProcessGroup | None = None) -> None:
        super().__init__(sketched, group=group)
        self._checked = False

    @torch.no_grad()
    def reduce_(self) -> None:
        """Replace the gradients by their mean over workers; after backward, before the optimizer's step.

        Raises:
            ValueError: If a gradient is nonzero where this worker's draw has kept nothing.
            LostWorker: If another worker is gone; gradients and weights are as they were.
        """
        replica = self.replica
        workers, key = replica.workers, replica.sketched.now
        everyone = replica.kept(key)
        gradients = _gradients(replica)
        if not self._checked and (name := outside(gradients, everyone[workers.rank])):
            raise ValueError(
                f"PermKAggregator: {name!r} has a gradient where step {key.step} of worker {key.worker} keeps nothing; "
                "compute all of the loss from the sketched module's outputs, and call reduce_ before the key advances"
            )
        self._checked = True
        means: dict[str, Tensor] = {}
        for some in by_type(gradients):
            sums = zeros(some)
            for kept, values in replica.gathered(some, everyone):
                add_(sums, kept, values)
            means |= {name: total.div_(workers.size) for name, total in sums.items()}
        _give(replica, means)
        self.traffic.step()


class ReduceAggregator(Replicated):
    """Mean gradient of n workers by a dense all-reduce, for draws that keep most entries or are not diagonal.

    Sums are in an order of the backend's, so that the last bits may differ from those of one process. A worker sends
    ``2 (n - 1) / n d s`` bytes, whatever its draw keeps.

    Args:
        sketched: The model, built alike on all workers.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If a Perm-K sketch is for another number of workers, or keys differ in more than the worker.
    """

    @torch.no_grad()
    def reduce_(self) -> None:
        """Replace the gradients by their mean over workers; after backward, before the optimizer's step.

        Raises:
            LostWorker: If another worker is gone; gradients and weights are as they were.
        """
        means: dict[str, Tensor] = {}
        for some in by_type(_gradients(self.replica)):
            total = self.replica.workers.sum_(torch.cat([g.flatten() for g in some.values()]))
            parts = total.div_(self.replica.workers.size).split([g.numel() for g in some.values()])
            means |= {name: part.view_as(g) for (name, g), part in zip(some.items(), parts, strict=True)}
        _give(self.replica, means)
        self.traffic.step()


def _gradients(replica: Replica) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in replica.parameters.items()}


def _give(replica: Replica, gradients: Mapping[str, Tensor]) -> None:
    for name, p in replica.parameters.items():
        if p.grad is None:
            p.grad = gradients[name].clone()
        else:
            p.grad.copy_(gradients[name])


__all__ = ["PermKAggregator", "ReduceAggregator"]
