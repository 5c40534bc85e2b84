"""Half of the units of every coupling go from every model of the zoo, and its outputs stay."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from openwork.shrinking import shrink
from openwork.wiring import inspect
from tests.shrinking.zeros import zero_units
from tests.wiring.test_inspection import build, outputs
from tests.wiring.zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says about its own tiny configurations

# A channel without a consumer of its own, such as that of a normalization's mean, cannot be freed on that side.
ONLY_PRODUCERS = {"llama": {16}, "qwen3_moe": {16}, "gated_rms": {6}}
# These compute their norms in float32 whatever their weights are in.
SINGLE = {"llama", "qwen3_moe"}


@pytest.mark.parametrize("side", ["consumers", "producers"])
@pytest.mark.parametrize("name", ZOO)
def test_half_of_all_units_go(name: str, side: Any) -> None:
    original, inputs, wiring = build(name)
    model = deepcopy(original)
    zero_units(model, wiring, side)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = outputs(model, inputs)

    shrunk = shrink(model, inputs)

    for width in shrunk.report.widths:
        stays = side == "consumers" and width.before in ONLY_PRODUCERS.get(name, ())
        assert width.after == (width.before if stays else width.before - width.before // 2), width
    tolerance = 1e-5 if name in SINGLE and side == "producers" else 1e-10
    assert relative(outputs(shrunk.model, inputs), before) <= tolerance
    assert shrunk.report.certificate.difference <= tolerance
    assert {1, 3, 5} <= set(shrunk.report.certificate.batches)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert type(shrunk.model) is type(model)
    assert sum(p.numel() for p in shrunk.model.parameters()) == shrunk.report.params[1] < shrunk.report.params[0]


@pytest.mark.parametrize("name", ZOO)
def test_what_is_left_trains(name: str) -> None:
    """One step on both, from the same outputs: losses fall alike, and no parameter is left behind."""
    original, inputs, wiring = build(name)
    model = deepcopy(original)
    zero_units(model, wiring, "consumers")
    small = shrink(model, inputs).model
    optimizer = torch.optim.SGD(small.parameters(), lr=1e-3)
    result: Any = small(**inputs) if isinstance(inputs, dict) else small(inputs)
    leaves = [x for x in tree_leaves(getattr(result, "logits", result)) if isinstance(x, Tensor)]
    torch.stack([leaf.square().sum() for leaf in leaves]).sum().backward()
    assert all(p.grad is not None for p in small.parameters() if p.requires_grad)
    before = outputs(small, inputs)
    optimizer.step()
    assert not torch.equal(outputs(small, inputs), before)


@pytest.mark.parametrize("name", ["mlp", "residual", "encoder", "our_gpt", "vit"])
def test_in_single_precision(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = ZOO[name]()
    model.eval()
    zero_units(model, inspect(model, inputs), "consumers")
    report = shrink(model, inputs).report
    assert report.certificate.dtype == "float32"
    assert report.certificate.difference <= 1e-5
    assert report.params[1] < report.params[0]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def test_nothing_goes_twice() -> None:
    """What is left has nothing to take out."""
    original, inputs, wiring = build("residual")
    model = deepcopy(original)
    zero_units(model, wiring, "consumers")
    small = shrink(model, inputs, low_rank=False).model
    with pytest.raises(ValueError, match="nothing is exactly zero"):
        shrink(small, inputs, low_rank=False)
    assert isinstance(small, nn.Module)
