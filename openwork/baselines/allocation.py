"""How many entries of each weight are kept where not the largest of all are."""

from collections.abc import Mapping, Sequence
from math import floor, prod
from typing import Literal

from torch import Tensor

Layers = Literal["equal", "uniform", "er", "erk"]


def shares(sizes: Mapping[str, int], densities: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers of entries, at least one of each weight, whose sum is right.

    Args:
        sizes: Entries of each weight.
        densities: Fraction of each that is kept, in (0, 1].

    Returns:
        Each fraction rounded up or down, so that the sum is that of the fractions, rounded.
    """
    exact = {name: densities[name] * size for name, size in sizes.items()}
    # Next to a whole number is that number: rounding errors of a product must not become an entry.
    whole = {name: max(1, floor(share + 1e-9)) for name, share in exact.items()}
    missing = round(sum(exact.values())) - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[: max(0, missing)]:
        whole[name] += 1
    return whole


def layer_densities(shapes: Mapping[str, Sequence[int]], density: float, layers: Layers) -> dict[str, float]:
    """Fraction of each weight that is kept.

    Args:
        shapes: Of the weights, outputs first, in the order of the model.
        density: Fraction of all entries, in (0, 1].
        layers: ``"equal"`` is the same fraction everywhere. ``"uniform"`` is that of the RigL paper, which keeps the
            first layer dense, so that all entries together are denser than asked. ``"er"`` (Erdos-Renyi) makes the
            fraction proportional to ``(inputs + outputs) / (inputs * outputs)``, and ``"erk"`` to the sum over the
            product of all sizes, those of a kernel included; what would pass 1 is dense, and the others give way.

    Returns:
        One fraction for each weight.

    References:
        Evci et al., Rigging the lottery (ICML 2020), section 3 (1); Mocanu et al. (2018), eq. (3), for er.
    """
    if layers in ("equal", "uniform"):
        densities = dict.fromkeys(shapes, density)
        return densities if layers == "equal" else {**densities, next(iter(shapes)): 1.0}
    sizes = {name: prod(shape) for name, shape in shapes.items()}
    raw = {name: _erdos_renyi(shape if layers == "erk" else shape[:2]) for name, shape in shapes.items()}
    dense: set[str] = set()
    while sparse := [name for name in shapes if name not in dense]:
        left = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        scale = left / sum(raw[name] * sizes[name] for name in sparse)
        largest = max(raw[name] for name in sparse)
        if scale * largest <= 1:
            return {name: 1.0 if name in dense else scale * raw[name] for name in shapes}
        dense |= {name for name in sparse if raw[name] == largest}
    return dict.fromkeys(shapes, 1.0)


def counts(weights: Mapping[str, Tensor], density: float, layers: Layers) -> dict[str, int]:
    """Entries of each weight that are kept.

    Args:
        weights: Any.
        density: See ``layer_densities``.
        layers: See ``layer_densities``.
    """
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    return shares(sizes, layer_densities(shapes, density, layers))


def _erdos_renyi(shape: Sequence[int]) -> float:
    return sum(shape) / prod(shape)


__all__ = ["Layers", "counts", "layer_densities", "shares"]
