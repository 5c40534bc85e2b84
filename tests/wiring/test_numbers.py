"""What is said to be known is so, for inputs that nobody has seen."""

from copy import deepcopy
from operator import getitem
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map

from openwork.wiring import Numbers, Traced, trace
from tests.shrinking.zeros import zero_units
from tests.wiring.test_inspection import build
from tests.wiring.zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says about its own tiny configurations


def run(traced: Traced, tensors: dict[str, Tensor], inputs: list[Tensor]) -> dict[fx.Node, Any]:
    """Every tensor of the graph, computed in order on real inputs."""
    values: dict[fx.Node, Any] = {}
    given = iter(inputs)

    def look_up(arg: Any) -> Any:
        return map_arg(arg, lambda node: values[node])

    for node in traced.graph.nodes:
        if node.op == "placeholder":
            name = traced.parameters.get(node.name) or traced.buffers.get(node.name)
            constant = traced.constants.get(node.name)
            values[node] = tensors[name] if name else (next(given) if constant is None else constant)
        elif node.op == "call_function":
            values[node] = node.target(*look_up(node.args), **look_up(node.kwargs))
    return values


def tensors_of(inputs: Any) -> list[Tensor]:
    return [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]


def fresh(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return torch.randn_like(x) if x.is_floating_point() else x.roll(1, dims=-1)


@pytest.mark.parametrize("side", ["consumers", "producers"])
@pytest.mark.parametrize("name", [name for name in ZOO if name != "nested"])
def test_known_entries_are_those_of_any_inputs(name: str, side: Any) -> None:
    original, inputs, wiring = build(name)
    model = deepcopy(original)
    zero_units(model, wiring, side)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        traced = trace(model, inputs)
        numbers = Numbers(traced, tensors)
        known = 0
        for given in (inputs, tree_map(fresh, inputs)):
            values = run(traced, {k: v.detach().clone() for k, v in tensors.items()}, tensors_of(given))
            for node, value in values.items():
                several = isinstance(value, (list, tuple))
                claims = numbers[node] if several and numbers[node] else [numbers[node]]
                for actual, claimed in zip(value if several else [value], claims, strict=False):
                    if not isinstance(claimed, Tensor) or not claimed.is_floating_point():
                        continue
                    sure = ~claimed.isnan().expand(actual.shape)
                    claimed = claimed.expand(actual.shape)
                    zero = sure & (claimed == 0)
                    assert bool((actual[zero] == 0).all()), (node, node.target)
                    torch.testing.assert_close(actual[sure], claimed[sure], rtol=1e-9, atol=1e-9)
                    known += int(sure.sum()) if node.op == "call_function" and node.target is not getitem else 0
    assert known > 0 or side == "consumers"


class InPlace(nn.Module):
    """Writes into a tensor, into a view of one, and reads both before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        z = y.relu_()
        z[:, :2].add_(1.0)
        part = self.second(z)
        part.mul_(2.0)
        return part + y


def test_what_is_written_into_is_not_taken_for_known() -> None:
    torch.manual_seed(0)
    model = InPlace().double()
    model.first.weight.data.zero_()
    x = torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        traced = trace(model, x)
        tensors = {name: p.detach() for name, p in model.named_parameters()}
        numbers = Numbers(traced, tensors)
        values = run(traced, tensors, [x])
    for node, value in values.items():
        claimed = numbers[node]
        if isinstance(claimed, Tensor):
            sure = ~claimed.isnan()
            torch.testing.assert_close(value[sure], claimed.expand(value.shape)[sure])
