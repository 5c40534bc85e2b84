"""Two layers in place of one whose weight has low rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from openwork.wiring import role_of

# Which of the two convolutions has the kernel; the other is 1x1. For other layers both are the same.
KernelIn = Literal["first", "second"]

_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Split:
    """How one layer becomes two: all that ``low_rank`` has to know.

    Args:
        rank: Features between the two, > 0.
        kernel_in: Which of two convolutions has the kernel.
    """

    rank: int
    kernel_in: KernelIn = "first"


def numerical_rank(matrix: Tensor) -> int:
    """Number of singular values above ``max(m, n) eps sigma_max``.

    Args:
        matrix: Shape ``(m, n)``; eps is that of its dtype, while the values are computed in float64.

    Returns:
        The rank, 0 for a matrix of zeros.
    """
    values = cast("Tensor", torch.linalg.svdvals(matrix.detach().double()))  # pyright: ignore
    if not values.numel():
        return 0
    return int((values > max(matrix.shape) * torch.finfo(matrix.dtype).eps * values[0]).sum())


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``U``, the singular values in descending order and ``V'``, in float64.

    Args:
        matrix: Shape ``(m, n)``.

    Returns:
        Of shapes ``(m, min(m, n))``, ``(min(m, n),)`` and ``(min(m, n), n)``.
    """
    found = torch.linalg.svd(matrix.detach().double(), full_matrices=False)  # pyright: ignore
    return cast("tuple[Tensor, Tensor, Tensor]", found)


def matrix_of(layer: nn.Module, kernel_in: KernelIn = "first") -> Tensor:
    """The weight of a layer as the matrix that two layers multiply up to.

    Args:
        layer: A linear layer, a convolution, or a transposed one.
        kernel_in: Which of two convolutions has the kernel.

    Returns:
        Shape ``(outputs, inputs * kernel)``, or ``(outputs * kernel, inputs)`` if the kernel is in the second.

    Raises:
        TypeError: If ``layer`` is of another kind, or something computes its weight.
        ValueError: If it is a convolution in groups.
    """
    weight = _out_in(layer)
    if kernel_in == "second":
        return weight.movedim(1, -1).flatten(0, -2)
    return weight.flatten(1)


def saves(layer: nn.Module, split: Split) -> bool:
    """Whether two layers have fewer parameters and fewer MACs than one.

    For m outputs and n inputs that is ``rank (m + n) < m n``; for convolutions the kernel counts with one of the two. A
    1x1 convolution that comes before the stride, or after the stride of a transposed one, runs at more positions.

    Args:
        layer: As in ``matrix_of``.
        split: The rank, and where the kernel goes.

    Returns:
        Whether both are fewer.

    Raises:
        TypeError: As ``matrix_of``.
        ValueError: As ``matrix_of``.
    """
    parameters, macs = _cost(layer, split)
    return max(parameters, macs) < _out_in(layer).numel()


def best_split(layer: nn.Module) -> Split | None:
    """The split that computes the same as a layer, saves, and has the fewest parameters.

    Args:
        layer: As in ``matrix_of``.

    Returns:
        The split; None if none saves, or all of the weight is 0.
    """
    orders: Sequence[KernelIn] = ("first", "second") if _out_in(layer).ndim > 2 else ("first",)
    splits = [Split(rank, order) for order in orders if (rank := numerical_rank(matrix_of(layer, order)))]
    return min((s for s in splits if saves(layer, s)), key=lambda split: _cost(layer, split), default=None)


def low_rank(layer: nn.Module, split: Split) -> nn.Sequential:
    """Two layers, ``x -> B (A x) + b``, whose product is the closest to a weight at that rank.

    ``A = sqrt(S) V'`` and ``B = U sqrt(S)`` come from the singular value decomposition ``U S V'`` of ``matrix_of`` in
    float64. The first layer has no bias; the second has the bias of ``layer``, shared and not copied. Stride, padding
    and dilation go with the kernel.

    Args:
        layer: A linear layer (GPT-2's ``Conv1D`` too), a convolution or a transposed one, without groups; not changed.
        split: The rank, and where the kernel goes.

    Returns:
        The two layers; the outputs are the same if the weight has no larger rank.

    Raises:
        TypeError: If ``layer`` is of another kind, or something computes its weight.
        ValueError: If it is a convolution in groups, or the rank is not between 1 and the smaller side of the matrix.
    """
    matrix = matrix_of(layer, split.kernel_in)
    if not 0 < split.rank <= min(matrix.shape):
        raise ValueError(
            f"low_rank: rank must be from 1 to {min(matrix.shape)} for {type(layer).__name__} with a weight of shape "
            f"{tuple(cast('Tensor', layer.weight).shape)}, got {split.rank}; choose one in that range"
        )
    u, s, vh = svd(matrix)
    root = s[: split.rank].sqrt()
    a, b = (root[:, None] * vh[: split.rank]).to(matrix), (u[:, : split.rank] * root).to(matrix)
    return _two(layer, a, b, split)


