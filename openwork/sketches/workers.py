"""The processes that share a sketched run, and what they send each other."""

import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from signal import SIG_DFL, SIGTERM, raise_signal, signal
from threading import Event, current_thread, main_thread

import torch
import torch.distributed as dist
from torch import Tensor

from openwork.sketches.traffic import Traffic

# Until torch 2.13 all_gather_single had another name, which has become deprecated since.
_all_gather = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor  # pyright: ignore[reportDeprecated]


_WAY_OUT = "start it again with as many workers from its last checkpoint"
# Set by SIGTERM inside of saved_when_lost.
_asked_to_end = Event()


class LostWorker(RuntimeError):
    """Another worker died or did not answer in time; this one's weights are those of its last complete step."""


@contextmanager
def saved_when_lost(save: Callable[[], object]) -> Generator[None]:
    """Train inside; when another worker is gone, this one saves the run before it ends.

    A launcher that sees a worker die sends SIGTERM to the others. It takes effect inside at the next exchange between
    workers, where weights are those of a complete step. Workers may be one step apart then: let all write the same
    file, atomically, so that it is a whole one of either step whoever has died. Shards alone are no checkpoint: with
    `ShardedPermK`, resume from the last one that was saved after ``gather_``.

    Args:
        save: Writes a checkpoint.

    Raises:
        LostWorker: Again, after ``save``.
    """
    main = current_thread() is main_thread()
    before = signal(SIGTERM, lambda *_: _asked_to_end.set()) if main else None
    try:
        yield
    except LostWorker:
        save()
        raise
    finally:
        if main:  # first, so that no signal is lost in between
            signal(SIGTERM, before or SIG_DFL)  # None where it is not Python's, which Python cannot put back
        asked = _asked_to_end.is_set()
        _asked_to_end.clear()
    if asked:
        raise_signal(SIGTERM)


def start_workers(timeout_s: float = 60.0) -> "Workers":
    """Join the processes that ``torchrun`` or ``accelerate launch`` started; where they are joined, take them as is.

    Args:
        timeout_s: Seconds after which a worker that does not answer counts as lost, > 0; of the group that is made
            here.

    Raises:
        ValueError: If ``timeout_s`` is not positive, or no launcher has started this process.
    """
    if timeout_s <= 0:
        raise ValueError(f"start_workers: timeout_s must be > 0, got {timeout_s}")
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise ValueError(
                "start_workers: this process was started by no launcher (RANK is not set); "
                "start it with `torchrun --nproc-per-node N` or `accelerate launch`"
            )
        backend = "gloo"
        if torch.cuda.is_available():
            backend = "nccl"
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        with _answered("joining"):
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    return Workers()


class Workers:
    """A group of processes, with collectives that count their bytes and name a worker's death as such.

    Args:
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If there is no process group, or this process is not in it.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "Workers: there is no process group; call start_workers(), or torch.distributed.init_process_group"
            )
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("Workers: this process is not in group; build it in the processes of the group only")
        self.traffic = Traffic()

    def gather(self, values: Tensor) -> Tensor:
        """All workers' vectors, one a row in the order of ranks.

        Args:
            values: ``(size,)``, as long on all workers.
        """
        rows = values.new_empty(self.size * values.numel())
        if not rows.numel():
            return rows.view(self.size, 0)
        with _answered("all_gather"):
            _all_gather(rows, values.contiguous(), group=self.group)
        self.traffic.add("all_gather", (self.size - 1) * values.nbytes)
        return rows.view(self.size, -1)

    def exchange(self, values: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """Send a part to each worker, and get one from each.

        Args:
            values: ``(sum(sent),)``, in the order of the workers that they are for.
            sent: Numbers for each worker.
            received: Numbers from each worker.

        Returns:
            ``(sum(received),)``, in the order of ranks.
        """
        found = values.new_empty(sum(received))
        with _answered("all_to_all"):
            dist.all_to_all_single(found, values.contiguous(), list(received), list(sent), group=self.group)
        self.traffic.add("all_to_all", (sum(sent) - sent[self.rank]) * values.element_size())
        return found

    def sum_(self, values: Tensor) -> Tensor:
        """Sum over workers, in an order of the backend's; in place.

        Args:
            values: As long on all workers.
        """
        with _answered("all_reduce"):
            dist.all_reduce(values, group=self.group)
        self.traffic.add("all_reduce", 2 * (self.size - 1) * values.nbytes // self.size)
        return values

    def copy_(self, values: Tensor) -> None:
        """Take the numbers of the first worker; in place.

        Args:
            values: As long on all workers.
        """
        whole = values.contiguous()
        with _answered("broadcast"):
            dist.broadcast(whole, group=self.group, group_src=0)
        if whole is not values:
            values.copy_(whole)
        # The first sends to all others, as if there were no tree.
        self.traffic.add("broadcast", (self.size - 1) * values.nbytes if self.rank == 0 else 0)

    def agree(self, what: str, number: int) -> None:
        """Check that a number is the same on all workers.

        Args:
            what: It is, for the message.
            number: Of this worker, of 64 bits without a sign.

        Raises:
            ValueError: If it is not.
        """
        mine = torch.tensor([number - (1 << 64) if number >> 63 else number], dtype=torch.int64, device=self.device)
        if not bool((self.gather(mine) == mine).all()):
            raise ValueError(
                f"worker {self.rank} of {self.size}: {what} is not the same on all workers; build them alike"
            )

    @property
    def device(self) -> torch.device:
        """Where the backend wants tensors."""
        return torch.device("cuda" if dist.get_backend(self.group) == "nccl" else "cpu")


@contextmanager
def _answered(doing: str) -> Generator[None]:
    if _asked_to_end.is_set():
        raise LostWorker(
            f"the launcher has ended the run, as it does when a worker dies ({doing}: SIGTERM); {_WAY_OUT}"
        )
    try:
        yield
    except RuntimeError as error:
        # The backends say it in many ways, and a collective whose arguments are right fails for no other reason.
        # Without the line of the backend's source in front, and its advice behind.
        reason = re.sub(r"^\[[^]]*\] *", "", " ".join(str(error).split())).partition(". ")[0]
        raise LostWorker(
            f"another worker died or did not answer in time ({doing}: {reason[:120]}); {_WAY_OUT}"
        ) from error


__all__ = ["LostWorker", "Workers", "saved_when_lost", "start_workers"]
