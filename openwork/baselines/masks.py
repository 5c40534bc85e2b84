"""Which entries of the weights of a model are kept."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from openwork.baselines.allocation import shares
from openwork.partitions import Elements, Partition
from openwork.wiring import Role, Selection, parameter_names, role_of, selected

Scope = Literal["global", "layerwise"]


class Masks:
    """One boolean for each entry of the weights that can be pruned: whether it is kept.

    These are the weights of linear, convolution, recurrent and attention layers. Biases, normalizations, embeddings,
    frozen parameters and those of unknown layers are never pruned.

    Args:
        model: Any module. A shared weight is taken once.
        include: Only these: names of parameters or modules, in which ``*``, ``?`` and ``[...]`` are wildcards, or
            module types. The full name of a parameter insists on it, whatever its layer.
        exclude: Not these, written the same way; it has the last word.

    Raises:
        ValueError: If no weight is left to prune, or a selection matches nothing.
    """

    def __init__(self, model: nn.Module, include: Selection | None = None, exclude: Selection | None = None) -> None:
        choice = selected(model, include, exclude, "Masks")
        #: The weights, by name.
        self.weights: dict[str, nn.Parameter] = {}
        #: Their groups of entries that read one input feature.
        self.groups: dict[str, Partition] = {}
        for parameter, names in parameter_names(model).items():
            role = role_in(model, names[0])
            prunable = choice.insists(names) or (role is not None and role.kind == "weight")
            if parameter.requires_grad and prunable and not choice.why_not(names):
                self.weights[names[0]] = parameter
                slices = None if role is None else role.input_slices(parameter.shape)
                self.groups[names[0]] = Elements() if slices is None else slices
        if not self.weights:
            raise ValueError(
                f"Masks: {type(model).__name__} has no weight left to prune; only weights of linear, convolution, "
                "recurrent and attention layers that train are pruned, unless include has the full name of another"
            )
        #: What is kept, one boolean tensor for each weight.
        self.kept: dict[str, Tensor] = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()
        }

    @property
    def sizes(self) -> dict[str, int]:
        """Entries of each weight."""
        return {name: weight.numel() for name, weight in self.weights.items()}

    @property
    def total(self) -> int:
        """Entries of all weights."""
        return sum(self.sizes.values())

    @property
    def alive(self) -> int:
        """Entries that are kept."""
        return sum(int(kept.sum()) for kept in self.kept.values())

    def magnitudes(self) -> dict[str, Tensor]:
        """Absolute values of the weights."""
        return {name: weight.detach().abs() for name, weight in self.weights.items()}

    def by_magnitude(self, density: float, scope: Scope) -> dict[str, Tensor]:
        """Masks of the largest weights among those that are kept; see ``choose``.

        Args:
            density: Fraction of all entries, in (0, 1].
            scope: Whether that fraction is of all weights together, or of each.

        Returns:
            One boolean tensor for each weight.
        """
        return choose(self.magnitudes(), self.kept, density, scope)


def choose(
    scores: Mapping[str, Tensor], among: Mapping[str, Tensor], density: float, scope: Scope
) -> dict[str, Tensor]:
    """Masks of the entries with the largest scores.

    Equal scores go to the first entry. At least one entry stays, of all or of each weight.

    Args:
        scores: One for each entry of each weight, >= 0.
        among: Masks of what may be chosen.
        density: Fraction of all entries to choose, in (0, 1].
        scope: Whether that fraction is of all weights together, or of each.

    Returns:
        One boolean tensor for each weight.

    Raises:
        ValueError: If a score is not finite.
    """
    for name, score in scores.items():
        if not bool(score.isfinite().all()):
            raise ValueError(
                f"the scores of {name!r} are not finite, so nothing can be chosen by them; has training diverged?"
            )
    ranked = {name: score.masked_fill(~among[name], -1.0) for name, score in scores.items()}
    if scope == "layerwise":
        counts = shares({name: score.numel() for name, score in scores.items()}, dict.fromkeys(scores, density))
        return {name: largest(ranked[name], min(counts[name], int(among[name].sum()))) for name in scores}
    together = torch.cat([score.flatten() for score in ranked.values()])
    allowed = sum(int(mask.sum()) for mask in among.values())
    kept = largest(together, min(max(1, round(density * together.numel())), allowed))
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for part, (name, score) in zip(parts, scores.items(), strict=True)}


def largest(scores: Tensor, count: int) -> Tensor:
    """Where the largest entries are; of equal ones the first.

    Args:
        scores: Any shape; not NaN.
        count: How many, from 0 to all.

    Returns:
        Booleans of the same shape.
    """
    flat = scores.flatten()
    kept = torch.zeros_like(flat, dtype=torch.bool)
    if count > 0:
        threshold = flat.kthvalue(flat.numel() - count + 1).values
        kept = flat > threshold
        ties = (flat == threshold).nonzero().flatten()
        kept[ties[: count - int(kept.sum())]] = True
    return kept.view(scores.shape)


def role_in(model: nn.Module, name: str) -> Role | None:
    """What a parameter means in its layer; None if nobody knows.

    Args:
        model: Any module.
        name: Of the parameter.
    """
    owner, _, local = name.rpartition(".")
    return role_of(model.get_submodule(owner), local)


__all__ = ["Masks", "Scope", "choose", "largest", "role_in"]
