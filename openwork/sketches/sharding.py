"""Perm-K where each weight is with one worker, and goes to its next owner after every step."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from openwork.sketches.families import Entries
from openwork.sketches.module import SketchedModule
from openwork.sketches.packing import Kept, by_type, packed, put_
from openwork.sketches.perm_k import PermK
from openwork.sketches.replicas import Replicated


class ShardedPermK(Replicated):
    """Perm-K training where only the owner of a weight has its value, and sends it on when shares change.

    A worker owns what its draw keeps. It takes a step on that alone, and then weights and optimizer state travel to the
    owners of the next draw: ``((n - 1) / n) (d / n) s`` bytes a worker for each number per weight, 1 / (2n) of a ring's
    all-reduce. Both ends know the shares of both draws, so no index is sent. Numbers are the same to the bit as with
    `PermKAggregator`, for every optimizer that treats entries apart from each other, such as SGD and Adam.

    The model's tensors stay as large as they are, since a forward pass needs the shift on all other entries; what they
    hold of weights that others own is stale until ``gather_``. Evaluate and save after that.

    Args:
        sketched: The model, built alike on all workers, with Perm-K for all parameters that learn, of granularity
            "model" or "tensor".
        optimizer: Over its parameters.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If a parameter that learns is not under Perm-K of entries with disjoint shares, the number of
            workers is another, or keys differ in more than the worker.
    """

    def __init__(
        self, sketched: SketchedModule, optimizer: Optimizer, *, group: dist.ProcessGroup | None = None
    ) -> None:
        owned = {
            name
            for family in sketched.families
            if isinstance(family, Entries) and isinstance(family.law, PermK) and family.law.overlap(family.size) == 1
            for name in family.parameters
        }
        super().__init__(sketched, group=group)
        self.optimizer = optimizer
        if missing := sorted(self.replica.parameters.keys() - owned):
            raise ValueError(
                f"ShardedPermK: {missing[0]!r} has no owner; sketch all parameters that learn with PermK of "
                "granularity 'model', or 'tensor' if no tensor is smaller than the number of workers; or take "
                "PermKAggregator"
            )

    @torch.no_grad()
    def step(self) -> None:
        """Take the optimizer's step on what this worker owns, advance the key, and send it to the next owners.

        Raises:
            LostWorker: If another worker is gone.
        """
        replica, workers = self.replica, self.replica.workers
        before, now = replica.sketched.key, replica.sketched.now
        for p in replica.parameters.values():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.div_(workers.size)
        self.optimizer.step()
        if replica.sketched.key == before:  # nothing follows the optimizer's steps
            replica.sketched.advance()
        self._move(replica.kept(now), replica.kept(replica.sketched.now))
        self.traffic.step()

    @torch.no_grad()
    def gather_(self) -> None:
        """Give all workers all weights, and all of the optimizer's state.

        Raises:
            LostWorker: If another worker is gone.
        """
        everyone = self.replica.kept(self.replica.sketched.now)
        for layer in self._layers():
            for some in by_type(layer):
                for kept, values in self.replica.gathered(some, everyone):
                    put_(some, kept, values)

    def _layers(self) -> list[dict[str, Tensor]]:
        """Everything with a number for each weight: the weights, and each kind of optimizer state."""
        parameters = self.replica.parameters
        layers: dict[str, dict[str, Tensor]] = {"": {name: p.detach() for name, p in parameters.items()}}
        for name, p in parameters.items():
            for kind, value in self.optimizer.state.get(p, {}).items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    layers.setdefault(kind, {})[name] = value
        return list(layers.values())

    def _move(self, now: list[Kept], then: list[Kept]) -> None:
        workers = self.replica.workers
        leaving, coming = now[workers.rank], then[workers.rank]
        for layer in self._layers():
            for some in by_type(layer):
                # Both ends order what goes from one worker to another by tensor and position.
                target, source = packed(_owners(some, then), leaving), packed(_owners(some, now), coming)
                sent, received = (torch.bincount(one, minlength=workers.size).tolist() for one in (target, source))
                found = workers.exchange(packed(some, leaving)[target.argsort(stable=True)], sent, received)
                values = torch.empty_like(found)
                values[source.argsort(stable=True)] = found
                put_(some, coming, values)


def _owners(tensors: Mapping[str, Tensor], everyone: list[Kept]) -> dict[str, Tensor]:
    """The rank of the owner of each entry."""
    owners = {name: torch.zeros(t.numel(), dtype=torch.int64, device=t.device) for name, t in tensors.items()}
    for rank, kept in enumerate(everyone):
        for name, owner in owners.items():
            owner[kept[name]] = rank
    return owners


__all__ = ["ShardedPermK"]
