"""Where random numbers come from: a counter, never a global generator."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

Backend = Literal["hash", "torch"]

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Key:
    """Names one draw: the same key gives the same numbers, on every worker and after every restart.

    Args:
        seed: Of the whole run.
        step: Of the optimizer, >= 0.
        worker: Rank of the worker, >= 0.
        family: Which of several sketches of one model.
        draw: Of several at the same step, >= 0.
        backend: ``"hash"`` mixes integers, the same on every device and in every version of torch; ``"torch"`` uses a
            generator of the device, faster, whose numbers differ between devices and perhaps between versions.

    Raises:
        ValueError: If a counter is negative or the backend unknown.
    """

    seed: int
    step: int = 0
    worker: int = 0
    family: str = ""
    draw: int = 0
    backend: Backend = "torch"

    def __post_init__(self) -> None:
        for name in ("step", "worker", "draw"):
            if getattr(self, name) < 0:
                raise ValueError(f"Key: {name} must be at least 0, got {getattr(self, name)}")
        if self.backend not in ("hash", "torch"):
            raise ValueError(f"Key: backend must be 'hash' or 'torch', got {self.backend!r}")

    def at(
        self, *, step: int | None = None, worker: int | None = None, family: str | None = None, draw: int | None = None
    ) -> "Key":
        """The key with other counters; what is None stays.

        Args:
            step: Of the optimizer.
            worker: Rank of the worker.
            family: Which of several sketches of one model.
            draw: Of several at the same step.
        """
        return replace(
            self,
            step=self.step if step is None else step,
            worker=self.worker if worker is None else worker,
            family=self.family if family is None else family,
            draw=self.draw if draw is None else draw,
        )

    @property
    def number(self) -> int:
        """All counters mixed into one number of 64 bits."""
        mixed = 0
        family = int.from_bytes(sha256(self.family.encode()).digest()[:8], "little") if self.family else 0
        for counter in (self.seed, self.step, self.worker, family, self.draw):
            mixed = mix(mixed ^ (counter & _WORD))
        return mixed


def mix(x: int) -> int:
    """One step of the generator splitmix64 on a word of 64 bits.

    References:
        Steele, Lea & Flood, Fast splittable pseudorandom number generators (OOPSLA 2014), figure 16.
    """
    x = (x + 0x9E3779B97F4A7C15) & _WORD
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _WORD
    return x ^ (x >> 31)


__all__ = ["Backend", "Key", "mix"]
