"""Recurrent layers whose layers and directions have sizes of their own."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

State = Tensor | tuple[Tensor, Tensor]
Sequences = Tensor | PackedSequence


class Recurrent(nn.Module):
    """A stack of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` of one layer and one direction each.

    It computes what one module with several layers or both directions does. Every part has a size of its own: whoever
    cuts a unit cuts it in the part, and in what reads the part, namely the parts of the layer above or what reads the
    output.

    Args:
        layers: For each layer the part that runs forward, and the one that runs backward if there is one; they read all
            that the parts of the layer below give, forward before backward.
        dropout: Fraction of what goes from layer to layer that is dropped in training, in [0, 1].

    Raises:
        ValueError: If a part has several layers or directions or a projection, or layers have unequally many parts.
    """

    layers: nn.ModuleList

    def __init__(self, layers: Sequence[Sequence[nn.RNNBase]], dropout: float = 0.0) -> None:
        super().__init__()
        for part in (part for parts in layers for part in parts):
            if part.num_layers != 1 or part.bidirectional or part.proj_size:
                raise ValueError(
                    f"Recurrent: a part must have one layer, one direction and no projection, got {part}; "
                    "split it with Recurrent.like"
                )
        counts = sorted({len(parts) for parts in layers})
        if counts not in ([1], [2]):
            raise ValueError(
                f"Recurrent: every layer must have one part, or two if it runs in both directions, got {counts} parts; "
                "pass equally many for each layer"
            )
        self.layers = nn.ModuleList(nn.ModuleList(parts) for parts in layers)
        self.dropout = dropout

    @classmethod
    def like(cls, module: nn.RNNBase) -> "Recurrent":
        """The same layers with the same parameters, which are shared and not copied.

        Args:
            module: An ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``; it is not changed.

        Returns:
            The replacement, in the same mode (training or evaluation). The parameter ``weight_ih_l1_reverse`` is now
            ``layers.1.1.weight_ih_l0``, and so on.

        Raises:
            TypeError: If ``module`` is something else.
            ValueError: If it has a projection, or a parameter is parametrized.
        """
        kind = next((kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, kind)), None)
        if kind is None or type(module).forward is not kind.forward:
            raise TypeError(
                "Recurrent.like: module must compute what nn.LSTM, nn.GRU or nn.RNN computes, got "
                f"{type(module).__name__}; leave this module as it is"
            )
        if module.proj_size:
            raise ValueError(
                f"Recurrent.like: the nn.LSTM has proj_size={module.proj_size}, and a projection is not split; "
                "cut equally many units of all its layers instead"
            )
        if is_parametrized(module):
            raise ValueError(
                f"Recurrent.like: a parameter of the {kind.__name__} is parametrized, and would no longer be computed; "
                "remove the parametrization first"
            )
        directions = ("", "_reverse") if module.bidirectional else ("",)
        layers = [
            [_part(module, kind, f"_l{layer}{direction}") for direction in directions]
            for layer in range(module.num_layers)
        ]
        return cls(layers, module.dropout).train(module.training)

    def forward(self, x: Sequences, hx: State | None = None) -> tuple[Sequences, State | None]:
        """Run the layers; arguments and results are those of ``nn.LSTM`` and its like.

        Args:
            x: Shape ``(time, batch, features)``, or ``(batch, time, features)`` if ``batch_first``, or
                ``(time, features)``; or sequences of several lengths, packed.
            hx: Initial states, shape ``(layers * directions, batch, units)`` (two of them for an LSTM); None for zeros.

        Returns:
            The output, shape ``(time, batch, units forward + units backward)``, and the final states, shaped like the
            initial ones; None in place of them if the parts have unequally many units.

        Raises:
            ValueError: If there are initial states, and the parts have unequally many units.
        """
        parts = self._parts()
        sizes = [part.hidden_size for part in parts]
        equal = len(set(sizes)) == 1
        if hx is not None and not equal:
            raise ValueError(
                f"Recurrent: hx stacks the states of all parts, which have {sizes} units and do not fit into one "
                "tensor; start from zeros"
            )
        starts = [None if hx is None else _map(hx, lambda h, at=at: h[at : at + 1]) for at in range(len(parts))]
        states: list[State] = []
        directions = len(cast("nn.ModuleList", self.layers[0]))
        for layer in range(len(self.layers)):
            if layer and self.training and self.dropout > 0:
                x = _on_data(x, lambda data: dropout(data, self.dropout))
            outputs: list[Sequences] = []
            for backward in range(directions):
                at = layer * directions + backward
                output, state = parts[at](_reversed(x, parts[at]) if backward else x, starts[at])
                outputs.append(_reversed(output, parts[at]) if backward else output)
                states.append(state)
            x = _side_by_side(outputs)
        if not equal:
            return x, None
        if isinstance(states[0], Tensor):
            return x, torch.cat(cast("list[Tensor]", states))
        pairs = cast("list[tuple[Tensor, Tensor]]", states)
        return x, (torch.cat([h for h, _ in pairs]), torch.cat([c for _, c in pairs]))

    def flatten_parameters(self) -> None:
        """Lay out the weights of each part as cuDNN wants them, as ``nn.LSTM`` does; models call it before they run."""
        for part in self._parts():
            part.flatten_parameters()

    def _parts(self) -> list[nn.RNNBase]:
        """All parts, layer by layer, forward before backward."""
        layers = cast("list[list[nn.RNNBase]]", list(self.layers))
        return [part for parts in layers for part in parts]


def _part(module: nn.RNNBase, kind: Callable[..., nn.RNNBase], suffix: str) -> nn.RNNBase:
    """One layer and direction of a module, with its parameters."""
    inputs = module.get_parameter(f"weight_ih{suffix}").shape[1]
    options: dict[str, Any] = {"bias": module.bias, "batch_first": module.batch_first, "device": "meta"}
    if isinstance(module, nn.RNN):
        options["nonlinearity"] = module.nonlinearity
    part = kind(inputs, module.hidden_size, **options)
    for name, _ in list(part.named_parameters()):
        setattr(part, name, module.get_parameter(name.removesuffix("_l0") + suffix))
    return part


def _map(state: State, f: Callable[[Tensor], Tensor]) -> State:
    """Change both states of an LSTM, or the one of another."""
    return f(state) if isinstance(state, Tensor) else (f(state[0]), f(state[1]))


def _on_data(x: Sequences, f: Callable[[Tensor], Tensor]) -> Sequences:
    """Change the entries of sequences, packed or not."""
    return f(x) if isinstance(x, Tensor) else x._replace(data=f(x.data))


def _side_by_side(outputs: list[Sequences]) -> Sequences:
    if len(outputs) == 1:
        return outputs[0]
    data = torch.cat([output if isinstance(output, Tensor) else output.data for output in outputs], dim=-1)
    return _on_data(outputs[0], lambda _: data)


def _reversed(x: Sequences, part: nn.RNNBase) -> Sequences:
    """Each sequence from its end to its beginning."""
    if isinstance(x, Tensor):
        return x.flip(1 if part.batch_first and x.dim() == 3 else 0)
    # Rows are packed step by step: at each step one of each sequence that is that long, the longest sequence first.
    sizes = x.batch_sizes
    step = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    starts = sizes.cumsum(0) - sizes
    sequence = torch.arange(len(step)) - starts[step]
    length = (sizes[:, None] > torch.arange(int(sizes[0]))).sum(dim=0)
    rows = starts[length[sequence] - 1 - step] + sequence
    return _on_data(x, lambda data: data[rows.to(data.device)])


__all__ = ["Recurrent"]
