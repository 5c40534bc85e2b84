"""Recurrent layers: what their units are, what blocks them, and which of them stay exactly zero."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.wiring import Wiring, inspect, trace
from openwork.wiring.propagation import propagate
from openwork.wiring.recurrence import recurrent_known
from tests.wiring.test_inspection import check_unit

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")

LAYERS: dict[str, Callable[..., Any]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Model(nn.Module):
    """Linear, recurrent, attention over time, linear."""

    def __init__(self, layer: Callable[..., Any], read: Callable[[Tensor, Any], Tensor], **options: Any) -> None:
        super().__init__()
        options = {"num_layers": 2, "bidirectional": True, "batch_first": True, **options}
        self.first, self.rnn = nn.Linear(4, 6), layer(6, 5, **options)
        self.read = read
        self.last = nn.Linear(read(*self.rnn(torch.randn(2, 3, 6))).shape[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.read(*self.rnn(self.first(x).tanh())))


def attend(out: Tensor, _: object) -> Tensor:
    weights = (out @ out.transpose(1, 2)).softmax(dim=-1)
    return (weights @ out).mean(dim=1)


def state(h: Any) -> Tensor:
    return h[0] if isinstance(h, tuple) else h


READS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "attention": attend,
    "last step": lambda out, _: out[:, -1],
    "last layer": lambda _, h: state(h)[-1],
    "both directions": lambda _, h: torch.cat([state(h)[-2], state(h)[-1]], dim=-1),
    "all": lambda _, h: state(h).transpose(0, 1).flatten(1),
    "output and state": lambda out, h: torch.cat([out[:, 0], state(h)[1]], dim=-1),
}


def check(model: nn.Module, wiring: Wiring, x: Tensor) -> None:
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    assert wiring.removable
    for coupling in wiring.removable:
        for unit in range(coupling.width):
            check_unit(model, x.double(), coupling, unit)


@pytest.mark.parametrize(("read", "bias"), [*((read, True) for read in READS), ("attention", False)])
@pytest.mark.parametrize("name", LAYERS)
def test_zero_units_do_not_matter(name: str, read: str, bias: bool) -> None:
    model = Model(LAYERS[name], READS[read], bias=bias)
    x = torch.randn(2, 3, 4)
    wiring = inspect(model, x)
    # What is read of the last layer's final states alone still leaves its units free.
    assert [coupling.width for coupling in wiring.removable] == [6, 5, 5, 5, 5]
    check(model, wiring, x)


@pytest.mark.parametrize("name", LAYERS)
def test_units_are_rows_of_all_gates_and_columns(name: str) -> None:
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    _, first, _, _, last_back = inspect(Model(LAYERS[name], attend), torch.randn(2, 3, 4)).removable
    rows = [(f"rnn.{part}_l0", 0, gates) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert [(part.name, part.dim, part.multiplicity) for part in first.producers] == rows
    columns = ["rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_ih_l1_reverse"]
    assert sorted(part.name for part in first.consumers) == columns
    assert {part.dim for part in first.consumers} == {1}
    above = {part.name: part.units.tolist() for part in first.consumers}["rnn.weight_ih_l1"]
    assert above == [0, 1, 2, 3, 4, -1, -1, -1, -1, -1]
    (head,) = (part for part in last_back.consumers if part.name == "last.weight")
    assert head.units.tolist() == [-1, -1, -1, -1, -1, 0, 1, 2, 3, 4]


def test_units_of_a_projection() -> None:
    model = Model(nn.LSTM, attend, proj_size=3)
    x = torch.randn(2, 3, 4)
    wiring = inspect(model, x)
    assert [coupling.width for coupling in wiring.removable] == [6, 5, 3, 5, 3, 5, 3, 5, 3]
    check(model, wiring, x)
    atoms = propagate(trace(model, x))
    assert [[len(ids) for ids in group] for group in atoms.balanced] == [[3] * 4, [5] * 4]


@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_directions_stay_equally_many(name: str) -> None:
    atoms = propagate(trace(Model(LAYERS[name], attend), torch.randn(2, 3, 4)))
    assert [[len(ids) for ids in group] for group in atoms.balanced] == [[5] * 4]
    single = propagate(trace(Model(LAYERS[name], attend, num_layers=1, bidirectional=False), torch.randn(2, 3, 4)))
    assert single.balanced == []


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch_first", [True, False])
def test_one_layer_without_a_batch(name: str, batch_first: bool) -> None:
    model = Model(LAYERS[name], lambda _, h: state(h)[0], num_layers=1, bidirectional=False, batch_first=batch_first)
    for x in (torch.randn(3, 4), torch.randn(2, 3, 4)):
        wiring = inspect(model.float(), x)
        assert [coupling.width for coupling in wiring.removable] == [6, 5]
        check(model, wiring, x)


class Started(nn.Module):
    """The initial state comes from somewhere."""

    def __init__(self, start: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.gru, self.last = nn.Linear(4, 6), nn.GRU(6, 5), nn.Linear(5, 3)
        self.learned = nn.Parameter(torch.zeros(1, 1, 5))
        self.start = start

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.last(self.gru(self.first(x), self.start(self.learned, h))[0])


class Written(nn.Module):
    def forward(self, learned: Tensor, h: Tensor) -> Tensor:
        return torch.zeros(1, 2, 5, dtype=h.dtype)


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (lambda _, h: h, "it starts from an input of the model, which need not be zero in gru"),
        (lambda learned, _: learned.expand(1, 2, 5), "it starts from learned, which need not be zero in gru"),
        (
            Written(),
            "the length 5 is written in the code, where no attribute can change it in start (test_recurrent.py",
        ),
        (lambda _, h: torch.tanh(torch.zeros(1, 1, 1)).expand(1, 2, 5), "it starts from what expand gives"),
    ],
)
def test_units_that_do_not_start_at_zero_are_blocked(start: Callable[[Tensor, Tensor], Tensor], why: str) -> None:
    wiring = inspect(Started(start), (torch.randn(3, 2, 4), torch.randn(1, 2, 5)))
    assert [coupling.width for coupling in wiring.removable] == [6]
    (units,) = (c for c in wiring.blocked if any(part.name == "gru.weight_hh_l0" for part in c.slices()))
    assert any(reason.startswith(why) for reason in units.reasons), units.reasons


class FromAttribute(nn.Module):
    width = 5

    def forward(self, learned: Tensor, h: Tensor) -> Tensor:
        return torch.zeros(1, 2, self.width, dtype=h.dtype)


def test_zeros_of_a_length_that_an_attribute_feeds_are_fine() -> None:
    model = Started(FromAttribute())
    x, h = torch.randn(3, 2, 4), torch.randn(1, 2, 5)
    assert [coupling.width for coupling in inspect(model, (x, h)).removable] == [6, 5]


@pytest.mark.parametrize(
    ("before", "widths", "why"),
    [
        (torch.sigmoid, [6, 5], "sums over entries that are not zero: sigmoid of 0 is not 0"),
        (lambda x: x.transpose(0, 1), [5], "a recurrence runs over it"),
    ],
)
def test_what_comes_in_where_it_is_not_zero(before: Callable[[Tensor], Tensor], widths: list[int], why: str) -> None:
    class Before(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 3)
            self.lstm = nn.LSTM(before(torch.randn(3, 6)).shape[-1], 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.lstm(before(self.first(x)))[0])

    wiring = inspect(Before(), torch.randn(3, 4))
    assert [coupling.width for coupling in wiring.removable] == widths
    said = [*(r for c in wiring.blocked for r in c.reasons), *(r.text for c in wiring.removable for r in c.remarks)]
    assert any(why in words for words in said)


def test_final_states_that_go_out_block_all_units() -> None:
    wiring = inspect(nn.GRU(4, 5, 2), torch.randn(3, 2, 4))
    assert wiring.removable == ()
    units = [c for c in wiring.blocked if any(part.name.startswith("weight_hh") for part in c.slices())]
    assert all("it is an output of the model" in coupling.reasons for coupling in units)


def test_a_layer_of_one_unit_keeps_it() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LSTM(6, 1))
    wiring = inspect(model, torch.randn(3, 2, 4))
    assert [coupling.width for coupling in wiring.removable] == [6]
    assert any("it is the only unit of a recurrent layer in 1" in why for c in wiring.blocked for why in c.reasons)


def run(layer: nn.RNNBase, x: Tensor, hx: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    out, states = layer(x, hx[0] if len(hx) == 1 else hx)
    return (out, *(states if isinstance(states, tuple) else (states,)))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"proj_size": 3}, {"batch_first": True}])
@pytest.mark.parametrize("name", LAYERS)
def test_zeros_that_are_known_are_there_whatever_is_not_known(name: str, options: dict[str, Any]) -> None:
    """Units 0 and 1 are silent where all is known; then unit 1 reads unit 2, or the like, and only unit 0 is."""
    if "proj_size" in options and name != "lstm":
        return
    layer = LAYERS[name](4, 5, num_layers=2, bidirectional=True, **options).double()
    gates = layer.weight_hh_l0.shape[0] // 5
    new = {"lstm": 2, "gru": 2, "rnn": 0}[name]
    for key, parameter in layer.named_parameters():
        parameter.requires_grad_(False)
        if "weight_hr" in key:
            parameter[:2, 2:] = 0  # the first two features read silent cells only
            continue
        rows = parameter.view(gates, 5, *parameter.shape[1:])[new, :2]
        if "bias" in key or "ih_l1" in key:
            rows.zero_()
        elif "ih_l0" in key:
            rows[:, 1:] = 0  # input 0 is zero
        else:
            rows[:, 2:] = 0
    x = torch.randn(3, 2, 4).double()
    x[..., 0] = 0
    units = [options.get("proj_size", 5), 5] if name == "lstm" else [5]
    hx = tuple(torch.zeros(4, 2, size, dtype=torch.float64) for size in units)
    if options.get("batch_first"):
        hx = tuple(torch.zeros(4, 3, size, dtype=torch.float64) for size in units)
    arguments: Any = (layer.bias, 2, 0.0, False, True, layer.batch_first)
    operation = "rnn_tanh" if name == "rnn" else name

    def known(layer: nn.RNNBase) -> tuple[Tensor, ...]:
        return recurrent_known(operation, x, hx, [p for w in layer.all_weights for p in w], *arguments)

    results = known(layer)
    assert [result.shape for result in results] == [out.shape for out in run(layer, x, hx)]
    for result, out in zip(results, run(layer, x, hx), strict=True):
        assert torch.equal(result == 0, out == 0)
        assert (result == 0).any() and result.isnan().any()
    # A bias, or a weight between units, that is not known leaves nothing known of unit 1, nor of unit 0 if it reads it.
    layer.weight_hh_l1.view(gates, 5, -1)[new, 0] = 0
    layer.weight_hh_l1.view(gates, 5, -1)[new, 1, -1] = torch.nan
    alone = known(layer)[-1][2, 0]
    assert (alone == 0).tolist() == [True, False, False, False, False]


def test_a_state_that_is_not_known_leaves_nothing_known() -> None:
    layer = nn.GRU(4, 5)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    hx = torch.zeros(1, 2, 5)
    hx[..., 3] = torch.nan
    out, last = recurrent_known("gru", torch.randn(3, 2, 4), [hx], layer.all_weights[0], True, 1, 0.0, False, False)
    assert (out == 0).all(dim=(0, 1)).tolist() == [True, True, True, False, True]
    assert torch.equal(last[0], out[-1]) or torch.equal(last[0].isnan(), out[-1].isnan())
