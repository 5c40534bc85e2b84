"""SNIP against its definition, and where it cuts a layer off."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from openwork.baselines import SNIP, Pruning
from tests.baselines.loop import batch, best, convolutional, images, kept, network, places, sgd, started


def sensitivities(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The derivative of the loss by the masks themselves, all ones, as the paper defines it."""
    names = [name for name, p in model.named_parameters() if p.ndim > 1]
    masks = {name: torch.ones_like(model.get_parameter(name), requires_grad=True) for name in names}
    state = {name: p.detach() * masks.get(name, torch.ones(())) for name, p in model.named_parameters()}
    model.eval()
    loss = cross_entropy(functional_call(model, state, (inputs,)), targets)
    grads = [g.abs() for g in torch.autograd.grad(loss, list(masks.values()))]
    total = sum(float(g.sum()) for g in grads)
    return {name: g / total for name, g in zip(names, grads, strict=True)}


@pytest.mark.parametrize("density", [0.1, 0.2, 0.5])
def test_the_largest_sensitivities_stay(density: float) -> None:
    scores = sensitivities(network(), *batch(0))
    assert kept(started(SNIP(density), 3)) == best(scores, max(1, round(72 * density)))


def test_the_model_is_left_as_it_was() -> None:
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruning, state = Pruning(SNIP(0.2), model, sgd(model), steps=2), torch.get_rng_state()
    pruning.begin(cross_entropy, *images())
    assert torch.equal(torch.get_rng_state(), state)
    scores = sensitivities(convolutional(), *images())
    assert kept(pruning) == best(scores, 108)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] * pruning.masks.kept.get(name, torch.ones((), dtype=torch.bool))), name
    assert all(p.grad is None for p in model.parameters())


def test_zero_weights_are_refused() -> None:
    model = nn.Linear(6, 3).double()
    nn.init.zeros_(model.weight)
    pruning = Pruning(SNIP(0.5), model, sgd(model), steps=2)
    with pytest.raises(ValueError, match="SNIP: the loss feels no weight at initialization"):
        pruning.begin(cross_entropy, *batch(0))


def test_a_layer_that_is_cut_off_is_said() -> None:
    """With very few weights left all are in one layer, and the network is constant."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, 3)).double()
    pruning = Pruning(SNIP(0.002), model, sgd(model), steps=2)
    assert pruning.masks.total == 2700
    with pytest.warns(UserWarning, match=r"SNIP: nothing is left of '2\.weight' at this density, so nothing goes"):
        pruning.begin(cross_entropy, *batch(0))
    assert places(pruning.masks.kept)["2.weight"] == []
    assert pruning.masks.alive == 5
