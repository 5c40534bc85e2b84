"""The work of a fused step on the CPU as tables of numbers, which its loops read."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from weakref import WeakKeyDictionary

from openwork.kernels.regions import Plan, Region, Term

# Numbers of a tile: term, kind, first panel and the one after the last, first group, groups. Of a panel: tensor, first
# entry, rows, columns, stride of rows, columns of a group, first group in the tile, where its metrics are kept (-1 if
# they are not). Of a group while it is solved: four sums, root, whether it moves.
TILE, PANEL, GROUP = 6, 8, 6
# Columns of a panel and groups of a tile, at most; columns of a panel that holds a part of one long group.
WIDEST, FOLDED = 8192, 128
# Entries from one sum over columns to the next: not a power of two, or what is stored in one would hold up, by the end
# of its address, what is loaded of another.
LANE = WIDEST + 48
# Columns of which a few rows are taken at a time: shorter strips stay in the first cache, and yet are slower, for
# memory is fast along rows.
STRIP = 2048
# Entries between rows of a strip in scratch memory, so that they are not a power of two apart; and its longest row with
# them.
GAP = 16
ROW = STRIP + GAP
# Strips after which sums in single precision go on in double precision.
BLOCK = 16
# Entries of a tile, about, which one thread takes: as wide as can be, since memory is fast along rows, and yet
# several to a list.
TILE_ENTRIES = 1 << 22
# The same where all groups are long runs: few enough to stay in the second cache from one pass to the next.
FEW = 1 << 14
# Metrics that a thread keeps from one pass over a tile to the next, at most: of larger tiles they are made anew.
MOST_KEPT = 5 << 20
# Columns below which a row is shorter than what memory gives at once.
NARROW = 16
# Entries that one thread takes at a time, at least.
CHUNK_ENTRIES = 1 << 18
# Entries without a group that are one tile.
CHUNK = 1 << 15

KINDS = {"groups": 0, "entries": 1, "free": 2}


@dataclass
class Tables:
    """Tables of a plan.

    Args:
        tiles: ``TILE`` numbers each.
        panels: ``PANEL`` numbers each.
        strengths: Lasso and norm of each term.
        entries: Entries of each tile.
        metrics: Numbers that a thread keeps for a tile, at most.
    """

    tiles: "array[int]" = field(default_factory=lambda: array("q"))
    panels: "array[int]" = field(default_factory=lambda: array("q"))
    strengths: "array[float]" = field(default_factory=lambda: array("d"))
    entries: list[int] = field(default_factory=list[int])
    metrics: int = 0

    @cached_property
    def ranges(self) -> list[tuple[int, int]]:
        """Tiles that a thread takes at a time."""
        return ranges(self.entries)

    def add(self, number: int, term: Term) -> None:
        """Append the tiles of a term."""
        self.strengths.extend((term.lasso, term.norm))
        if term.kind != "groups":
            (region,) = term.regions
            for start in range(0, region.entries, CHUNK):
                length = min(CHUNK, region.entries - start)
                place = len(self.panels) // PANEL
                self.panels.extend((region.tensor, region.offset + start, 1, length, 0, 1, 0, -1))
                self.tiles.extend((number, KINDS[term.kind], place, place + 1, start, length))
                self.entries.append(length)
            return
        if not term.regions:
            return
        width = _width(term)
        for start in range(0, term.groups, width):
            length, begin = min(width, term.groups - start), len(self.panels) // PANEL
            panels = [panel for region in term.regions for panel in _panels(region, start, length)]
            *places, end = accumulate((_scratch(rows, columns) for _, _, rows, columns, *_ in panels), initial=0)
            keeps = end <= MOST_KEPT
            self.metrics = max(self.metrics, end if keeps else 0)
            for panel, place in zip(panels, places, strict=True):
                self.panels.extend((*panel, place if keeps else -1))
            self.tiles.extend((number, 0, begin, len(self.panels) // PANEL, start, length))
            self.entries.append(length * term.size)


_known: WeakKeyDictionary[Plan, Tables | None] = WeakKeyDictionary()


def tables(plan: Plan) -> Tables | None:
    """The tables of a plan, made once; None if its groups lie where the loops cannot go."""
    if plan not in _known:
        known = None
        if all(_fits(region) for term in plan.terms for region in term.regions):
            known = Tables()
            for number, term in enumerate(plan.terms):
                known.add(number, term)
        _known[plan] = known
    return _known[plan]


def ranges(entries: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of pieces that are enough for a thread, large ones first: those that are done last should be small.

    Args:
        entries: Of each piece.

    Returns:
        Begin and end of each range.
    """
    found: list[tuple[int, int]] = []
    sizes: list[int] = []
    begin, taken = 0, 0
    for end, sum_of_entries in enumerate(accumulate(entries), start=1):
        if sum_of_entries - taken >= CHUNK_ENTRIES or end == len(entries):
            found.append((begin, end))
            sizes.append(sum_of_entries - taken)
            begin, taken = end, sum_of_entries
    return [found[i] for i in sorted(range(len(found)), key=lambda i: -sizes[i])]


def _fits(region: Region) -> bool:
    """Whether groups are runs of consecutive entries, side by side."""
    (_, groups, inner), (_, group_stride, inner_stride) = region.lengths, region.strides
    return (inner == 1 or inner_stride == 1) and (groups == 1 or inner > FOLDED or group_stride == inner)


def _scratch(rows: int, columns: int) -> int:
    """Entries of a panel in scratch memory, where rows come by the four."""
    return 4 * -(-rows // 4) * (columns + -(-columns // STRIP) * GAP)


def _width(term: Term) -> int:
    """Groups of a tile."""
    short = [region.lengths[2] for region in term.regions if region.lengths[2] <= FOLDED]
    most = min((WIDEST // inner for inner in short), default=WIDEST)
    width = max(1, min(most, (TILE_ENTRIES if short else FEW) // term.size))
    if short:
        # Whole lines of memory in a row.
        width = max(width, min(most, -(-NARROW // min(short))))
    return width - width % NARROW if width > NARROW else width


def _panels(region: Region, start: int, length: int) -> Iterator[tuple[int, ...]]:
    """Panels of some groups of a region."""
    (outer, _, inner), (outer_stride, group_stride, _) = region.lengths, region.strides
    first = region.offset + start * group_stride
    if inner <= FOLDED:
        yield region.tensor, first, outer, length * inner, outer_stride, inner, 0
        return
    rows, rest = divmod(inner, FOLDED)
    for group in range(length):
        for row in range(outer):
            base = first + group * group_stride + row * outer_stride
            yield region.tensor, base, rows, FOLDED, FOLDED, FOLDED, group
            if rest:
                yield region.tensor, base + rows * FOLDED, 1, rest, 0, rest, group
