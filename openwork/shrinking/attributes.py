"""Attributes that say how wide a module is: those of known layers, and those that a module's own code is told."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from openwork.files import Json
from openwork.wiring import Grouping, is_gpt2_linear

Attributes = dict[str, dict[str, Json]]


def of_layers(model: nn.Module, tensors: Mapping[str, Tensor], cut: Iterable[str]) -> Attributes:
    """New values for the attributes of layers whose tensors are cut.

    Args:
        model: As it was.
        tensors: Parameters and buffers as they will be.
        cut: Names of those that are cut.

    Returns:
        Values by path of the module and name of the attribute.
    """
    found: Attributes = {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in cut):
        layer = model.get_submodule(path)
        shapes = {
            name: tuple(tensors[f"{path}.{name}" if path else name].shape)
            for name in (*dict(layer.named_parameters(recurse=False)), *dict(layer.named_buffers(recurse=False)))
            if (f"{path}.{name}" if path else name) in tensors
        }
        read = _reader(layer)
        values = {} if read is None else read(layer, shapes)
        if changed := {name: value for name, value in values.items() if getattr(layer, name) != value}:
            found[path] = changed
    return found


def _reader(layer: nn.Module) -> "Reader | None":
    """What tells the attributes of a known kind of layer from its shapes."""
    if is_gpt2_linear(layer):
        return _gpt2_linear
    return next((read for kinds, read in _LAYERS if isinstance(layer, kinds)), None)


def told(model: nn.Module, grouping: Grouping, kept: Sequence[Tensor]) -> Attributes:
    """New values for the attributes that feed lengths which the code of a module is told.

    A module whose code reshapes, splits or slices to a length that changes has that length in an attribute, or derives
    it. Attributes with a usual name come first, and those that count heads do not stand for what measures them.

    Args:
        model: As it was traced.
        grouping: Its couplings, and the lengths that its modules are told.
        kept: Units that stay, for each coupling.

    Returns:
        Values by path of the module and name of the attribute.
    """
    everything = [units.new_ones(units.shape) for units in kept]
    found: Attributes = {}
    for length in grouping.lengths:
        old, new = length.after(everything), length.after(kept)
        if old == new:
            continue
        module = model.get_submodule(length.module)
        if _reader(module) is not None and getattr(module, "weight", None) is not None:
            continue
        same = [name for name, value in vars(module).items() if type(value) is int and value == old]
        # What counts heads or channels lies before other dimensions, and what measures them comes last.
        last = length.dim == length.coupling.ndim - 1
        counted = any(length.coupling.shape[dim] > 1 for dim in range(length.dim + 1, length.coupling.ndim))
        same = [name for name in same if not (_COUNTS if last else _MEASURES).search(name) and not _RATIO.search(name)]
        usual = [name for name in same if _USUAL.fullmatch(name.lstrip("_"))]
        # What torch works out needs no attribute: one that counts the same is kept right all the same.
        derived = usual if last or counted else []
        for name in derived if length.derived else usual or same:
            found.setdefault(length.module, {})[name] = new
    return found


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Json]]) -> None:
    """Write attributes into the modules of a model."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, tuple(value) if isinstance(value, (list, tuple)) else value)


Shapes = Mapping[str, tuple[int, ...]]
Reader = Callable[[Any, Shapes], dict[str, Json]]


def _linear(_: Any, shapes: Shapes) -> dict[str, Json]:
    return {"out_features": shapes["weight"][0], "in_features": shapes["weight"][1]}


def _gpt2_linear(layer: Any, shapes: Shapes) -> dict[str, Json]:
    inputs: dict[str, Json] = {"nx": shapes["weight"][0]} if hasattr(layer, "nx") else {}
    return {**inputs, "nf": shapes["weight"][1]}


def _convolution(layer: Any, shapes: Shapes) -> dict[str, Json]:
    rows, columns = shapes["weight"][:2]
    depthwise = layer.groups > 1 and layer.groups == layer.in_channels
    if isinstance(layer, _TRANSPOSED):
        groups = rows if depthwise else layer.groups
        return {"in_channels": rows, "out_channels": columns * groups, "groups": groups}
    groups = rows * layer.groups // layer.out_channels if depthwise else layer.groups
    return {"in_channels": columns * groups, "out_channels": rows, "groups": groups}


def _features(_: Any, shapes: Shapes) -> dict[str, Json]:
    return {"num_features": shapes.get("weight", shapes.get("running_mean", ()))[0]}


def _group_norm(layer: Any, shapes: Shapes) -> dict[str, Json]:
    channels = shapes["weight"][0]
    return {"num_channels": channels, "num_groups": layer.num_groups * channels // layer.num_channels}


def _normalized(_: Any, shapes: Shapes) -> dict[str, Json]:
    return {"normalized_shape": shapes["weight"]}


def _embedding(_: Any, shapes: Shapes) -> dict[str, Json]:
    return {"num_embeddings": shapes["weight"][0], "embedding_dim": shapes["weight"][1]}


def _recurrent(layer: Any, shapes: Shapes) -> dict[str, Json]:
    return {"input_size": shapes["weight_ih_l0"][1], "hidden_size": shapes["weight_hh_l0"][0] // _GATES[layer.mode]}


def _slopes(_: Any, shapes: Shapes) -> dict[str, Json]:
    return {"num_parameters": prod(shapes["weight"])}


_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_LAYERS: list[tuple[tuple[type, ...], Reader]] = [
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED), _convolution),
    ((*_BATCH_NORMS, *_INSTANCE_NORMS), _features),
    ((nn.GroupNorm,), _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), _normalized),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.RNNBase,), _recurrent),
    ((nn.PReLU,), _slopes),
]

# What attributes that hold widths are called.
_USUAL = re.compile(
    r"(num_|n_?)?(attention_|key_value_|kv_|q_|query_|key_|value_)?(heads?|groups?|channels?|features|filters|units)"
    r"|(all_|attention_)?(head|hidden|inner|embed|embedding|model|key|value|qk|v|k|q|kv|mlp|ffn|intermediate|d|split)_?"
    r"(dim|size|width|features|channels)s?"
    r"|(dim|width|channels|d_model|d_inner|d_ff|d_k|d_v|d_head|n_inner|n_embd|nhead|all_head_size|attention_head_size"
    r"|intermediate_size|hidden_dim|num_key_value_heads|dim_feedforward|planes)"
)
_COUNTS = re.compile(r"(?<!d_)heads?$|groups?$|^num_(?!features|channels)|^n_?(heads?|groups?)")
_RATIO = re.compile(r"key_value_groups|n_rep$|per_")
_MEASURES = re.compile(r"(dim|size|width)s?$|^d_")


__all__ = ["Attributes", "of_layers", "set_attributes", "told"]