def two_layers(layer: nn.Module, split: Split) -> nn.Sequential:
    """What ``low_rank`` gives, with weights that are still to be filled in.

    Args:
        layer: As in ``low_rank``.
        split: The rank, and where the kernel goes.

    Returns:
        The two layers.
    """
    weight = matrix_of(layer, split.kernel_in)
    return _two(
        layer, weight.new_zeros(split.rank, weight.shape[1]), weight.new_zeros(weight.shape[0], split.rank), split
    )


def with_factors(layer: nn.Module, b: Tensor, a: Tensor) -> nn.Sequential | None:
    """Two layers whose product is known, the kernel in the first, if that saves.

    Args:
        layer: As in ``low_rank``; its bias goes on, and its weight is not looked at.
        b: Shape ``(outputs, rank)``.
        a: Shape ``(rank, inputs * kernel)``.

    Returns:
        The two layers; None if they would not save, or the layer is none of those that can become two.
    """
    split = Split(a.shape[0])
    try:
        return _two(layer, a, b, split) if split.rank and saves(layer, split) else None
    except (TypeError, ValueError):
        return None


def _two(layer: nn.Module, a: Tensor, b: Tensor, split: Split) -> nn.Sequential:
    outputs, inputs, *kernel = _out_in(layer).shape
    if split.kernel_in == "first":
        a, b = a.view(split.rank, inputs, *kernel), b.view(outputs, split.rank, *[1] * len(kernel))
    else:
        a = a.view(split.rank, inputs, *[1] * len(kernel))
        b = b.view(outputs, *kernel, split.rank).movedim(-1, 1)
    layers = nn.Sequential(_one(layer, a, split.kernel_in == "first"), _one(layer, b, split.kernel_in == "second"))
    trained = cast("Tensor", layer.weight).requires_grad
    for part in layers:
        cast("nn.Parameter", part.weight).requires_grad_(trained)
    bias = layer.bias
    layers[1].register_parameter("bias", bias if isinstance(bias, nn.Parameter) else None)
    return layers.train(layer.training)


def _out_in(layer: nn.Module) -> Tensor:
    """The weight of a layer as ``(outputs, inputs, *kernel)``.

    Raises:
        TypeError: If the layer is of another kind, or something computes its weight.
        ValueError: If it is a convolution in groups.
    """
    role = role_of(layer, "weight")
    # A subclass with a forward of its own may do something else with the weight.
    torchs = isinstance(layer, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED))
    known = type(layer).forward.__module__.startswith("torch.nn") if torchs else _is_gpt2(layer)
    if role is None or not known or is_parametrized(layer) or not isinstance(layer.weight, nn.Parameter):
        raise TypeError(
            "low_rank: layer must be nn.Linear, a convolution or a transposed one with a weight of its own, got "
            f"{type(layer).__name__}; leave this layer as it is"
        )
    if role.conv_groups != 1:
        raise ValueError(
            f"low_rank: {type(layer).__name__} has groups={role.conv_groups}, each with a rank of its own; "
            "leave this layer as it is"
        )
    return layer.weight if role.output == 0 else layer.weight.transpose(0, 1)


def _is_gpt2(layer: nn.Module) -> bool:
    """GPT-2's ``Conv1D``, which keeps its weight as (inputs, outputs)."""
    role = role_of(layer, "weight")
    return role is not None and (role.kind, role.output, role.input) == ("weight", 1, 0) and hasattr(layer, "nf")


def _cost(layer: nn.Module, split: Split) -> tuple[int, int]:
    """Parameters, and MACs for each position of the layer's kernel."""
    outputs, inputs, *kernel = _out_in(layer).shape
    size = prod(kernel)
    stride = prod(cast("tuple[int, ...]", layer.stride)) if kernel else 1
    first, second = (inputs * size, outputs) if split.kernel_in == "first" else (inputs, outputs * size)
    if isinstance(layer, _TRANSPOSED):
        more = (1, stride) if split.kernel_in == "first" else (1, 1)
    else:
        more = (1, 1) if split.kernel_in == "first" else (stride, 1)
    return split.rank * (first + second), split.rank * (first * more[0] + second * more[1])


def _one(layer: nn.Module, weight: Tensor, kernel: bool) -> nn.Module:
    """A layer without a bias.

    Args:
        layer: What it is derived from.
        weight: Its weight, shape ``(outputs, inputs, *kernel)``.
        kernel: Whether it takes over how the kernel moves.
    """
    outputs, inputs = weight.shape[:2]
    options: dict[str, Any] = {"bias": False, "device": "meta"}
    if isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        bases = _TRANSPOSED if isinstance(layer, _TRANSPOSED) and kernel else _CONVOLUTIONS
        if kernel:
            options |= {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        if kernel and isinstance(layer, _TRANSPOSED):
            options["output_padding"] = layer.output_padding
            weight = weight.transpose(0, 1)
        one = bases[weight.ndim - 3](inputs, outputs, weight.shape[2:], **options)
    else:
        # For GPT-2's Conv1D too: that class cannot be without a bias.
        one = nn.Linear(inputs, outputs, **options)
    one.weight = nn.Parameter(weight.contiguous())
    return one


__all__ = [
    "KernelIn",
    "Split",
    "best_split",
    "low_rank",
    "matrix_of",
    "numerical_rank",
    "saves",
    "svd",
    "two_layers",
    "with_factors",
]
