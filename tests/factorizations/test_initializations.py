"""Where factors start: products, distributions and norms, against their formulas."""

from math import erf, exp, pi, sqrt

import pytest
import torch
from torch import Tensor

from openwork.factorizations import Initialization, Sampled, Split, UnitGate

DEPTHS = [2, 3, 4, 5, 6]


def prod(factors: list[Tensor]) -> Tensor:
    return torch.stack(factors).prod(dim=0)


# -- splitting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("shape", [(), (7,), (5, 4), (3, 4, 2, 2), (0, 3)])
@pytest.mark.parametrize("imbalance", [0.0, 0.25, 1.5])
def test_a_split_weight_is_the_product(depth: int, shape: tuple[int, ...], imbalance: float) -> None:
    for dtype, tolerance in ((torch.float64, 2e-15), (torch.float32, 4 * depth * torch.finfo(torch.float32).eps)):
        weight = torch.randn(shape, dtype=dtype)
        factors = Split(imbalance=imbalance).factors(weight, depth)
        assert [(f.dtype, f.shape) for f in factors] == [(dtype, weight.shape)] * depth
        torch.testing.assert_close(prod(factors), weight, rtol=tolerance, atol=0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_balanced_split_has_the_least_norm(depth: int) -> None:
    weight = torch.randn(200, dtype=torch.float64)
    induced = weight.abs().pow(2 / depth).sum()

    def misalignment(imbalance: float) -> float:
        factors = Split(imbalance=imbalance).factors(weight, depth)
        return float(sum(f.square().sum() for f in factors) / depth - induced)

    assert abs(misalignment(0.0)) <= 1e-12 * induced
    assert 0 < misalignment(0.1) < misalignment(0.25) < misalignment(1.0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_two_random_factors_of_a_weight_are_apart_and_signs_are_random(depth: int) -> None:
    weight = torch.randn(20_000, dtype=torch.float64)
    factors = torch.stack(Split(imbalance=0.25).factors(weight, depth))
    shifts = (factors.abs() / weight.abs() ** (1 / depth)).log()
    for target, count in ((0.25, 1), (-0.25, 1), (0.0, depth - 2)):
        there = torch.isclose(shifts, torch.tensor(target, dtype=torch.float64), atol=1e-12)
        assert bool((there.sum(dim=0) == count).all())
        assert float((there.double().mean(dim=1) - count / depth).abs().max()) < 0.02
    assert bool(((factors > 0).double().mean(dim=1) - 0.5).abs().max() < 0.02)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_zero_is_dead_or_has_one_zero_factor(depth: int) -> None:
    weight = torch.zeros(1000, dtype=torch.float64)
    assert not any(bool(f.any()) for f in Split().factors(weight, depth))
    factors = torch.stack(Split(zero="revivable", revived=1e-4).factors(weight, depth))
    assert bool(((factors == 0).sum(dim=0) == 1).all())
    torch.testing.assert_close(factors.abs().amax(dim=0), torch.full((1000,), 1e-4 ** (1 / depth)).double())


def test_unit_gates_leave_the_weight_as_it_is() -> None:
    weight = torch.randn(5, 4)
    first, *gates = UnitGate().factors(weight, 4)
    assert torch.equal(first, weight)
    assert first.data_ptr() != weight.data_ptr()
    assert all(torch.equal(gate, torch.ones(5, 4)) for gate in gates)


# -- sampling -------------------------------------------------------------------------------------------------------


def moments(depth: int, eps: float) -> tuple[float, float]:
    """Second and fourth moment of a standard normal variable with eps^(1/D) < |x| < 2^(1/D)."""
    a, b = eps ** (1 / depth), 2 ** (1 / depth)

    def density(x: float) -> float:
        return exp(-x * x / 2) / sqrt(2 * pi)

    mass = (erf(b / sqrt(2)) - erf(a / sqrt(2))) / 2
    second = 1 - (b * density(b) - a * density(a)) / mass
    fourth = 3 * second - (b**3 * density(b) - a**3 * density(a)) / mass
    return second, fourth


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("eps", [0.05, 0.25])
def test_the_moments_are_those_of_the_formulas(depth: int, eps: float) -> None:
    sigma = 0.05
    weight = torch.full((1000, 1000), sigma, dtype=torch.float64)
    second, fourth = moments(depth, eps)
    for correct, deviation in ((True, 1.0), (False, second ** (depth / 2))):
        factors = Sampled(eps, correct).factors(weight, depth, torch.Generator().manual_seed(1))
        drawn = prod(factors) / sigma
        assert float(drawn.square().mean()) == pytest.approx(deviation**2, rel=0.01)
        assert float(drawn.pow(4).mean() / drawn.square().mean() ** 2) == pytest.approx(
            (fourth / second**2) ** depth, rel=0.02
        )
        assert float((drawn > 0).double().mean()) == pytest.approx(0.5, abs=0.002)
        scale = second**-0.5 if correct else 1.0
        for factor in factors:
            low, high = ((x * sigma) ** (1 / depth) * scale for x in (eps, 2.0))
            assert low * (1 - 1e-12) <= float(factor.abs().min())
            assert float(factor.abs().max()) <= high * (1 + 1e-12)
            assert float((factor > 0).double().mean()) == pytest.approx(0.5, abs=0.002)


@pytest.mark.parametrize(
    ("depth", "eps", "deviation", "kurtosis"),
    [(2, 0.05, 0.638, 2.8), (2, 0.25, 0.863, 1.7), (3, 0.05, 0.516, 2.7), (3, 0.25, 0.809, 1.5), (4, 0.05, 0.456, 2.4)],
)
def test_the_formulas_are_those_of_the_table(depth: int, eps: float, deviation: float, kurtosis: float) -> None:
    second, fourth = moments(depth, eps)
    assert second ** (depth / 2) == pytest.approx(deviation, abs=0.001)
    assert (fourth / second**2) ** depth == pytest.approx(kurtosis, abs=0.06)


@pytest.mark.parametrize("sigma", [0.8, 3.0, 1e-9])
def test_any_scale_is_kept(sigma: float) -> None:
    """The cap of 1 on factors cuts more off for large deviations, and there is room below it for any."""
    for depth in (2, 4):
        drawn = prod(Sampled().factors(torch.full((300, 300), sigma, dtype=torch.float64), depth))
        assert float(drawn.square().mean().sqrt()) == pytest.approx(sigma, rel=0.03)


def test_zeros_stay_zeros_and_nothing_is_nan() -> None:
    assert not prod(Sampled().factors(torch.zeros(3, 3), 3)).any()
    assert prod(Sampled().factors(torch.zeros(0, 3), 3)).shape == (0, 3)


# -- both -----------------------------------------------------------------------------------------------------------

ALL: list[Initialization] = [Sampled(), UnitGate(), Split(), Split(zero="revivable")]


@pytest.mark.parametrize("init", ALL, ids=str)
def test_factors_are_new_and_like_the_weight(init: Initialization) -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        weight = torch.randn(2, 3, 4, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
        for factor in init.factors(weight, 3):
            assert factor.dtype == torch.promote_types(dtype, torch.float32)
            assert factor.stride() == weight.stride()
            assert not factor.requires_grad


@pytest.mark.parametrize("init", ALL, ids=str)
def test_the_generator_decides(init: Initialization) -> None:
    state = torch.get_rng_state()
    one, other = (init.factors(torch.ones(5, 4), 3, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Sampled(eps=0.0), "Sampled: eps must be above 0 and below 1, got 0.0"),
        (lambda: Sampled(eps=float("nan")), "Sampled: eps must be above 0 and below 1, got nan"),
        (lambda: Split(imbalance=-0.1), "Split: imbalance must be at least 0, got -0.1"),
        (
            lambda: Split(zero="alive"),  # pyright: ignore[reportArgumentType]
            "Split: zero must be 'dead' or 'revivable', got 'alive'",
        ),
        (lambda: Split(revived=0.0), "Split: revived must be above 0, got 0.0"),
    ],
)
def test_mistakes_are_told(build, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()
