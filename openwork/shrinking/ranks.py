"""Layers whose weights have low rank: two real layers are smaller and faster."""

from collections.abc import Container, Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from openwork.factorizations.two_layers import Split, best_split, low_rank, matrix_of
from openwork.shrinking.parts import Attention


def splits(
    model: nn.Module, tensors: Mapping[str, Tensor], exclude: Container[str]
) -> dict[str, tuple[Split, nn.Sequential]]:
    """Layers that two layers replace, with fewer parameters and fewer multiplications.

    Args:
        model: Before its tensors are cut.
        tensors: Parameters as they will be.
        exclude: Names of weights that stay.

    Returns:
        By path of the layer, how it splits and the two layers with their weights.
    """
    owners: dict[Tensor, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[parameter] = owners.get(parameter, 0) + 1
    # These look at the weight of their output layer themselves.
    inner = {
        id(child)
        for module in model.modules()
        if isinstance(module, (Attention, nn.MultiheadAttention))
        for child in module.children()
    }
    found: dict[str, tuple[Split, nn.Sequential]] = {}
    for path, layer in model.named_modules():
        name = f"{path}.weight"
        weight = getattr(layer, "weight", None)
        if not path or id(layer) in inner or name not in tensors or name in exclude:
            continue
        if not isinstance(weight, nn.Parameter) or owners[weight] > 1:
            continue
        cut = _with(layer, tensors[name], tensors.get(f"{path}.bias"))
        try:
            low = _may_be_low(matrix_of(cut)) or (weight.ndim > 2 and _may_be_low(matrix_of(cut, "second")))
            split = best_split(cut) if low else None
        except (TypeError, ValueError):
            # Not a layer that can be split.
            continue
        if split is not None:
            found[path] = split, low_rank(cut, split)
    return found


def _with(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A copy of a layer with other numbers."""
    other = deepcopy(layer)
    old = cast("nn.Parameter", layer.weight)
    other.register_parameter(
        "weight", nn.Parameter(weight, requires_grad=old.requires_grad and weight.is_floating_point())
    )
    if bias is not None:
        other.register_parameter("bias", nn.Parameter(bias))
    return other


def _may_be_low(matrix: Tensor) -> bool:
    """A cheap test that matrices of full rank fail: one more column than would save is independent."""
    m, n = matrix.shape
    if min(m, n) < 2:
        return False
    most = min(m * n // (m + n) + 1, m, n)
    columns = (matrix if n <= m else matrix.t())[:, :most].double()
    diagonal = torch.linalg.qr(columns, mode="r").R.diagonal().abs()
    return bool(diagonal.min() <= 1e-5 * diagonal.max())


__all__ = ["splits"]
