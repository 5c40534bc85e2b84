"""Pictures of the groups that were alive in the networks of a comparison, as many as a page has room for."""

from collections.abc import Iterator, Mapping, Sequence

from openwork.files import read_records
from openwork.report.compared import Cell, Compared
from openwork.report.life import Life, lives
from openwork.report.read import RunFolder

MOST_PICTURES = 8  # of one network
PICTURES_BYTES = 900_000  # of all networks together, as addresses in the page

# By method and strength.
Lives = Mapping[tuple[str, float], Sequence[Life]]


def compared_lives(compared: Compared) -> Lives:
    """Draw who was alive when in the first seed of each method and strength.

    Args:
        compared: What the files say.

    Returns:
        Pictures of those networks that have any, until the room is full.

    Raises:
        ValueError: If a record of the groups is damaged.
    """
    room, records = PICTURES_BYTES, compared.records()
    drawn: dict[tuple[str, float], Sequence[Life]] = {}
    for one in _first_seeds(compared):
        file = records.get((one.method, one.strength, one.seed))
        lived = read_records(file) if file else []
        if not lived or file is None:
            continue
        found = lives(RunFolder(file.parent, {}, lived, None))[:MOST_PICTURES]
        room -= sum(len(life.url) for life in found)
        if room < 0:
            break
        if found:
            drawn[one.method, one.strength] = found
    return drawn


def _first_seeds(compared: Compared) -> Iterator[Cell]:
    """One cell for each method and strength; every method comes to its first before any comes to its second."""
    firsts: dict[str, dict[float, Cell]] = {}
    for cell in sorted((run.cell for run in compared.trained), key=lambda one: (one.strength, one.seed)):
        firsts.setdefault(cell.method, {}).setdefault(cell.strength, cell)
    by_method = [[*firsts[name].values()] for name in dict.fromkeys(run.cell.method for run in compared.trained)]
    for n in range(max(map(len, by_method), default=0)):
        yield from (own[n] for own in by_method if n < len(own))


__all__ = ["Lives", "compared_lives"]
