"""Sign layers, whose gradient is zero, are trained nevertheless."""

from math import inf

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, Sign, SignHomotopy
from tests.altmin.tasks import blobs, labelled, linear


def sign_network(seed: int, widths: tuple[int, int, int], sign: Sign) -> nn.Sequential:
    torch.manual_seed(seed)
    inputs, hidden, outputs = widths
    return nn.Sequential(
        nn.Linear(inputs, hidden, dtype=torch.float64), sign, nn.Linear(hidden, outputs, dtype=torch.float64)
    )


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def test_slopes_grow_geometrically_and_end_in_signs() -> None:
    homotopy = SignHomotopy(sweeps=5, start=1.0, end=16.0)
    assert [homotopy.slope(done) for done in range(7)] == pytest.approx([1, 2, 4, 8, 16, inf, inf])
    with pytest.raises(ValueError, match=r"sweeps must be >= 1, got 0"):
        SignHomotopy(0)
    with pytest.raises(ValueError, match=r"0 < start <= end, got start 3.0 and end 2.0"):
        SignHomotopy(5, 3.0, 2.0)


def test_the_model_that_comes_back_has_signs_and_codes_followed_the_ramps() -> None:
    x, y = labelled()
    sign = Sign()
    trainer = AMTrainer(sign_network(0, (5, 8, 3), sign), homotopy=SignHomotopy(6), readout=False)
    trainer.start(x, y)
    layer = trainer._started()[0].problem.layers[0]
    for done in range(8):
        assert sign.activation.slope == pytest.approx(SignHomotopy(6).slope(done))
        assert layer.a is not None and layer.activation is not None
        assert torch.equal(layer.a.now, layer.activation.forward(layer.z.now))
        trainer.sweep()
        trainer.evaluate()
    assert len(trainer.report()["forward_loss"]) == 8
    model = trainer.finish()
    assert set(model[:2](x).unique().tolist()) <= {-1.0, 1.0}


def test_a_sign_layer_is_not_below_its_readout_alone() -> None:
    x, y = blobs(0)
    fresh = blobs(1)
    alone = AMTrainer(sign_network(0, (2, 12, 3), Sign())).fit(x, y, 0)
    trained = AMTrainer(sign_network(0, (2, 12, 3), Sign()), homotopy=SignHomotopy(20)).fit(x, y, 20)
    assert accuracy(trained, *fresh) >= accuracy(alone, *fresh) - 0.02


@pytest.mark.slow
def test_it_beats_random_features_though_its_gradient_is_zero() -> None:
    gains: list[float] = []
    for seed in range(5):
        x, y = labelled(seed, 2300, 12, 4)
        train, test = (x[:800], y[:800]), (x[800:], y[800:])
        model = sign_network(seed, (12, 64, 4), Sign())
        nn.functional.cross_entropy(model(train[0]), train[1]).backward()
        gradient = linear(model, 0).weight.grad
        assert gradient is not None and not gradient.any()
        before = linear(model, 0).weight.detach().clone()
        AMTrainer(model, homotopy=SignHomotopy(60)).fit(*train, 60)
        assert not torch.equal(before, linear(model, 0).weight)
        random = AMTrainer(sign_network(seed, (12, 64, 4), Sign())).fit(*train, 0)
        assert torch.equal(linear(random, 0).weight, before)
        gains.append(accuracy(model, *test) - accuracy(random, *test))
    assert sum(gains) / 5 > 0.02, gains
