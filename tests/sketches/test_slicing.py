"""A sliced network gives the loss and the gradients of the masked one, or is refused."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from openwork import models
from openwork.sketches import Key, PermK, RandK, SketchedModule
from openwork.sketches.families import ScaleSide
from openwork.sketches.sketch import DiagonalSketch
from tests.wiring.zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers")


def heads() -> tuple[nn.Module, Tensor]:
    return nn.TransformerEncoderLayer(16, 4, 12, dropout=0.0, batch_first=True), torch.randn(3, 5, 16)


def stack() -> tuple[nn.Module, Tensor]:
    return models.mlp((6, 8, 10, 12, 3)), torch.randn(5, 6)


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": stack,
    "residual": ZOO["residual"],
    "dense": ZOO["dense"],
    "mobile": ZOO["mobile"],
    "unet": ZOO["unet"],
    "attention": heads,
    "our_gpt": ZOO["our_gpt"],
    "gpt2": ZOO["gpt2"],
    "llama": ZOO["llama"],
    "recurrent": ZOO["recurrent"],
}


def built(name: str, seed: int = 0) -> tuple[nn.Module, Any]:
    torch.manual_seed(seed)
    model, inputs = MODELS[name]()
    inputs = inputs.double() if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs
    model = model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, inputs


def loss_of(module: nn.Module, inputs: Any) -> Tensor:
    result = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    leaves = [x for x in tree_leaves(getattr(result, "logits", result)) if isinstance(x, Tensor)]
    return torch.stack([x.sin().sum() for x in leaves]).sum()


def pair(model: nn.Module, inputs: Any, law: DiagonalSketch, **options: Any) -> tuple[SketchedModule, SketchedModule]:
    """The same model twice: masked and sliced."""
    options = {"shift": "zero", "granularity": "units", "example_inputs": inputs, **options}
    return SketchedModule(deepcopy(model), law, **options), SketchedModule(model, law, mode="slice", **options)


def assert_same(masked: SketchedModule, sliced: SketchedModule, inputs: Any, tolerance: float = 1e-12) -> None:
    for step in range(3):
        found: list[Tensor] = []
        for one in (masked, sliced):
            one.zero_grad()
            with one.draw(Key(1, step)):
                loss = loss_of(one, inputs)
            loss.backward()
            found.append(loss.detach())
        torch.testing.assert_close(found[1], found[0], rtol=tolerance, atol=tolerance)
        for (name, a), b in zip(masked.module.named_parameters(), sliced.module.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            if a.grad is not None and b.grad is not None:
                scale = max(1.0, float(a.grad.abs().max()))
                assert float((a.grad - b.grad).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("name", MODELS)
def test_slice_equals_mask(name: str) -> None:
    model, inputs = built(name)
    # Norms of this one are computed in float32 whatever its weights are in.
    assert_same(*pair(model, inputs, RandK(0.5)), inputs, 1e-6 if name == "llama" else 1e-12)


def test_slice_equals_mask_where_workers_share_the_units() -> None:
    model, inputs = built("mlp")
    masked, sliced = pair(model, inputs, PermK(2))
    for worker in range(2):
        losses = []
        for one in (masked, sliced):
            with one.draw(Key(0, worker=worker)):
                losses.append(float(loss_of(one, inputs).detach()))
        assert losses[1] == pytest.approx(losses[0], abs=1e-12)


@pytest.mark.parametrize("side", ["outgoing", "all"])
def test_slice_equals_mask_on_both_sides(side: ScaleSide) -> None:
    model, inputs = built("mlp")
    assert_same(*pair(model, inputs, RandK(0.5), side=side), inputs)
