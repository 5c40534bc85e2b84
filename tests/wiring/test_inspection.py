"""The truth of a coupling is functional: where producers are zero, consumers do not matter."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from openwork.wiring import Coupling, Wiring, inspect
from tests.wiring.zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says about its own tiny configurations


def to_double(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.double() if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {name: to_double(value) for name, value in inputs.items()}
    return type(inputs)(map(to_double, inputs)) if isinstance(inputs, (list, tuple)) else inputs


@cache
def build(name: str) -> tuple[nn.Module, Any, Wiring]:
    """A model of the zoo in float64 with random weights and statistics everywhere, inputs, and its wiring."""
    torch.manual_seed(0)
    model, inputs = ZOO[name]()
    wiring = inspect(model, inputs)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.get_buffer("running_mean").normal_()
                module.get_buffer("running_var").uniform_(0.5, 2)
    return model, to_double(inputs), wiring


def outputs(model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        out = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    leaves = [leaf for leaf in tree_leaves(getattr(out, "logits", out)) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.flatten() for leaf in leaves])


@contextmanager
def restored(model: nn.Module) -> Generator[None]:
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield
    model.load_state_dict(saved)


def check_unit(model: nn.Module, inputs: Any, coupling: Coupling, unit: int) -> None:
    """Zero what produces a unit; then put anything into what consumes it."""
    one = torch.zeros(coupling.width, dtype=torch.float64)
    one[unit] = 1
    produced, consumed = coupling.spread(one, "producers"), coupling.spread(one, "consumers")
    with restored(model), torch.no_grad():
        for name, mask in produced.items():
            model.get_parameter(name)[mask.bool()] = 0
        before = outputs(model, inputs)
        for name, mask in consumed.items():
            free = mask.bool() & ~produced.get(name, torch.zeros_like(mask)).bool()
            model.get_parameter(name)[free] = 10 * torch.randn(int(free.sum()), dtype=torch.float64)
        after = outputs(model, inputs)
    torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ZOO)
def test_consumers_of_a_zero_channel_do_not_matter(name: str) -> None:
    model, inputs, wiring = build(name)
    assert wiring.removable
    for coupling in wiring.removable:
        for unit in range(coupling.width):
            check_unit(model, inputs, coupling, unit)


@pytest.mark.parametrize("name", ZOO)
def test_consumers_of_a_living_channel_matter(name: str) -> None:
    """The other test is not true for want of effect."""
    model, inputs, wiring = build(name)
    before = outputs(model, inputs)
    for coupling in wiring.removable:
        if coupling.consumers:
            with restored(model), torch.no_grad():
                for consumer, mask in coupling.spread(torch.ones(coupling.width), "consumers").items():
                    model.get_parameter(consumer).add_(mask * torch.randn(mask.shape, dtype=torch.float64))
                assert not torch.allclose(outputs(model, inputs), before)


@pytest.mark.parametrize("name", ZOO)
def test_every_unit_is_cut_the_same_way(name: str) -> None:
    """Each unit has as many indices along an axis as the others, so that what is left is still a grid."""
    _, _, wiring = build(name)
    for coupling in wiring.removable:
        for part in coupling.slices():
            assert {part.indices(unit).numel() for unit in range(coupling.width)} == {part.multiplicity}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("side", ["producers", "consumers"])
def test_sum_and_spread_are_adjoint(name: str, side: Any) -> None:
    model, _, wiring = build(name)
    tensors = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    for coupling in wiring.couplings:
        if coupling.side(side):
            g = torch.randn(coupling.width, dtype=torch.float64)
            spread = coupling.spread(g, side)
            inner = sum((spread[name] * tensors[name]).sum() for name in spread)
            torch.testing.assert_close(coupling.sum(tensors, side) @ g, inner)


# Width of each coupling that can lose units, in order, and a consumer or producer with its multiplicity.
EXPECTED: dict[str, tuple[list[int], dict[str, int]]] = {
    "mlp": ([8, 6], {"2.weight": 1}),
    "lenet": ([6, 8, 12], {"fc1.weight": 25}),
    "vgg": ([6, 8, 7], {"9.weight": 4}),
    "residual": ([6, 5, 4, 7, 9], {"head.weight": 1}),
    "dense": ([4, 5, 6], {}),
    "mobile": ([8, 4], {"depthwise.weight": 1}),
    "shuffle": ([6, 7], {"stem.weight": 2, "head.weight": 2}),
    "unet": ([6, 7, 5], {"up.weight": 1}),
    "grouped": ([4, 4, 6, 3], {"conv1.weight": 3, "conv3.weight": 2, "conv4.weight": 2}),
    "gated_rms": ([6, 8], {"fused.weight": 2}),
    "nested": ([5], {}),
    "recurrent": ([6, 5, 5, 5, 5, 6], {"lstm.weight_hh_l0": 4, "gru.weight_hh_l0": 3}),
    "encoders": ([2, 16, 2, 16], {"layers.0.self_attn.out_proj.weight": 4}),
    "encoder": ([2, 16], {"self_attn.in_proj_weight": 12, "self_attn.out_proj.weight": 4}),
    "our_gpt": ([2, 32, 2, 32], {"blocks.0.attention.key.weight": 4}),
    "gpt2": ([4, 10, 4, 10], {"transformer.h.0.attn.c_attn.weight": 12}),
    "llama": ([16, 2, 12, 2, 12], {"model.layers.0.self_attn.q_proj.weight": 8}),
    "bert": ([4, 12, 4, 12, 16], {}),
    "vit": ([4, 12, 4, 12], {}),
    "qwen3_moe": ([16, 2, 6, 2, 6], {"model.layers.0.mlp.experts.gate_up_proj": 2}),
    "swin": ([2, 16, 4, 32, 4, 32], {}),
}


@pytest.mark.parametrize("name", ZOO)
def test_widths_and_multiplicities(name: str) -> None:
    _, _, wiring = build(name)
    widths, multiplicities = EXPECTED[name]
    assert [coupling.width for coupling in wiring.removable] == widths
    found = {part.name: 0 for c in wiring.removable for part in c.slices()}
    for coupling in wiring.removable:
        for part in coupling.slices():
            found[part.name] = max(found[part.name], part.multiplicity)
    assert found.items() >= multiplicities.items()
