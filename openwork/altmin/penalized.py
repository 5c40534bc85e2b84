"""Which layer gets which penalty."""

from collections.abc import Mapping, Sequence

from torch import nn

from openwork.altmin.links import Link
from openwork.penalties import Penalty, Zero
from openwork.structure import Structure


def penalties_of(
    place: str, model: nn.Module, links: Sequence[Link], penalties: Mapping[str, Penalty] | None
) -> list[Penalty]:
    """One penalty per layer, none where nothing is said.

    Args:
        place: For the message.
        model: That holds the layers.
        links: Of the model.
        penalties: By the name of a layer or of its weight in the model.

    Returns:
        One per link.

    Raises:
        TypeError: If something is no penalty of one weight.
        ValueError: If a name is no weight layer, or its weight does not fit.
    """
    names = {module: name for name, module in model.named_modules()}
    own = [names[link.layer] for link in links]
    found: list[Penalty] = [Zero() for _ in links]
    if penalties is not None and not isinstance(penalties, Mapping):
        raise TypeError(f"{place}: penalties must be a dictionary from names of layers to penalties, got {penalties!r}")
    for name, penalty in (penalties or {}).items():
        layer = name.removesuffix(".weight")
        if layer not in own:
            raise ValueError(f"{place}: penalties name {name!r}, which is no weight layer; there are {', '.join(own)}")
        if not isinstance(penalty, Penalty) or penalty.joins:
            raise TypeError(
                f"{place}: the penalty of {name!r} must be a penalty of one weight, such as GroupLasso(1e-4), "
                f"got {penalty!r}"
            )
        index = own.index(layer)
        penalty.check(links[index].weight)
        found[index] = penalty
    return found


def structures_of(model: nn.Module, links: Sequence[Link], penalties: Sequence[Penalty]) -> dict[str, Structure]:
    """What the penalties have left of each weight that has one, by the name of the parameter.

    Args:
        model: That holds the layers.
        links: Of the model.
        penalties: One per link.
    """
    names = {module: name for name, module in model.named_modules()}
    return {
        f"{names[link.layer]}.weight": penalty.structure(link.weight)
        for link, penalty in zip(links, penalties, strict=True)
        if not isinstance(penalty, Zero)
    }
