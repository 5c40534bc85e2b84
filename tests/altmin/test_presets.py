"""Published methods as settings, where they have steps of their own."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from openwork.altmin import AMTrainer, Band, FixedRho, Inertia, Squared, bcd, dladmm, mdlam, tiam
from tests.altmin.tasks import blobs, blocks_of, labelled, network, targets


def test_the_multiplier_of_dladmm_is_that_of_the_augmented_lagrangian() -> None:
    x, y = targets()
    trainer = dladmm(network(), loss=Squared(), rho=0.4)
    trainer.start(x, y)
    output = trainer._started()[0].problem.layers[-1]
    u = torch.zeros_like(y)
    for _ in range(5):
        trainer.sweep()
        # u <- u + rho (z - W a - b), and ours is u / rho.
        u = u - 0.4 * output.residual
        assert output.dual is not None
        torch.testing.assert_close(output.dual * 0.4, u)
    blocks = blocks_of(trainer)
    a, target = blocks.problem.input_of(2), output.z.now
    residual = output.residual
    value = float(blocks.objective())
    by_hand = 0.5 * (target - y).square().sum() - (u * residual).sum()
    for layer in blocks.problem.layers:
        by_hand = by_hand + 0.2 * layer.residual.square().sum()
    for layer in blocks.problem.layers[:-1]:
        by_hand = by_hand + blocks.coupling.value(layer)
    assert value == pytest.approx(float(by_hand), rel=1e-12)
    # The block z minimizes the Lagrangian: its gradient there is zero.
    blocks.move(blocks.visits[-1], Inertia())
    c = a @ output.weight.now.T + (output.bias.now if output.bias is not None else 0)
    gradient = (output.z.now - y) + u + 0.4 * (output.z.now - c)
    assert gradient.abs().max() < 1e-12


def test_a_sweep_of_bcd_is_that_of_its_paper() -> None:
    x, y = targets()
    trainer = bcd(network(widths=(5, 6, 3)), loss=Squared(), rho=0.8, gamma=0.6, alpha=1.5)
    trainer.start(x, y)
    first, last = trainer._started()[0].problem.layers
    assert first.bias is not None and last.bias is not None and first.a is not None
    W1, b1, W2, b2 = first.weight.now, first.bias.now, last.weight.now, last.bias.now
    u, v = first.z.now, first.a.now
    trainer.sweep()
    eye = torch.eye(6, dtype=torch.float64)
    out = (y + 0.8 * (v @ W2.T + b2)) / 1.8
    W2 = (0.8 * (out - b2).T @ v + 1.5 * W2) @ torch.linalg.inv(0.8 * v.T @ v + 1.5 * eye)
    b2 = (out - v @ W2.T).mean(0)
    v = (0.8 * (out - b2) @ W2 + 0.6 * u.clamp(min=0)) @ torch.linalg.inv(0.8 * W2.T @ W2 + 0.6 * eye)
    c = x @ W1.T + b1
    candidates = torch.stack(
        [((0.8 * c + 1.5 * u + 0.6 * v) / (0.8 + 1.5 + 0.6)).clamp(min=0), ((0.8 * c + 1.5 * u) / 2.3).clamp(max=0)]
    )
    costs = 0.4 * (candidates - c) ** 2 + 0.75 * (candidates - u) ** 2 + 0.3 * (candidates.clamp(min=0) - v) ** 2
    u = candidates.gather(0, costs.argmin(0, keepdim=True))[0]
    eye = torch.eye(5, dtype=torch.float64)
    W1 = (0.8 * (u - b1).T @ x + 1.5 * W1) @ torch.linalg.inv(0.8 * x.T @ x + 1.5 * eye)
    b1 = (u - x @ W1.T).mean(0)
    for ours, paper in ((last.z.now, out), (last.weight.now, W2), (last.bias.now, b2), (first.a.now, v)):
        torch.testing.assert_close(ours, paper, rtol=1e-9, atol=1e-10)
    for ours, paper in ((first.z.now, u), (first.weight.now, W1), (first.bias.now, b1)):
        torch.testing.assert_close(ours, paper, rtol=1e-9, atol=1e-10)


def test_mdlam_repeats_blocks_and_never_rises_at_a_fixed_band() -> None:
    trainer = mdlam(network(), band=Band(0.5, 1.0))
    trainer.start(*labelled())
    objectives = [trainer.sweep().objective for _ in range(25)]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(objectives))


@pytest.mark.parametrize("preset", [tiam, mdlam, dladmm, bcd])
def test_presets_train(preset: Callable[..., AMTrainer]) -> None:
    x, y = blobs()
    options = {"rho": FixedRho(0.1)} if preset is dladmm else {}
    model = network(widths=(2, 8, 3))
    trainer = preset(model, **options)
    before = trainer.loss.value(model(x), y)
    trainer.fit(x, y, 60)
    assert trainer.loss.value(model(x), y) < 0.8 * before
