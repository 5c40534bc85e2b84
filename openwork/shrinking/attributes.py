"""Attributes that say how wide a module is: those of known layers, and those that a module's own code is told."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from openwork.files import Json
from openwork.shrinking.finding import Finding
from openwork.wiring import is_gpt2_linear

Attributes = dict[str, dict[str, Json]]


def of_layers(before: nn.Module, after: nn.Module, names: Sequence[str]) -> Attributes:
    """New values for the attributes of layers whose tensors have been cut.

    Args:
        before: The model as it was.
        after: The model with cut tensors.
        names: Names of the cut tensors.

    Returns:
        Values by path of the module and name of the attribute.
    """
    found: Attributes = {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in names):
        old, new = before.get_submodule(path), after.get_submodule(path)
        for kinds, read in _LAYERS:
            if is_gpt2_linear(new) if kinds is None else isinstance(new, kinds):
                changed = {name: value for name, value in read(old, new).items() if getattr(old, name) != value}
                if changed:
                    found[path] = changed
                break
    return found


def told(model: nn.Module, finding: Finding, kept: Sequence[Tensor]) -> Attributes:
    """New values for the attributes that feed lengths which the code of a module is told.

    A module whose code reshapes, splits or slices to a length that changes has that length in an attribute, or derives
    it. Attributes with a usual name come first, and those that count heads do not stand for what measures them.

    Args:
        model: As it was traced.
        finding: What can go.
        kept: Units that stay, for each coupling.

    Returns:
        Values by path of the module and name of the attribute.
    """
    everything = [units.new_ones(units.shape) for units in kept]
    found: Attributes = {}
    for length in finding.grouping.lengths:
        old, new = length.after(everything), length.after(kept)
        if old == new:
            continue
        module = model.get_submodule(length.module)
        same = [name for name, value in vars(module).items() if type(value) is int and value == old]
        counting = any(length.coupling.shape[dim] > 1 for dim in range(length.dim + 1, length.coupling.ndim))
        usual = [name for name in same if _USUAL.fullmatch(name.lstrip("_"))]
        fitting = [name for name in usual if bool(_COUNTS.search(name)) == counting]
        for name in fitting or usual or ([] if length.derived else same):
            found.setdefault(length.module, {})[name] = new
    return found


def set_attributes(model: nn.Module, attributes: Mapping[str, Mapping[str, Json]]) -> None:
    """Write attributes into the modules of a model."""
    for path, values in attributes.items():
        module = model.get_submodule(path)
        for name, value in values.items():
            setattr(module, name, tuple(value) if isinstance(value, (list, tuple)) else value)


def _linear(_: Any, new: Any) -> dict[str, Json]:
    return {"out_features": new.weight.shape[0], "in_features": new.weight.shape[1]}


def _gpt2_linear(_: Any, new: Any) -> dict[str, Json]:
    return {"nx": new.weight.shape[0], "nf": new.weight.shape[1]} if hasattr(new, "nx") else {"nf": new.weight.shape[1]}


def _convolution(old: Any, new: Any) -> dict[str, Json]:
    depthwise = old.groups > 1 and old.groups == old.in_channels
    if isinstance(new, _TRANSPOSED):
        inputs = new.weight.shape[0]
        groups = inputs if depthwise else old.groups
        return {"in_channels": inputs, "out_channels": new.weight.shape[1] * groups, "groups": groups}
    outputs = new.weight.shape[0]
    groups = outputs * old.groups // old.out_channels if depthwise else old.groups
    return {"in_channels": new.weight.shape[1] * groups, "out_channels": outputs, "groups": groups}


def _features(old: Any, new: Any) -> dict[str, Json]:
    return {"num_features": (new.weight if new.weight is not None else new.running_mean).shape[0]}


def _group_norm(old: Any, new: Any) -> dict[str, Json]:
    channels = new.weight.shape[0]
    return {"num_channels": channels, "num_groups": old.num_groups * channels // old.num_channels}


def _normalized(_: Any, new: Any) -> dict[str, Json]:
    return {"normalized_shape": tuple(new.weight.shape)}


def _embedding(_: Any, new: Any) -> dict[str, Json]:
    return {"num_embeddings": new.weight.shape[0], "embedding_dim": new.weight.shape[1]}


def _recurrent(_: Any, new: Any) -> dict[str, Json]:
    return {"input_size": new.weight_ih_l0.shape[1], "hidden_size": new.weight_hh_l0.shape[0] // _GATES[new.mode]}


def _slopes(_: Any, new: Any) -> dict[str, Json]:
    return {"num_parameters": prod(new.weight.shape)}


_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
# None stands for GPT-2's layer, which is known by its name.
_LAYERS: list[tuple[tuple[type, ...] | None, Callable[[Any, Any], dict[str, Json]]]] = [
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED), _convolution),
    ((*_BATCH_NORMS, *_INSTANCE_NORMS), _features),
    ((nn.GroupNorm,), _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), _normalized),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.RNNBase,), _recurrent),
    ((nn.PReLU,), _slopes),
    (None, _gpt2_linear),
]

# What attributes that hold widths are called.
_USUAL = re.compile(
    r"(num_|n_?)?(attention_|key_value_|kv_|q_|query_|key_|value_)?(heads?|groups?|channels?|features|filters|units|experts)"
    r"|(all_|attention_)?(head|hidden|inner|embed|embedding|model|key|value|qk|v|k|q|kv|mlp|ffn|intermediate|d|split)_?"
    r"(dim|size|width|features|channels)s?"
    r"|(dim|width|channels|d_model|d_inner|d_ff|d_k|d_v|d_head|n_inner|n_embd|nhead|all_head_size|attention_head_size"
    r"|intermediate_size|hidden_dim|num_key_value_heads|dim_feedforward|planes)"
)
_COUNTS = re.compile(r"(?<!d_)heads?$|groups?$|^num_(?!features|channels)|^n_?(heads?|groups?)")


__all__ = ["Attributes", "of_layers", "set_attributes", "told"]
