"""What shrink did, in numbers and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from openwork.files import Json
from openwork.shrinking.verification import Certificate


@dataclass(frozen=True)
class Width:
    """Units of one coupling.

    Args:
        name: Its first tensor.
        tensors: All tensors that are cut with it.
        before: Units before.
        after: Units after.
    """

    name: str
    tensors: tuple[str, ...]
    before: int
    after: int


@dataclass(frozen=True)
class Held:
    """Units that nothing reads and that stay all the same.

    Args:
        name: First tensor of their coupling.
        units: How many.
        reasons: What holds them.
    """

    name: str
    units: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ShrinkReport:
    """What shrink did.

    Args:
        params: Parameters before and after.
        size_bytes: Bytes of parameters and buffers before and after.
        widths: Couplings that could lose units.
        shapes: Shapes before and after of every tensor that changed.
        held: Units that could not go, with reasons.
        folded: Constant channels that a bias took over.
        constant: Modules that gave a constant, by path.
        ranks: Layers split in two, by path: rank, and the largest that it could have.
        notes: What else a user should know.
        certificate: Proof that the outputs are the same.
    """

    params: tuple[int, int]
    size_bytes: tuple[int, int]
    widths: tuple[Width, ...]
    shapes: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...]]]
    held: tuple[Held, ...]
    folded: int
    constant: tuple[str, ...]
    ranks: Mapping[str, tuple[int, int]]
    certificate: Certificate
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Json]:
        """Plain values."""
        return {
            "params": list(self.params),
            "size_bytes": list(self.size_bytes),
            "widths": [
                {"name": w.name, "tensors": list(w.tensors), "before": w.before, "after": w.after} for w in self.widths
            ],
            "shapes": {name: [None if old is None else list(old), list(new)] for name, (old, new) in self.shapes.items()},
            "held": [{"name": h.name, "units": h.units, "reasons": list(h.reasons)} for h in self.held],
            "folded": self.folded,
            "constant": list(self.constant),
            "ranks": {path: list(ranks) for path, ranks in self.ranks.items()},
            "notes": list(self.notes),
            "certificate": self.certificate.to_json(),
        }

    def __str__(self) -> str:
        rows = [("tensor", "before", "after")]
        rows += [(name, _shape(old), _shape(new)) for name, (old, new) in self.shapes.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows] if len(rows) > 1 else []
        lines.append(
            f"{self.params[0]:,} => {self.params[1]:,} parameters ({self.params[1] / max(1, self.params[0]):.1%}), "
            f"{self.size_bytes[0]:,} => {self.size_bytes[1]:,} bytes"
        )
        found = self.certificate
        lines.append(
            f"same outputs: they differ by {found.difference:.1e} of the largest at most ({found.dtype}, batches of "
            f"{', '.join(map(str, found.batches))}; {found.tolerance:.0e} is allowed)"
        )
        lines += [f"note: {note}" for note in self.notes]
        for held in self.held:
            lines.append(f"{held.units} unread units of {held.name} stay: {held.reasons[0] if held.reasons else ''}")
        return "\n".join(lines)


def _shape(shape: Sequence[int] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape)) or "1"


__all__ = ["Held", "ShrinkReport", "Width"]
