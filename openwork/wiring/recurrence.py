"""Which units of a recurrent layer stay exactly zero, from numbers of which some are not known."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Number of gates, whose rows are stacked in a weight, and the one that is 0 where a unit stays 0, since it says what is
# new: ``c' = f c + i tanh(g)``, ``h' = o tanh(c')`` (LSTM); ``h' = (1 - z) tanh(n) + z h`` (GRU); ``h' = tanh(n)``.
GATES = {"lstm": (4, 2), "gru": (3, 2), "rnn_tanh": (1, 0), "rnn_relu": (1, 0)}


def recurrent_known(
    name: str,
    x: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool = False,
) -> tuple[Tensor, ...]:
    """What is known of the results of ``aten.lstm``, ``gru``, ``rnn_tanh`` and ``rnn_relu``: the zeros.

    A unit stays 0 if it starts at 0, its biases are 0, and it reads nothing but inputs and units that stay 0. What is
    found is the largest set of such units.

    Args:
        name: Name of the operation; the other arguments are its own, with NaN for a number that is not known.
        x: Input, shape ``(time, batch, features)``, or ``(batch, time, features)`` if ``batch_first``.
        hx: Initial states, ``(h,)`` or ``(h, c)``, shape ``(layers * directions, batch, units)`` each.
        params: For each layer and direction ``weight_ih``, ``weight_hh``, the two biases if there are any, and the
            projection of the LSTM if there is one.
        has_biases: Whether there are biases.
        num_layers: Number of layers.
        dropout: Does not matter, since 0 stays 0; nor does ``train``.
        train: Whether the layer is in training.
        bidirectional: Whether each layer runs in both directions.
        batch_first: Whether ``x`` and the output begin with the batch.

    Returns:
        The output, and the final states as in ``hx``: 0 where they are known to be 0, NaN elsewhere.
    """
    directions = 1 + bidirectional
    each = len(params) // (num_layers * directions)
    silent = (x == 0).flatten(0, 1).all(dim=0)
    outputs: list[Tensor] = []
    cells: list[Tensor] = []
    for at in range(num_layers * directions):
        starts = [(state[at] == 0).all(dim=0) for state in hx]
        output, cell = _silent(name, silent, starts, params[at * each : (at + 1) * each], has_biases)
        outputs.append(output)
        cells.append(cell)
        if len(outputs) % directions == 0:
            # Both directions of a layer read what the layer before gives.
            silent = torch.cat(outputs[-directions:])
    batch = x.shape[0 if batch_first else 1]
    finals = [outputs, cells][: len(hx)]
    results = [
        silent.expand(*x.shape[:2], -1),
        *(torch.stack(each).unsqueeze(1).expand(-1, batch, -1) for each in finals),
    ]
    return tuple(torch.where(zero, 0.0, torch.nan).to(x.dtype) for zero in results)


def _silent(
    name: str, silent: Tensor, starts: list[Tensor], params: Sequence[Tensor], has_biases: bool
) -> tuple[Tensor, Tensor]:
    """Which outputs and which cells of one layer and direction stay 0; both are the same without a projection.

    Args:
        name: Name of the operation.
        silent: Which inputs are 0 at every step, ``(features,)``.
        starts: Which units of each initial state are 0.
        params: Parameters of this layer and direction.
        has_biases: Whether there are biases.
    """
    gates, new = GATES[name]
    rows = [tensor.reshape(gates, -1, *tensor.shape[1:])[new] for tensor in params[: 4 if has_biases else 2]]
    projection = params[-1] if len(params) > len(rows) else None
    cell = starts[-1] & (rows[0][:, ~silent] == 0).all(dim=1)
    for bias in rows[2:]:
        cell = cell & (bias == 0)
    while True:
        output = starts[0] & (cell if projection is None else (projection[:, ~cell] == 0).all(dim=1))
        # A unit leaves the set when it reads one that has left; the set is right when none has to leave.
        kept = cell & (rows[1][:, ~output] == 0).all(dim=1)
        if torch.equal(kept, cell):
            return output, cell
        cell = kept


__all__ = ["GATES", "recurrent_known"]
