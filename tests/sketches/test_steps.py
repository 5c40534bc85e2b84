import math

import pytest
import torch

from openwork.sketches import (
    Group,
    Identity,
    Key,
    PermK,
    RandK,
    expected_smoothness,
    lsvrg_lr,
    nonconvex_lr,
    page_lr,
    rescaled_lr,
    theory_lr,
)

D, L = 20, 3.0
HALF = RandK(10)  # L_S^max = 4, L_D = 2


def test_one_worker() -> None:
    assert theory_lr(L, Identity(), D) == pytest.approx(1 / L)
    assert theory_lr(L, HALF, D) == pytest.approx(1 / (4 * L))
    assert theory_lr(L, PermK(5), D) == pytest.approx(1 / (25 * L))


def test_several_workers() -> None:
    assert theory_lr(L, HALF, D, workers=5) == pytest.approx(1 / (L * (4 / 5 + 4 / 5 * 2)))
    assert theory_lr(L, PermK(5), D, workers=5) == pytest.approx(1 / (5 * L))
    assert theory_lr(L, PermK(3), D, workers=3) == pytest.approx(1 / (3 * L))
    assert theory_lr(L, Group(PermK(5), 2), D, workers=5) == pytest.approx(1 / (5 * L))
    assert theory_lr(L, PermK(2 * D), D, workers=2 * D) == pytest.approx(1 / (D * L))
    assert theory_lr(L, PermK(2, (0.2, 0.8)), D, workers=2) == pytest.approx(2 / (25 * L))
    with pytest.raises(ValueError, match="PermK is for 5 workers, got workers=4; take all, or 1"):
        theory_lr(L, PermK(5), D, workers=4)


@pytest.mark.parametrize(
    "law", [PermK(4), PermK(3), PermK(10), PermK(2, (0.3, 0.7))], ids=["even", "padded", "multiset", "shares"]
)
def test_all_workers_of_perm_k_obey_their_bound(law: PermK) -> None:
    """``E||g||^2`` is at most ``2 / step`` times the mean loss, for quadratics of their own with minimum 0."""
    d, n = 5, law.workers
    generator = torch.Generator().manual_seed(n)
    roots = torch.randn(n, d, d, generator=generator, dtype=torch.float64)
    a = roots @ roots.mT
    smoothness = float(torch.linalg.eigvalsh(a).max())
    x, v = torch.randn(2, d, generator=generator, dtype=torch.float64)
    seconds, losses = [], []
    for step in range(100):
        parts = []
        for worker in range(n):
            s = law.sample(Key(0, step=step, worker=worker), d)
            y = v + s.apply(x - v)
            parts.append(s.adjoint(a[worker] @ y))
            losses.append(float(0.5 * y @ a[worker] @ y))
        seconds.append(float(torch.stack(parts).mean(0).square().sum()))
    bound = 2 / theory_lr(smoothness, law, d, workers=n) * sum(losses) / len(losses)
    assert sum(seconds) / len(seconds) <= bound


def test_minibatches_of_sketches() -> None:
    assert expected_smoothness(L, HALF, D) == pytest.approx(4 * L)
    assert expected_smoothness(L, HALF, D, draws=4) == pytest.approx(L * (1 + 0.75 * 2))
    assert expected_smoothness(L, HALF, D, draws=10**9) == pytest.approx(2 * L)


def test_other_algorithms() -> None:
    assert nonconvex_lr(L, HALF, D, steps=50) == pytest.approx(1 / (L * math.sqrt(2 * 4 * 50)))
    assert lsvrg_lr(L, HALF, D) == pytest.approx(1 / (6 * 4 * L))
    assert lsvrg_lr(L, HALF, D, anchor="minibatch") == pytest.approx(1 / (10 * 4 * L))
    average = L * math.sqrt(8)
    assert page_lr(L, HALF, D, refresh=0.2, draws=2) == pytest.approx(1 / (2 * L + average * math.sqrt(2)))
    assert page_lr(L, HALF, D, refresh=1.0) == pytest.approx(1 / (2 * L))
    assert page_lr(L, HALF, D, refresh=0.2, draws=2, convexity=0.01) == pytest.approx(1 / (2 * L + average * 2))
    assert page_lr(L, HALF, D, refresh=0.2, draws=2, convexity=100.0) == pytest.approx(0.001)


def test_rates_of_dense_training() -> None:
    assert rescaled_lr(0.1, 0.5) == pytest.approx(0.025)
    assert rescaled_lr(0.1, 0.5, "adam") == pytest.approx(0.05)
    assert rescaled_lr(0.1, 0.5, scaled=False) == 0.1
    assert rescaled_lr(0.1, 0.5, "adam", scaled=False) == 0.1
    p = torch.tensor([0.5, 1.0])
    assert torch.allclose(torch.as_tensor(rescaled_lr(0.1, p)), torch.tensor([0.025, 0.1]))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="smoothness must be above 0, got 0"):
        theory_lr(0.0, HALF, D)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        expected_smoothness(L, HALF, D, draws=0)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        nonconvex_lr(L, HALF, D, steps=0)
    with pytest.raises(ValueError, match="anchor must be 'full' or 'minibatch', got 'half'"):
        lsvrg_lr(L, HALF, D, anchor="half")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"refresh must be a probability in \(0, 1\], got 0"):
        page_lr(L, HALF, D, refresh=0.0)
    with pytest.raises(ValueError, match="convexity must be above 0"):
        page_lr(L, HALF, D, refresh=0.5, convexity=0.0)
    for p in (0.0, 1.5, torch.tensor([0.5, 0.0])):
        with pytest.raises(ValueError, match=r"rescaled_lr: p must be in \(0, 1\]"):
            rescaled_lr(0.1, p)
    with pytest.raises(ValueError, match="optimizer must be 'sgd' or 'adam', got 'lion'"):
        rescaled_lr(0.1, 0.5, "lion")  # pyright: ignore[reportArgumentType]
