"""Recurrent layers with computed weights."""

from typing import cast

from torch import Tensor, nn


def forget_weights(layer: nn.Module) -> None:
    """Have a recurrent layer forget the weights of a pass after it.

    They hold the graph of the pass, which costs memory, and no copy of the layer can be made.

    Args:
        layer: Any layer; nothing happens if it is not recurrent.
    """
    if isinstance(layer, nn.RNNBase) and _forget not in _hooks(layer).values():
        layer.register_forward_hook(_forget)


def remember_weights(layer: nn.Module) -> None:
    """Undo ``forget_weights``.

    Args:
        layer: Any layer.
    """
    hooks = _hooks(layer)
    for key in [key for key, hook in hooks.items() if hook is _forget]:
        del hooks[key]


def _hooks(layer: nn.Module) -> dict[int, object]:
    return cast("dict[int, object]", layer._forward_hooks)  # pyright: ignore[reportPrivateUsage,reportUnknownMemberType]


def _forget(layer: nn.RNNBase, args: object, output: object) -> None:
    # Torch looks whether they have changed before each pass, and finds that they have.
    weights: list[Tensor | None] = layer._flat_weights  # pyright: ignore[reportPrivateUsage]
    layer._flat_weights = [  # pyright: ignore[reportPrivateUsage]
        None if weight is None else weight.detach() for weight in weights
    ]


__all__ = ["forget_weights", "remember_weights"]
