"""What a layer type means: which dimension of which parameter is input, which is output; said here and nowhere else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from openwork.partitions import Blocks, Partition, Slices

Kind = Literal["weight", "bias", "scale", "table", "slope", "original"]


@dataclass(frozen=True)
class Role:
    """What one parameter does in its layer, and what its dimensions index.

    Args:
        kind: A ``"weight"`` mixes input features into output features; a ``"bias"`` shifts features, and a ``"scale"``
            (of a normalization) or ``"slope"`` (of an activation) rescales them, one by one; a ``"table"`` (of an
            embedding) holds one vector per row; an ``"original"`` is what a parametrization computes a weight from.
        output: Dimension that indexes output features; None if there is none.
        input: Dimension that indexes input features; None if there is none.
        conv_groups: Number of convolutions that work side by side. Dimension 0 of the weight then runs through the
            channels of all of them, one convolution after the other, and dimension 1 through the channels of one.
        stacked: Number of equal maps stacked along ``output``: the gates of an LSTM, or query, key and value.
        heads: Number of equal runs, one per attention head, in each stacked map.
    """

    kind: Kind
    output: int | None = None
    input: int | None = None
    conv_groups: int = 1
    stacked: int = 1
    heads: int = 1

    def input_slices(self, shape: tuple[int, ...]) -> Partition | None:
        """The partition with one group per input feature, in the order of the features.

        Args:
            shape: Shape of the parameter.

        Returns:
            The partition; None where the parameter has no input features.
        """
        if self.input is None:
            return None
        if self.conv_groups > 1 and self.input == 1:
            return Blocks((shape[0] // self.conv_groups, 1))
        return Slices(self.input)


Roles = Mapping[str, Role]


def role_of(layer: nn.Module, name: str) -> Role | None:
    """Look up what a parameter means.

    A subclass means what its nearest known base class means, as long as it keeps the parameter's name.

    Args:
        layer: The module that holds the parameter.
        name: Name of the parameter in that module, such as ``"weight"``.

    Returns:
        Its role; None if nobody knows.
    """
    for cls in type(layer).__mro__:
        row = _LAYERS.get(cls) or _LAYERS_OF_OTHERS.get(cls.__name__)
        if row is not None:
            roles = row(layer) if callable(row) else row
            return next((role for pattern, role in roles.items() if fnmatchcase(name, pattern)), None)
    return None


def rms_eps(layer: nn.Module) -> str | None:
    """Name of the attribute that holds the eps of a root-mean-square normalization with a scale.

    Others than torch's have the same parts under the names that `transformers` uses.

    Args:
        layer: Any module.

    Returns:
        The name; None if the module is no such normalization.
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim != 1 or "norm" not in type(layer).__name__.lower():
        return None
    return next((name for name in ("variance_epsilon", "eps", "epsilon") if hasattr(layer, name)), None)


def _convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> Roles:
    return {"weight": Role("weight", output=0, input=1, conv_groups=layer.groups), "bias": _BIAS}


def _transposed_convolution(layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> Roles:
    return {"weight": Role("weight", output=1, input=0, conv_groups=layer.groups), "bias": _BIAS}


def _attention(layer: nn.MultiheadAttention) -> Roles:
    heads: int = layer.num_heads
    return {
        "in_proj_weight": Role("weight", output=0, input=1, stacked=3, heads=heads),
        "[qkv]_proj_weight": Role("weight", output=0, input=1, heads=heads),
        "in_proj_bias": Role("bias", output=0, stacked=3, heads=heads),
        # One more key and one more value, of shape (1, 1, features).
        "bias_[kv]": Role("bias", output=2, heads=heads),
    }


def _free_attention(layer: nn.Module) -> Roles:
    """What shrink puts in place of ``nn.MultiheadAttention``: its widths are free, so its maps are not equal runs."""
    if not hasattr(layer, "in_proj_weight") or not hasattr(layer, "num_heads"):
        return {}
    weight, more = Role("weight", output=0, input=1), Role("bias", output=2)
    return {"in_proj_weight": weight, "[qkv]_proj_weight": weight, "in_proj_bias": _BIAS, "bias_[kv]": more}


def _recurrent(gates: int) -> Roles:
    weight = Role("weight", output=0, input=1, stacked=gates)
    bias = Role("bias", output=0, stacked=gates)
    # weight_hr is the projection of an LSTM with proj_size.
    return {"weight_[ih]h*": weight, "weight_hr*": Role("weight", output=0, input=1), "bias_[ih]h*": bias}


def _gpt2_linear(layer: nn.Module) -> Roles:
    """GPT-2's ``Conv1D``: a Linear layer that stores its weight as (input, output).

    Others have used the class name for real convolutions, so the shape has to agree.
    """
    return {"weight": Role("weight", output=1, input=0), "bias": _BIAS} if is_gpt2_linear(layer) else {}


def is_gpt2_linear(layer: nn.Module) -> bool:
    """Whether a module is GPT-2's ``Conv1D``, known by its name and its shape."""
    weight = getattr(layer, "weight", None)
    named = any(cls.__name__ == "Conv1D" for cls in type(layer).__mro__)
    return (
        named
        and isinstance(weight, nn.Parameter)
        and weight.ndim == 2
        and weight.shape[1] == getattr(layer, "nf", None)
    )


_BIAS = Role("bias", output=0)
_LINEAR = {"weight": Role("weight", output=0, input=1), "bias": _BIAS}
# A LayerNorm may span several dimensions, of which the last indexes features.
_NORM = {"weight": Role("scale", output=-1), "bias": Role("bias", output=-1)}
# The input of an embedding is which row to take.
_EMBEDDING = {"weight": Role("table", output=1, input=0)}

# A row maps patterns of parameter names to roles, or is a function of the layer where a number comes from there.
_LAYERS: dict[type, Roles | Callable[[Any], Roles]] = {
    nn.Linear: _LINEAR,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed_convolution,
    nn.ConvTranspose2d: _transposed_convolution,
    nn.ConvTranspose3d: _transposed_convolution,
    nn.RNN: _recurrent(1),
    nn.RNNCell: _recurrent(1),
    nn.GRU: _recurrent(3),
    nn.GRUCell: _recurrent(3),
    nn.LSTM: _recurrent(4),
    nn.LSTMCell: _recurrent(4),
    nn.MultiheadAttention: _attention,
    nn.Embedding: _EMBEDDING,
    nn.EmbeddingBag: _EMBEDDING,
    nn.BatchNorm1d: _NORM,
    nn.BatchNorm2d: _NORM,
    nn.BatchNorm3d: _NORM,
    nn.SyncBatchNorm: _NORM,
    nn.InstanceNorm1d: _NORM,
    nn.InstanceNorm2d: _NORM,
    nn.InstanceNorm3d: _NORM,
    nn.GroupNorm: _NORM,
    nn.LayerNorm: _NORM,
    nn.RMSNorm: _NORM,
    nn.PReLU: {"weight": Role("slope", output=0)},
    ParametrizationList: {"original*": Role("original")},
}
# Classes of packages that we do not import, by name.
_LAYERS_OF_OTHERS: dict[str, Callable[[nn.Module], Roles]] = {"Conv1D": _gpt2_linear, "Attention": _free_attention}
