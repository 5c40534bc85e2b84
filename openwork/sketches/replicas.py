"""A sketched model of which every worker has a copy."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.packing import Kept, kept, packed, sizes, trainable
from openwork.sketches.sketch import DiagonalSketch
from openwork.sketches.traffic import Traffic
from openwork.sketches.workers import Workers


class Replica:
    """This worker's copy of a sketched model: the draws of all workers, and what a checkpoint must know of them.

    All copies become that of the first worker, shift and buffers too, and the key of each gets the worker's rank.

    Args:
        sketched: The model, built alike on all workers.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If a Perm-K sketch is for another number of workers, or keys differ in more than the worker.
    """

    def __init__(self, sketched: SketchedModule, group: dist.ProcessGroup | None = None) -> None:
        self.sketched = sketched
        self.workers = Workers(group)
        size = self.workers.size
        if sketched.resample != "step":
            raise ValueError(
                f"{type(sketched).__name__}: resample={sketched.resample!r} has several draws in a step, and workers "
                "send what one draw keeps; use resample='step'"
            )
        for family in sketched.families:
            if isinstance(family.law, DiagonalSketch) and family.law.complementary not in (1, size):
                raise ValueError(
                    f"{family.name!r}: {type(family.law).__name__} of {family.law.complementary} workers on {size} "
                    f"processes; start {family.law.complementary} processes, or make the sketch for {size} workers"
                )
        self.workers.agree("the sketch's key (seed, step)", sketched.key.at(worker=0).number)
        sketched.key = sketched.key.at(worker=self.workers.rank)
        self.parameters: dict[str, nn.Parameter] = trainable(sketched)
        self._last: tuple[Key, list[Kept]] | None = None
        with torch.no_grad():
            for tensor in (*sketched.parameters(), *sketched.buffers()):
                self.workers.copy_(tensor)
        self.workers.traffic.start()

    def kept(self, key: Key) -> list[Kept]:
        """What each worker's draw keeps, in the order of ranks.

        Args:
            key: Of any worker.
        """
        shared = key.at(worker=0)
        if self._last is None or self._last[0] != shared:
            self._last = shared, [kept(self.sketched, key.at(worker=rank)) for rank in range(self.workers.size)]
        return self._last[1]

    def gathered(self, tensors: Mapping[str, Tensor], everyone: Sequence[Kept]) -> Iterator[tuple[Kept, Tensor]]:
        """What each worker has in the entries that it keeps; others travel nowhere.

        Args:
            tensors: Of one type, by the name of the parameter.
            everyone: What each worker keeps, in the order of ranks.

        Yields:
            What a worker keeps and its numbers there, in the order of ranks.
        """
        counts = [sum(sizes(tensors, kept)) for kept in everyone]
        mine = packed(tensors, everyone[self.workers.rank])
        # Collectives want vectors of one length.
        rows = self.workers.gather(torch.cat([mine, mine.new_zeros(max(counts) - len(mine))]))
        for entries, row, count in zip(everyone, rows, counts, strict=True):
            yield entries, row[:count]

    def state_dict(self) -> dict[str, int]:
        """Which draws come next: number of workers, seed and step."""
        key = self.sketched.key
        return {"workers": self.workers.size, "seed": key.seed, "step": key.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the draws of a checkpoint.

        Args:
            state: From ``state_dict``.

        Raises:
            ValueError: If it is of another number of workers or seed; nothing is changed then.
        """
        here = self.state_dict()
        for name, words in (("workers", "{} workers"), ("seed", "seed {}")):
            there, own = (words.format(one[name]) for one in (state, here))
            if there != own:
                raise ValueError(
                    f"the checkpoint was written with {there} and this run has {own}, so that its draws would be "
                    f"others; resume it with {there}, or start a new run from its weights"
                )
        self.sketched.key = self.sketched.key.at(step=int(state["step"]))


class Replicated:
    """A training of replicas: what it sends, and where it goes on.

    Args:
        sketched: The model, built alike on all workers.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If a Perm-K sketch is for another number of workers, or keys differ in more than the worker.
    """

    def __init__(self, sketched: SketchedModule, *, group: dist.ProcessGroup | None = None) -> None:
        self.replica = Replica(sketched, group)

    @property
    def traffic(self) -> Traffic:
        """Bytes that this worker has sent."""
        return self.replica.workers.traffic

    def state_dict(self) -> dict[str, int]:
        """Which draws come next: number of workers, seed and step."""
        return self.replica.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the draws of a checkpoint, whose weights and optimizer state all workers have loaded.

        Args:
            state: From ``state_dict``.

        Raises:
            ValueError: If it is of another number of workers or seed; nothing is changed then.
        """
        self.replica.load_state_dict(state)


def outside(gradients: Mapping[str, Tensor], kept: Kept) -> str | None:
    """Name of a parameter with a gradient where nothing was kept, if there is one.

    Args:
        gradients: By the name of the parameter.
        kept: Of this worker.
    """
    for name, gradient in gradients.items():
        at = kept[name]
        if at is not None and int(gradient.count_nonzero()) > int(gradient.flatten()[at].count_nonzero()):
            return name
    return None


__all__ = ["Replica", "Replicated", "outside"]
