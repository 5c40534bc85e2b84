"""Layers as tensors under string keys, to go on from bit for bit."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from openwork.altmin.inertia import Iterate
from openwork.altmin.state import Layer
from openwork.files import State

ITERATES = ("weight", "bias", "z", "a")
TENSORS = ("residual", "weight_curvature", "input_curvature", "dual", "weight_push", "input_push", "eps", "eps_floor")
NUMBERS = ("rho", "mu", "penalty_weight")


def saved_layer(layer: Layer) -> dict[str, State]:
    """Everything of a layer that a sweep changes; references, no copies.

    Args:
        layer: Any.
    """
    state: dict[str, State] = {name: getattr(layer, name) for name in (*TENSORS, *NUMBERS)}
    # Power iterations start where they ended.
    state["weight_probe"], state["input_probe"] = layer.link.probes
    for name in ITERATES:
        iterate: Iterate | None = getattr(layer, name)
        state[name] = None if iterate is None else iterate.now
        state[f"{name}_before"] = None if iterate is None else iterate.before
    return state


def check_layers(place: str, layers: Sequence[Layer], state: Sequence[Mapping[str, object]]) -> None:
    """Refuse the states of other layers.

    Args:
        place: Where they are loaded.
        layers: What they are loaded into.
        state: From ``saved_layer``, one per layer.

    Raises:
        ValueError: If there are more or fewer, or a shape does not match.
    """
    if len(state) != len(layers):
        raise ValueError(f"{place}: the model has {len(layers)} weight layers, the state to load {len(state)}")
    for index, (layer, one) in enumerate(zip(layers, state, strict=True)):
        check_saved(place, index, layer, one)


def check_saved(place: str, index: int, layer: Layer, state: Mapping[str, object]) -> None:
    """Refuse the state of another layer.

    Args:
        place: Where it is loaded.
        index: Of the layer.
        layer: What it is loaded into.
        state: From ``saved_layer``.

    Raises:
        ValueError: If a shape does not match.
    """
    for name in ITERATES:
        iterate: Iterate | None = getattr(layer, name)
        found = state.get(name)
        shape = tuple(found.shape) if isinstance(found, Tensor) else None
        expected = None if iterate is None else tuple(iterate.now.shape)
        if shape != expected:
            raise ValueError(
                f"{place}: layer {index + 1} has {name} of shape {expected}, the state to load {shape}; load it into a "
                "trainer of the same model, started on the same samples"
            )


def load_layer(layer: Layer, state: Mapping[str, object]) -> None:
    """Put a saved state into a layer and its module.

    Args:
        layer: Of the same shapes.
        state: From ``saved_layer``.
    """
    like = layer.residual

    def tensor(name: str) -> Tensor | None:
        value = state[name]
        return value.detach().to(like.device, copy=True) if isinstance(value, Tensor) else None

    for name in TENSORS:
        setattr(layer, name, tensor(name))
    for name in NUMBERS:
        setattr(layer, name, state[name])
    for name in ITERATES:
        now = tensor(name)
        setattr(layer, name, None if now is None else Iterate(now, tensor(f"{name}_before")))
    layer.link.probes = tensor("weight_probe"), tensor("input_probe")
    layer.write_back()
