"""Which groups were alive when: one small picture per weight."""

import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openwork.files import Json
from openwork.metrics import unpack_bits
from openwork.report.read import RunFolder, number, table

COLUMNS = 480  # of a picture at least, and times drawn at most: evenly picked, the first and the last among them
MOST_ROWS = 256  # of a picture; of more groups, each row shows the fraction alive among its share of them
BLUE = (62, 134, 196)  # stands out on white and on black


@dataclass(frozen=True)
class Life:
    """The groups of one weight over time.

    Args:
        name: Name of the parameter.
        groups: Number of groups, or of singular values.
        first: How many were alive at the first record.
        last: How many were alive at the last record.
        png: The picture: time from left to right, the groups from top to bottom, drawn where they are alive.
    """

    name: str
    groups: int
    first: int
    last: int
    png: bytes

    @property
    def url(self) -> str:
        """The picture as an address that needs no file."""
        return f"data:image/png;base64,{b64encode(self.png).decode()}"


def lives(run: RunFolder) -> list[Life]:
    """Draw who was alive when, for every weight whose records say so.

    Args:
        run: What the files of the run say.

    Returns:
        One picture per weight, in the order of the records; weights with too many groups to record are left out.

    Raises:
        ValueError: If a record of ``kept`` does not have one bit per group.
    """
    last = table(run.records[-1], "layers")
    drawn = [_life(run, name, int(number(table(last, name), "total") or 0)) for name in last]
    return [life for life in drawn if life is not None]


def _life(run: RunFolder, name: str, total: int) -> Life | None:
    said: Sequence[tuple[int, Mapping[str, Json]]] = [
        (n, table(table(record, "layers"), name)) for n, record in enumerate(run.records, start=1)
    ]
    masks = [(n, layer["kept"]) for n, layer in said if isinstance(layer.get("kept"), str)]
    if not masks or not total:
        return None
    picked = np.unique(np.linspace(0, len(masks) - 1, min(len(masks), COLUMNS)).round().astype(int))
    columns: list[np.ndarray] = []
    for n, text in (masks[i] for i in picked):
        try:
            columns.append(unpack_bits(str(text), total))
        except ValueError as error:
            raise ValueError(
                f"report: {run.folder / 'metrics.jsonl'}, line {n}, layer {name!r}: {error}; "
                "restore the file from a copy"
            ) from error
    kept = np.stack(columns, axis=1)
    return Life(name, total, int(kept[:, 0].sum()), int(kept[:, -1].sum()), _png(kept))


def _png(kept: np.ndarray) -> bytes:
    from matplotlib.image import imsave

    cuts = np.linspace(0, len(kept), min(len(kept), MOST_ROWS) + 1).round().astype(int)
    rows = np.stack([share.mean(axis=0) for share in np.split(kept, cuts[1:-1])])
    rows = rows.repeat(-(-COLUMNS // rows.shape[1]), axis=1)  # drawn wide, so that no browser blurs time
    picture = np.empty((*rows.shape, 4), np.uint8)
    picture[..., :3] = BLUE
    picture[..., 3] = (255 * rows).round()
    buffer = io.BytesIO()
    imsave(buffer, picture, format="png")
    return buffer.getvalue()
