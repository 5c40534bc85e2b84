"""Sketched training beside DistributedDataParallel: only what the shared draw keeps is reduced."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.packing import Kept, kept
from openwork.sketches.traffic import Traffic


@dataclass(eq=False)
class SharedDraw:
    """State of ``kept_hook``: the model, whose draw is the same on all workers.

    Args:
        sketched: The model that DistributedDataParallel wraps.
        traffic: Bytes that this worker has sent in all-reduces; its steps are not counted.
    """

    sketched: SketchedModule
    traffic: Traffic = field(default_factory=Traffic)
    _names: dict[Tensor, str] = field(default_factory=dict[Tensor, str])
    _drawn: tuple[Key, Kept] | None = None

    def positions(self, bucket: dist.GradBucket) -> Tensor:
        """Where the bucket's vector has entries that the present draw keeps.

        Args:
            bucket: Gradients of some parameters.
        """
        if not self._names:
            self._names = {p: name for name, p in self.sketched.module.named_parameters()}
        key = self.sketched.now
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, kept(self.sketched, key)
        found: list[Tensor] = []
        start = 0
        for p in bucket.parameters():
            at = self._drawn[1][self._names[p]]
            found.append(start + (torch.arange(p.numel(), device=p.device) if at is None else at))
            start += p.numel()
        return torch.cat(found)


def kept_hook(state: SharedDraw, bucket: dist.GradBucket) -> Future[Tensor]:
    """Mean of gradients over workers, of which only the kept entries travel: ``2 (n - 1) / n K s`` bytes a worker.

    Args:
        state: Made for the model.
        bucket: From DistributedDataParallel.
    """
    workers = dist.get_world_size()
    positions = state.positions(bucket)
    values = bucket.buffer()[positions].div_(workers)
    state.traffic.add("all_reduce", 2 * (workers - 1) * values.nbytes // workers)
    work = dist.all_reduce(values, async_op=True)
    assert work is not None
    future = work.get_future()
    return future.then(lambda done: bucket.buffer().index_copy_(0, positions, done.value()[0]))


def compress(model: DistributedDataParallel) -> Traffic:
    """Let the reduction of a sketched model's gradients send kept entries only.

    All workers must have the same draw, so the same key, that of worker 0. Let DistributedDataParallel copy no buffers
    in forward passes, unless some change: the shift never does.

    Args:
        model: Wraps a `SketchedModule`.

    Returns:
        Counts what is sent from now on.

    Raises:
        TypeError: If it wraps something else.
        ValueError: If the key is one worker's own.
    """
    sketched = model.module
    if not isinstance(sketched, SketchedModule):
        raise TypeError(
            f"compress: model must wrap a SketchedModule, got {type(sketched).__name__}; wrap it in one first"
        )
    if sketched.key.worker != 0:
        raise ValueError(
            f"compress: the key is that of worker {sketched.key.worker}, and one reduction needs one draw for all; "
            "use worker 0 everywhere, or PermKAggregator under no_sync()"
        )
    state = SharedDraw(sketched)
    model.register_comm_hook(state, kept_hook)
    return state.traffic


__all__ = ["SharedDraw", "compress", "kept_hook"]
