"""How much of a model is exactly zero.

Every test for zero is ``== 0.0``: a small weight is not a zero weight. References: Huang & Lee, RAMDA (NeurIPS 2024),
whose tables report the weighted group sparsity and the low-rank level.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from openwork.metrics.bits import pack_bits
from openwork.metrics.params import Params, params
from openwork.partitions import Partition
from openwork.sharding import full
from openwork.structure import Rank, Structure, Support

# Above this many groups, who is alive is not recorded: at one bit each, every epoch, the log would outgrow the model.
MOST_GROUPS_RECORDED = 4096


@dataclass(frozen=True)
class LayerSparsity:
    """What survives in one weight.

    Args:
        alive: Groups with a nonzero entry, or nonzero singular values.
        total: All groups, or ``min(m, n)`` singular values.
        size: Entries per group; None for singular values.
        kept: One boolean per group or singular value.
    """

    alive: int
    total: int
    size: int | None
    kept: Tensor = field(compare=False, repr=False)

    def record(self) -> dict[str, int | str]:
        """Plain values for a log: ``alive``, ``total``, ``size`` of a group, and ``kept`` as packed bits if short."""
        record: dict[str, int | str] = {"alive": self.alive, "total": self.total}
        if self.size is not None:
            record["size"] = self.size
        if self.total <= MOST_GROUPS_RECORDED:
            record["kept"] = pack_bits(self.kept)
        return record


@dataclass(frozen=True)
class Sparsity:
    """Fractions of a model that are exactly zero, each in [0, 1], and None where there is nothing to count.

    Args:
        unstructured: Zero entries over all parameters, biases and norms included.
        group: Zero groups over all groups of the weights that have groups.
        weighted_group: The same with every group counted by its entries; the number in the papers' tables.
        low_rank: Zero singular values over all singular values of the weights that have a rank.
        params: Entries of the model, all and nonzero.
        layers: One entry per weight with a structure, by parameter name.
    """

    unstructured: float | None
    group: float | None
    weighted_group: float | None
    low_rank: float | None
    params: Params
    layers: Mapping[str, LayerSparsity]

    def record(self) -> dict[str, int | float | dict[str, dict[str, int | str]]]:
        """Plain values for a log, without those that are None; the keys are those of a run's ``metrics.jsonl``."""
        fractions = {
            "unstructured_sparsity": self.unstructured,
            "group_sparsity": self.group,
            "weighted_group_sparsity": self.weighted_group,
            "low_rank_level": self.low_rank,
        }
        return {
            **{key: value for key, value in fractions.items() if value is not None},
            "params": self.params.total,
            "nonzero_params": self.params.nonzero,
            "layers": {name: layer.record() for name, layer in self.layers.items()},
        }


def support(weight: Tensor, groups: Partition) -> Support:
    """The structure of a bare weight: a group is kept if any of its entries is nonzero.

    Args:
        weight: Any shape that ``groups`` tiles.
        groups: Which entries form a group.

    Returns:
        The support, read from the weight and from nothing else.

    Raises:
        ValueError: If the groups do not tile the weight.
    """
    return Support(groups, kept=groups.any(full(weight.detach())))


def sparsity(model: nn.Module, structures: Mapping[str, Structure] | None = None) -> Sparsity:
    """Measure how much of ``model`` is exactly zero.

    Group sparsity and low-rank level come from ``structures``, not from the weights: an optimizer that averages keeps
    its zeros elsewhere until it settles. Measure inside ``optimizer.structured()`` to have the weights agree.

    Args:
        model: Any module; a tied weight is counted once.
        structures: Structure of the regularized weights, by parameter name; ``support`` reads one off a bare weight.

    Returns:
        The fractions, and the counts for every weight in ``structures``.

    Raises:
        ValueError: If ``structures`` names no parameter of the model, or ``kept`` does not have one boolean per group.
    """
    weights = dict(model.named_parameters(remove_duplicate=False))
    layers: dict[str, LayerSparsity] = {}
    seen: set[Tensor] = set()
    for name, structure in (structures or {}).items():
        if name not in weights:
            raise ValueError(
                f"sparsity: structures names {name!r}, which is no parameter of this {type(model).__name__}; "
                "use the names of model.named_parameters()"
            )
        if weights[name] not in seen:
            seen.add(weights[name])
            layers[name] = _layer(name, weights[name], structure)
    grouped = [(layer, layer.size) for layer in layers.values() if layer.size is not None]
    count = params(model)
    return Sparsity(
        unstructured=_fraction_gone([(count.nonzero, count.total)]),
        group=_fraction_gone((layer.alive, layer.total) for layer, _ in grouped),
        weighted_group=_fraction_gone((layer.alive * size, layer.total * size) for layer, size in grouped),
        low_rank=_fraction_gone((layer.alive, layer.total) for layer in layers.values() if layer.size is None),
        params=count,
        layers=layers,
    )


def _layer(name: str, weight: Tensor, structure: Structure) -> LayerSparsity:
    kept = structure.kept
    if isinstance(structure, Rank):
        return LayerSparsity(structure.rank, kept.numel(), None, kept)
    grid = structure.groups.grid(weight.shape)
    if tuple(kept.shape) != grid:
        raise ValueError(
            f"sparsity: the support of {name!r} holds {tuple(kept.shape)} booleans, and {structure.groups} has {grid} "
            f"groups in a weight of shape {tuple(weight.shape)}; take the support from this weight"
        )
    return LayerSparsity(int(kept.sum()), kept.numel(), structure.groups.size(weight.shape), kept)


def _fraction_gone(counts: Iterable[tuple[int, int]]) -> float | None:
    alive = total = 0
    for some, all_of_them in counts:
        alive += some
        total += all_of_them
    return 1 - alive / total if total else None
