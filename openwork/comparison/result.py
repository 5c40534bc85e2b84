"""The numbers of one trained network."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self, cast

from openwork.files import Json


@dataclass(frozen=True)
class Cell:
    """What was trained: one cell of a comparison.

    Args:
        method: Name.
        settings: The method's hyper-parameters.
        strength: How sparse.
        seed: Of everything that is random.
        epochs: Passes over the training samples.
    """

    method: str
    settings: Mapping[str, Json]
    strength: float
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.method.rpartition(':')[2]}-{self.strength:.6g}-s{self.seed}"

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """From what ``asdict`` gave."""
        return cls(**cast("dict[str, object]", dict(value)))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Result:
    """A finished network: structured, collapsed, shrunk and verified.

    Args:
        cell: What was trained.
        accuracy: On the test samples, in [0, 1]; None where there are no classes.
        loss: On the test samples.
        valid_accuracy: On the validation samples.
        valid_loss: On the validation samples.
        unstructured: Fraction of zero parameters.
        group: Fraction of zero groups; None without groups.
        weighted_group: The same, groups counted by their entries.
        params: Parameters of the network before and after it was shrunk.
        nonzero: Parameters that are not zero.
        bytes: Of the file of the dense network, and of the finished one with its zeros stored as bits.
        macs: Multiply-accumulate operations of a sample before and after.
        seconds: Of training.
        memory_mib: Largest resident memory while training, above what it was before.
        latency_ms: Median time of a batch of one before and after; None until it was measured.
        test_unequal: Largest difference of outputs before and after, relative to the largest.
    """

    cell: Cell
    accuracy: float | None
    loss: float
    valid_accuracy: float | None
    valid_loss: float | None
    unstructured: float
    group: float | None
    weighted_group: float | None
    params: tuple[int, int]
    nonzero: int
    bytes: tuple[int, int]
    macs: tuple[int, int]
    seconds: float
    memory_mib: float
    latency_ms: tuple[float, float] | None = None
    test_unequal: float = 0.0

    @property
    def compression(self) -> float:
        """Parameters of the network for each that is not zero."""
        return self.params[0] / max(1, self.nonzero)

    def timed(self, before: float, after: float) -> "Result":
        """The same with times.

        Args:
            before: Milliseconds of the network before it was shrunk.
            after: Milliseconds after.
        """
        return replace(self, latency_ms=(before, after))

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return cast("dict[str, Json]", asdict(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """From what ``to_json`` gave."""
        fields = dict(cast("dict[str, object]", dict(value)))
        fields["cell"] = Cell.from_json(cast("Mapping[str, Json]", fields["cell"]))
        for name in ("params", "bytes", "macs", "latency_ms"):
            pair = fields[name]
            fields[name] = tuple(pair) if isinstance(pair, list) else pair
        return cls(**fields)  # pyright: ignore[reportArgumentType]


__all__ = ["Cell", "Result"]
