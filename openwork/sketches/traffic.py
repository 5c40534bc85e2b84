"""How many bytes workers send each other: counted, and by formula."""

from dataclasses import dataclass, field


@dataclass
class Traffic:
    """Bytes that this process has sent to others.

    What a collective sends is counted by what every algorithm for it must send, or a ring does: all-gather sends its
    buffer to n - 1 others, all-reduce 2 (n - 1) / n of it, all-to-all the parts that are for others.

    Args:
        sent: By the name of the collective.
        steps: Done so far.
        step_bytes: Sent in the last step that is complete.
    """

    sent: dict[str, int] = field(default_factory=dict[str, int])
    steps: int = 0
    step_bytes: int = 0
    _before: int = 0

    @property
    def total(self) -> int:
        """Bytes of all collectives."""
        return sum(self.sent.values())

    def add(self, collective: str, size_bytes: int) -> None:
        """Count what was sent.

        Args:
            collective: Its name.
            size_bytes: By this process, >= 0.
        """
        self.sent[collective] = self.sent.get(collective, 0) + size_bytes

    def step(self) -> None:
        """A step is complete."""
        self.steps += 1
        self.step_bytes, self._before = self.total - self._before, self.total

    def start(self) -> None:
        """What was sent up to now belongs to no step, such as the first copy of the weights."""
        self._before = self.total


def ring_bytes(size: int, workers: int, value_bytes: int = 4) -> float:
    """``2 (n - 1) / n d s``: bytes that a worker sends for one dense all-reduce around a ring.

    Args:
        size: d, numbers in the model.
        workers: n.
        value_bytes: s, of one number.
    """
    return 2 * (workers - 1) / workers * size * value_bytes


def replicated_bytes(size: int, workers: int, value_bytes: int = 4) -> float:
    """``(n - 1) (d / n) s``: Perm-K with all weights on all workers, which gather compact gradients; half of a ring.

    Args:
        size: d, numbers in the model.
        workers: n; where it does not divide d, d / n is rounded up.
        value_bytes: s, of one number.
    """
    return float((workers - 1) * -(-size // workers) * value_bytes)


def sharded_bytes(size: int, workers: int, value_bytes: int = 4) -> float:
    """``((n - 1) / n) (d / n) s``: Perm-K with each weight on one worker, sent to its next owner; 1 / (2n) of a ring.

    A mean over draws: how many weights stay where they are is random.

    Args:
        size: d, numbers in the model.
        workers: n.
        value_bytes: s, of one number.
    """
    return (workers - 1) / workers * size / workers * value_bytes


def server_bytes(size: int, workers: int, value_bytes: int = 4) -> float:
    """``d s / n``: Perm-K between a worker and a server that has all weights, each way.

    Args:
        size: d, numbers in the model.
        workers: n.
        value_bytes: s, of one number.
    """
    return size * value_bytes / workers


def rand_k_bytes(kept: int, workers: int, value_bytes: int = 4) -> float:
    """``(n - 1) K s``: independent Rand-K, gathered.

    Args:
        kept: K.
        workers: n.
        value_bytes: s, of one number.
    """
    return float((workers - 1) * kept * value_bytes)


__all__ = ["Traffic", "rand_k_bytes", "replicated_bytes", "ring_bytes", "server_bytes", "sharded_bytes"]
