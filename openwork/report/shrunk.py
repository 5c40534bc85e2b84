"""What ``openwork shrink`` left in the folder of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from openwork.files import Json, read_json

SHRINK_SCHEMA = 1

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """One number before and after.

    Args:
        before: Of the network as trained; None where there is none.
        after: Of the smaller one.
        left: ``after / before``; None where that has no meaning.
    """

    before: float | None
    after: float | None
    left: float | None = None


@dataclass(frozen=True)
class Measured:
    """Median and quartiles of rounds of a measurement."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """How long a forward pass takes, under one set of conditions.

    Args:
        batch: Samples per call; None where inputs have no such axis.
        threads: On the CPU.
        compiled: Whether under ``torch.compile``.
        device: Where.
        before_ms: Of the network as trained, in milliseconds per call.
        after_ms: Of the smaller one.
        speedup: The first over the second, round by round.
    """

    batch: int | None
    threads: int
    compiled: bool
    device: str
    before_ms: Measured
    after_ms: Measured
    speedup: Measured


@dataclass(frozen=True)
class Units:
    """Units that the slices of several tensors share.

    Args:
        name: The first of the tensors.
        tensors: All of them.
        before: Units before.
        after: Units after.
    """

    name: str
    tensors: Sequence[str]
    before: int
    after: int


@dataclass(frozen=True)
class Resized:
    """A tensor that changed its shape.

    Args:
        name: Its name.
        before: Its shape before; None if it is new.
        after: Its shape after.
    """

    name: str
    before: Shape | None
    after: Shape


@dataclass(frozen=True)
class Split:
    """A layer that two layers replaced.

    Args:
        name: Its path.
        rank: Units between the two.
        most: Rank that the layer could have had.
    """

    name: str
    rank: int
    most: int


@dataclass(frozen=True)
class Unread:
    """Units that nothing reads and that stay all the same.

    Args:
        name: The first tensor that has them.
        units: How many.
        reasons: What holds them.
    """

    name: str
    units: int
    reasons: Sequence[str]


@dataclass(frozen=True)
class Proof:
    """How the outputs were compared.

    Args:
        difference: Largest ``max |difference| / max |output|``.
        tolerance: What was allowed.
        dtype: Precision.
        batches: Batch sizes of the inputs; the first is that of the example, the others are random.
        samples: Outputs whose predictions were compared.
        predictions: Of those, how many had a margin large enough to count, and agreed.
        same_predictions: Whether predictions on the data were the same.
        on_data: How many there were; None if the file does not say.
        differing: How many of those differ; None if the file does not say.
    """

    difference: float
    tolerance: float
    dtype: str
    batches: Sequence[int]
    samples: int
    predictions: int
    same_predictions: bool
    on_data: int | None
    differing: int | None


@dataclass(frozen=True)
class Shrunk:
    """What shrink did to a run.

    Args:
        params: Parameters.
        size_bytes: Bytes of parameters and buffers.
        macs: Multiply-accumulate operations for one sample.
        uncounted: Operations whose arithmetic is not in ``macs``.
        scores: Accuracies, and whatever else was evaluated, by name.
        timings: Latencies.
        units: Couplings that could lose units.
        tensors: Those that changed their shape.
        splits: Layers of low rank that became two.
        constant: Branches that gave a constant, by path.
        folded: Constant channels that biases took over.
        unread: Units that had to stay.
        notes: What else to know.
        why: Why there is no gain, where there is none.
        proof: That the outputs are the same.
    """

    params: Change
    size_bytes: Change
    macs: Change
    uncounted: Sequence[str]
    scores: Mapping[str, Change]
    timings: Sequence[Timing]
    units: Sequence[Units]
    tensors: Sequence[Resized]
    splits: Sequence[Split]
    constant: Sequence[str]
    folded: int
    unread: Sequence[Unread]
    notes: Sequence[str]
    why: Sequence[str]
    proof: Proof

    @property
    def timing(self) -> Timing | None:
        """The one to compare runs by: of the largest batch, and of several such ones one that is not compiled."""
        return max(self.timings, key=lambda timing: (timing.batch or 0, not timing.compiled), default=None)


def read_shrunk(folder: Path) -> Shrunk | None:
    """Read ``shrink.json``.

    Args:
        folder: That of the run.

    Returns:
        What it says; None if there is no such file.

    Raises:
        ValueError: If it is not JSON, of another version, or lacks something.
        OSError: If it cannot be read.
    """
    path = folder / "shrink.json"
    if not path.is_file():
        return None
    values = read_json(path)
    if values.get("schema") != SHRINK_SCHEMA:
        raise ValueError(
            f"report: {path} has schema {values.get('schema')!r}, and this version of openwork reads {SHRINK_SCHEMA}; "
            "report the run with the version that wrote it, or run `openwork shrink` again"
        )
    return _shrunk(_Part(path, "", values))


@dataclass(frozen=True)
class _Part:
    """A value in the file, and where it stands there."""

    file: Path
    place: str
    value: Json

    def wrong(self, wanted: str) -> ValueError:
        found = repr(self.value)
        return ValueError(
            f"report: {self.file}: {self.place or 'it'} must be {wanted}, got "
            f"{found if len(found) <= 60 else found[:57] + '...'}; run `openwork shrink` again"
        )

    def members(self) -> "dict[str, _Part]":
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        before = f"{self.place}." if self.place else ""
        return {key: _Part(self.file, f"{before}{key}", value) for key, value in self.value.items()}

    def __getitem__(self, key: str) -> "_Part":
        members = self.members()
        if key not in members:
            where = f"{self.place} has" if self.place else "it has"
            raise ValueError(f"report: {self.file}: {where} no {key!r}; run `openwork shrink` again")
        return members[key]

    def items(self, length: int | None = None) -> "list[_Part]":
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise self.wrong("a list")
        if length not in (None, len(self.value)):
            raise self.wrong(f"a list of {length}")
        return [_Part(self.file, f"{self.place}[{n}]", value) for n, value in enumerate(self.value)]

    def number(self) -> float:
        if not isinstance(self.value, int | float) or isinstance(self.value, bool) or not isfinite(self.value):
            raise self.wrong("a number")
        return self.value

    def count(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < 0:
            raise self.wrong("a whole number, not negative")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("a text")
        return self.value

    def texts(self) -> list[str]:
        return [item.text() for item in self.items()]

    def shape(self) -> Shape:
        return tuple(item.count() for item in self.items())

    def sizes(self) -> Change:
        before, after = (item.count() for item in self.items(2))
        return Change(before, after, after / before if before else None)

    def score(self) -> Change:
        before, after = (None if item.value is None else item.number() for item in self.items(2))
        return Change(before, after)

    def measured(self) -> Measured:
        return Measured(self["median"].number(), self["low"].number(), self["high"].number())


def _shrunk(file: _Part) -> Shrunk:
    report = file["report"]
    return Shrunk(
        params=report["params"].sizes(),
        size_bytes=report["size_bytes"].sizes(),
        macs=file["macs"].sizes(),
        uncounted=file["uncounted"].texts(),
        scores={name: pair.score() for name, pair in file["accuracy"].members().items()},
        timings=[_timing(item) for item in file["latency"].items()],
        units=[
            Units(item["name"].text(), item["tensors"].texts(), item["before"].count(), item["after"].count())
            for item in report["widths"].items()
        ],
        tensors=[_resized(name, pair) for name, pair in report["shapes"].members().items()],
        splits=[
            Split(name, *(item.count() for item in pair.items(2))) for name, pair in report["ranks"].members().items()
        ],
        constant=report["constant"].texts(),
        folded=report["folded"].count(),
        unread=[
            Unread(item["name"].text(), item["units"].count(), item["reasons"].texts())
            for item in report["held"].items()
        ],
        notes=report["notes"].texts(),
        why=file["why"].texts(),
        proof=_proof(report["certificate"], file),
    )


def _timing(part: _Part) -> Timing:
    return Timing(
        batch=None if part["batch"].value is None else part["batch"].count(),
        threads=part["threads"].count(),
        compiled=part["compiled"].flag(),
        device=part["device"].text(),
        before_ms=part["before_ms"].measured(),
        after_ms=part["after_ms"].measured(),
        speedup=part["speedup"].measured(),
    )


def _resized(name: str, pair: _Part) -> Resized:
    before, after = pair.items(2)
    return Resized(name, None if before.value is None else before.shape(), after.shape())


def _proof(part: _Part, file: _Part) -> Proof:
    on_data, differing = (
        file[key].count() if key in file.members() else None for key in ("predictions", "differing_predictions")
    )
    return Proof(
        difference=part["difference"].number(),
        tolerance=part["tolerance"].number(),
        dtype=part["dtype"].text(),
        batches=[item.count() for item in part["batches"].items()],
        samples=part["samples"].count(),
        predictions=part["predictions"].count(),
        same_predictions=file["same_predictions"].flag(),
        on_data=on_data,
        differing=differing,
    )
