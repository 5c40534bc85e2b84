"""How methods are told apart in a picture: by color and by shape."""

from collections.abc import Sequence

COLORS = ("a", "b", "c", "d", "e", "f")
# Around (0, 0), about 11 wide. Their number and that of the colors have no common divisor: 42 different marks, and
# neighbors differ in both.
SHAPES = (
    "M5,0A5,5 0 1 1-5,0A5,5 0 1 1 5,0Z",
    "M-4.5,-4.5H4.5V4.5H-4.5Z",
    "M0,-5.8L5.6,4.2H-5.6Z",
    "M0,-6.2L5.4,0L0,6.2L-5.4,0Z",
    "M0,5.8L5.6,-4.2H-5.6Z",
    "M-1.8,-5.6H1.8V-1.8H5.6V1.8H1.8V5.6H-1.8V1.8H-5.6V-1.8H-1.8Z",
    "M0,-2.5L2.7,-5.2L5.2,-2.7L2.5,0L5.2,2.7L2.7,5.2L0,2.5L-2.7,5.2L-5.2,2.7L-2.5,0L-5.2,-2.7L-2.7,-5.2Z",
)


def ink(n: int) -> str:
    """Style that gives the color of the method with that number."""
    return f"--c:var(--ink-{COLORS[n % len(COLORS)]})"


def mark(n: int, *, hollow: bool) -> str:
    """The shape of the method with that number, around (0, 0); baselines are hollow."""
    return f'<path class="mark{" hollow" if hollow else ""}" d="{SHAPES[n % len(SHAPES)]}"/>'


def icon(n: int, *, hollow: bool) -> str:
    """The mark on a line of text."""
    return f'<svg class="icon" viewBox="-7 -7 14 14" style="{ink(n)}" aria-hidden="true">{mark(n, hollow=hollow)}</svg>'


def labels(names: Sequence[str]) -> list[str]:
    """Short names: of ``module:function`` the function, where that tells them apart."""
    short = [name.rpartition(":")[2] or name for name in names]
    return [own if short.count(own) == 1 else name for own, name in zip(short, names, strict=True)]


__all__ = ["icon", "ink", "labels", "mark"]
