"""Orders in which a sweep visits the blocks: plain functions of the number of layers, to be written by anyone."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

__all__ = ["Order", "Visit", "backward_forward", "forward", "output_to_input", "red_black"]


class Visit(NamedTuple):
    """One block of a sweep.

    Args:
        block: ``"W"``, ``"b"``, ``"z"`` or ``"a"``.
        layer: Index of the layer, from 0.
    """

    block: Literal["W", "b", "z", "a"]
    layer: int


Order = Callable[[int], Sequence[Visit]]


def visits_of(place: str, order: object, layers: int) -> list[Visit]:
    """The blocks of a sweep.

    Args:
        place: For the message.
        order: As a user gives it.
        layers: Number of weight layers.

    Raises:
        TypeError: If it is no function, or gives something else than visits.
        ValueError: If it visits a block that there is not.
    """
    if not callable(order):
        raise TypeError(f"{place}: order must be a function such as openwork.altmin.forward, got {order!r}")
    visits = order(layers)
    if not isinstance(visits, Sequence) or not all(isinstance(visit, Visit) for visit in visits):
        raise TypeError(f"{place}: order must give a list of Visit(block, layer), got {visits!r}")
    for visit in visits:
        last = layers - 2 if visit.block == "a" else layers - 1
        if visit.block not in ("W", "b", "z", "a") or not 0 <= visit.layer <= last:
            raise ValueError(
                f"{place}: order visits {visit}; the blocks are W, b and z of layers 0 to {layers - 1}, and a of all "
                "but the last"
            )
    return list(visits)


def forward(layers: int) -> list[Visit]:
    """From input to output, W, b, z, a in each layer: TIAM and mDLAM.

    Args:
        layers: Number of weight layers, >= 1.
    """
    return [visit for index in range(layers) for visit in _visits("Wbza", index, layers)]


def red_black(layers: int) -> list[Visit]:
    """All weights, then the outputs, then odd codes, then even codes: three phases of independent blocks.

    Given all codes, the weights of different layers do not see each other, and neither do codes two layers apart given
    all weights, so that a phase may run in parallel.

    Args:
        layers: Number of weight layers, >= 1.
    """
    weights = [visit for index in range(layers) for visit in _visits("Wb", index, layers)]
    codes = [
        visit for start in (1, 0) for index in range(start, layers - 1, 2) for visit in _visits("za", index, layers)
    ]
    return [*weights, Visit("z", layers - 1), *codes]


def backward_forward(layers: int) -> list[Visit]:
    """From output to input, a, z, b, W in each layer, then ``forward``: dlADMM.

    Args:
        layers: Number of weight layers, >= 1.
    """
    backward = [visit for index in reversed(range(layers)) for visit in _visits("azbW", index, layers)]
    return backward + forward(layers)


def output_to_input(layers: int) -> list[Visit]:
    """From output to input, a, z, W, b in each layer: BCD.

    Args:
        layers: Number of weight layers, >= 1.
    """
    return [visit for index in reversed(range(layers)) for visit in _visits("azWb", index, layers)]


def _visits(blocks: str, index: int, layers: int) -> list[Visit]:
    """Visits of one layer; the output layer has no codes."""
    by_name = {block: Visit(block, index) for block in ("W", "b", "z", "a")}
    return [by_name[block] for block in blocks if block != "a" or index < layers - 1]
