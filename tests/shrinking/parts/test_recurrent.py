"""A recurrent module split into parts computes the same, and its parts can be cut on their own."""

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils._pytree import tree_leaves

from openwork.shrinking.parts import Recurrent
from openwork.wiring import inspect

KINDS: dict[str, Callable[..., Any]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn": lambda *a, **o: nn.RNN(*a, nonlinearity="relu", **o),
}


def close(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def start(name: str, parts: int, *batch: int) -> Any:
    states = tuple(torch.randn(parts, *batch, 5, dtype=torch.float64) for _ in range(2 if name == "lstm" else 1))
    return states if name == "lstm" else states[0]


@pytest.mark.parametrize(
    ("name", "layers", "bidirectional", "batch_first", "bias"),
    list(itertools.product(KINDS, [1, 3], [True, False], [True, False], [True, False])),
)
def test_it_is_torchs(name: str, layers: int, bidirectional: bool, batch_first: bool, bias: bool) -> None:
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    theirs = KINDS[name](4, 5, **options).double()
    ours = Recurrent.like(theirs)
    parts = layers * (1 + bidirectional)
    x = torch.randn(3, 6, 4, dtype=torch.float64)
    batch = 3 if batch_first else 6
    for given in (None, start(name, parts, batch)):
        close(ours(x, given), theirs(x, given))
    for given in (None, start(name, parts)):
        close(ours(x[0], given), theirs(x[0], given))
    packed = pack_padded_sequence(x, torch.tensor([3, 6, 1] if batch_first else [2, 3, 1, 1, 3, 2]), batch_first, False)
    for given in (None, start(name, parts, batch)):
        (out, states), (expected, expected_states) = ours(packed, given), theirs(packed, given)
        assert isinstance(out, PackedSequence)
        close(out.data, expected.data)
        close(states, expected_states)
        assert out.batch_sizes is packed.batch_sizes and out.unsorted_indices is packed.unsorted_indices


def test_parameters_are_shared_and_gradients_the_same() -> None:
    theirs = nn.LSTM(4, 5, 2, bidirectional=True).double().eval()
    theirs.weight_hh_l1.requires_grad_(False)
    ours = Recurrent.like(theirs)
    assert not ours.training and not ours.layers[0].training
    assert {id(p) for p in ours.parameters()} == {id(p) for p in theirs.parameters()}
    assert ours.get_parameter("layers.1.1.weight_ih_l0") is theirs.weight_ih_l1_reverse
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    gradients: list[Any] = []
    for module in (theirs, ours):
        module.zero_grad()
        module(x)[0].square().sum().backward()
        gradients.append({id(p): None if p.grad is None else p.grad.clone() for p in module.parameters()})
    close(gradients[0], gradients[1])


def test_dropout_lies_between_layers_and_in_training_only() -> None:
    theirs = nn.LSTM(4, 5, 2, dropout=1.0).double()
    ours = Recurrent.like(theirs)
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    close(ours(x)[0], theirs(x)[0])
    packed = pack_padded_sequence(x, torch.tensor([3, 2]))
    close(ours(packed)[0].data, theirs(packed)[0].data)
    close(ours.eval()(x), theirs.eval()(x))


def cut(model: Recurrent) -> None:
    """Take unit 1 out of the backward part of layer 0."""
    part: Any = model.layers[0][1]  # pyright: ignore
    kept = torch.tensor([0, 2, 3, 4])
    rows = (torch.arange(4)[:, None] * 5 + kept).flatten()
    with torch.no_grad():
        part.weight_hh_l0 = nn.Parameter(part.weight_hh_l0[rows][:, kept])
        for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
            setattr(part, name, nn.Parameter(getattr(part, name)[rows]))
        part.hidden_size = 4
        above = torch.tensor([*range(5), *(5 + kept)])
        for reader in model.layers[1]:  # pyright: ignore
            reader.weight_ih_l0 = nn.Parameter(reader.weight_ih_l0[:, above])
            reader.input_size = 9


@pytest.mark.parametrize("training", [True, False])
def test_a_zero_unit_of_one_part_can_be_cut(training: bool) -> None:
    lstm = nn.LSTM(4, 5, 2, bidirectional=True).double().train(training)
    with torch.no_grad():
        for name in ("weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse", "bias_hh_l0_reverse"):
            lstm.get_parameter(name)[1::5] = 0
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    ours = Recurrent.like(lstm)
    cut(ours)
    out, states = ours(x)
    close(out, lstm(x)[0])
    assert states is None
    with pytest.raises(
        ValueError, match=r"hx stacks the states of all parts, which have \[5, 4, 5, 5\] units .* zeros"
    ):
        ours(x, lstm(x)[1])
    out.sum().backward()
    close(pickle.loads(pickle.dumps(ours))(x)[0], out)
    close(copy.deepcopy(ours)(x)[0], out)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_it_is_exported_and_wired_part_by_part() -> None:
    class Model(nn.Module):
        def __init__(self, rnn: nn.Module) -> None:
            super().__init__()
            self.rnn, self.last = rnn, nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.rnn(x)[0])

    model, x = Model(Recurrent.like(nn.LSTM(4, 5, 2, bidirectional=True))), torch.randn(3, 2, 4)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x))
    wiring = inspect(model, x)
    assert [coupling.width for coupling in wiring.removable] == [5, 5, 5, 5]
    names = {part.name for part in wiring.removable[0].consumers}
    assert names == {f"rnn.layers.{part}_l0" for part in ("0.0.weight_hh", "1.0.weight_ih", "1.1.weight_ih")}


# Dynamo breaks the graph at recurrent layers, and then looks at tensors in ways that warn.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_it_compiles() -> None:
    ours, x = Recurrent.like(nn.GRU(4, 5, 2, bidirectional=True)), torch.randn(3, 2, 4)
    compiled = torch.compile(ours, backend="eager")
    for a, b in zip(tree_leaves(compiled(x)), tree_leaves(ours(x)), strict=True):
        torch.testing.assert_close(a, b)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"nn.LSTM has proj_size=3, and a projection is not split; cut equally many"):
        Recurrent.like(nn.LSTM(4, 5, proj_size=3))
    wrong: Any = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r"must compute what nn.LSTM, nn.GRU or nn.RNN computes, got Linear; leave"):
        Recurrent.like(wrong)
    with pytest.raises(ValueError, match=r"a part must have one layer, .* got LSTM\(4, 5, num_layers=2\); split it"):
        Recurrent([[nn.LSTM(4, 5, 2)]])
    with pytest.raises(ValueError, match=r"one part, or two if it runs in both directions, got \[1, 2\] parts; pass"):
        Recurrent([[nn.GRU(4, 5)], [nn.GRU(5, 5), nn.GRU(5, 5)]])
    lstm = nn.LSTM(4, 5)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    with pytest.raises(ValueError, match="of the LSTM is parametrized, and would no longer be computed; remove"):
        Recurrent.like(lstm)
