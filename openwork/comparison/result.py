"""The numbers of one trained network."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
        trial: Number among the trials of a search for settings; None if it is none of these.
    """

    method: str
    settings: Mapping[str, Json]
    strength: float
    seed: int
    epochs: int
    trial: int | None = None

    @property
    def name(self) -> str:
        """A name for files, and what tells cells of a study apart."""
        what = f"{self.strength:.6g}-s{self.seed}" if self.trial is None else f"search{self.trial}"
        return f"{file_name(self.method)}-{what}"

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """From what ``asdict`` gave."""
        return cls(**cast("dict[str, object]", dict(value)))  # pyright: ignore[reportArgumentType]


def file_name(name: str) -> str:
    """What a file is called after a name of a method or task."""
    return re.sub(r"[^\w.-]+", "-", name)


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
        group: Fraction of zero groups, for every method the same ones: the input features of each layer, as
            ``regularize`` groups them by default; None if the network has none.
        weighted_group: The same, groups counted by their entries.
        params: Parameters of the network before and after it was shrunk.
        nonzero: Parameters that are not zero, after: weights of units that nothing reads are gone, whatever they were.
        bytes: Of the file of the dense network, and of the finished one with its zeros stored as bits.
        macs: Multiply-accumulate operations of a sample before and after.
        seconds: Of training.
        memory_mib: Largest memory while training, above what it was before: of the process, or of the GPU if it has
            one.
        constant: Whether it gives the same outputs whatever the inputs are: nothing of use is left.
        test_unequal: Largest difference of outputs before and after, relative to the largest.
        latency_ms: Median time of a batch of one before and after; None until it was measured.
        layers: Entries of each weight that are not zero, and all of them.
        widths: Units of each coupling before and after.
        curves: Numbers over time by their name in the run's records, None where one is missing; at most
            ``LONGEST_CURVE`` points.
        notes: What was warned of while training.
        trained_on: The machine.
        timed_on: The machine, with its threads.
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
    constant: bool = False
    test_unequal: float = 0.0
    latency_ms: tuple[float, float] | None = None
    layers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    trained_on: str = ""
    timed_on: str = ""

    @property
    def compression(self) -> float:
        """Parameters of the network for each that is left and not zero."""
        return self.params[0] / max(1, self.nonzero)

    @property
    def density(self) -> float:
        """Fraction of the parameters of the network that are left and not zero."""
        return self.nonzero / self.params[0]

    def timed(self, before: float, after: float, machine: str = "") -> "Result":
        """The same with times.

        Args:
            before: Milliseconds of the network before it was shrunk.
            after: Milliseconds after.
            machine: Where they were measured.
        """
        return replace(self, latency_ms=(before, after), timed_on=machine)

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return cast("dict[str, Json]", asdict(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """From what ``to_json`` gave."""
        fields = dict(cast("dict[str, object]", dict(value)))
        fields["cell"] = Cell.from_json(cast("Mapping[str, Json]", fields["cell"]))
        for name in ("params", "bytes", "macs", "latency_ms", "notes"):
            pair = fields[name]
            fields[name] = tuple(pair) if isinstance(pair, list) else pair
        return cls(**fields)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Searched:
    """A trial of a search for settings, which has seen no test sample.

    Args:
        cell: What was trained.
        valid_accuracy: On the validation samples, in [0, 1]; None where there are no classes.
        valid_loss: On the validation samples.
        unstructured: Fraction of zero parameters.
        seconds: Of training.
    """

    cell: Cell
    valid_accuracy: float | None
    valid_loss: float
    unstructured: float
    seconds: float

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return cast("dict[str, Json]", asdict(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> Self:
        """From what ``to_json`` gave."""
        fields = {**value, "cell": Cell.from_json(cast("Mapping[str, Json]", value["cell"]))}
        return cls(**fields)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Failure:
    """A cell that cannot be trained.

    Args:
        cell: What was to be trained.
        reason: One sentence.
    """

    cell: Cell
    reason: str

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return cast("dict[str, Json]", asdict(self))


__all__ = ["Cell", "Failure", "Result", "Searched", "file_name"]
