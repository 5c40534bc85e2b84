"""What is measured of factors, against its definition, and the alarms."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.factorizations import Diagnostics, Factors, Sampled, Split, Watch, diagnose, leave_one_out
from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.collapsing import SWEEP


def of(factors: Sequence[Tensor], lam: float = 0.1, name: str = "w") -> Factors:
    """Factors of single weights."""
    weight = factors[0]
    for factor in factors[1:]:
        weight = weight * factor
    return Factors(name, [f.square() for f in factors], weight.abs(), lam, len(factors), weight)


def sampled(depth: int, shape: tuple[int, ...] = (40, 30), seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return Sampled().factors(torch.randn(shape, generator=generator) * 0.1, depth, generator)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_numbers_are_those_of_the_formulas(depth: int) -> None:
    factors = sampled(depth)
    with torch.no_grad():
        factors[0][:5] *= 1e-5
        factors[1][7] = 0.0
        factors[0][7, :3] = 0.0
    found = diagnose(of(factors))
    exact = [f.double() for f in factors]
    weight = torch.stack(exact).prod(dim=0)
    excess = sum(float(f.square().sum()) for f in exact) / depth
    penalty = float((weight.abs() ** (2 / depth)).sum())
    assert found.excess == pytest.approx(excess)
    assert found.penalty == pytest.approx(penalty)
    assert found.misalignment == pytest.approx(excess - penalty)
    assert found.relative_misalignment == pytest.approx((excess - penalty) / penalty)
    apart = max(float((a.square() - b.square()).abs().max()) for a in exact for b in exact)
    assert found.imbalance == pytest.approx(apart)
    assert found.norm == pytest.approx(float(weight.norm()))
    assert list(found.nonzero) == [int((weight.abs() >= threshold).sum()) for threshold in SWEEP]
    assert found.dead == 3
    multipliers = torch.stack([p.square() for p in leave_one_out(exact, Tensor.mul)]).sum(dim=0)
    assert found.multiplier == pytest.approx(float(multipliers[weight.abs() >= THRESHOLD].median()), rel=1e-3)
    assert sum(found.histogram) == weight.numel()
    # 7: zeros, which are in the first bin.
    assert found.histogram[0] == 30


def test_balanced_factors_are_not_misaligned_and_any_other_split_is() -> None:
    weight = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    for depth in (2, 3, 4):
        balanced = diagnose(of(Split(imbalance=0.0).factors(weight, depth)))
        assert balanced.relative_misalignment < 1e-6
        assert diagnose(of(Split(imbalance=0.25).factors(weight, depth))).relative_misalignment > 0.01


@pytest.mark.parametrize("depth", [2, 3])
def test_tied_factors_are_measured_as_equal_ones(depth: int) -> None:
    root = torch.randn(30, 10, generator=torch.Generator().manual_seed(0)).abs()
    root[0] = 0.0
    one, many = diagnose(Factors("w", [root.square()], root**depth, 0.1, depth)), diagnose(of([root] * depth))
    assert (one.excess, one.penalty, one.dead) == pytest.approx((many.excess, many.penalty, many.dead))
    assert one.multiplier == pytest.approx(many.multiplier)
    assert one.imbalance == 0
    assert one.dead == 10


def test_groups_with_gates_are_measured_by_their_norms() -> None:
    omega = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    gates = torch.rand(2, 6, generator=torch.Generator().manual_seed(1))
    weight = omega * gates.prod(dim=0)[:, None]
    squares = [omega.square().sum(dim=1), *gates.square()]
    found = diagnose(Factors("w", squares, weight.norm(dim=1), 0.1, 3))
    assert found.size == 6
    assert found.penalty == pytest.approx(float((weight.norm(dim=1) ** (2 / 3)).sum()))
    assert found.excess == pytest.approx((float(omega.square().sum()) + float(gates.square().sum())) / 3)
    assert found.flipped is None
    assert "sign_flips" not in Diagnostics({"w": found}).record()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_weights_that_are_no_numbers_are_measured_all_the_same(value: float) -> None:
    found = diagnose(of([torch.full((3, 2), value), torch.ones(3, 2)]))
    assert sum(found.histogram) == 6


def test_signs_are_those_of_the_start_and_survive_a_checkpoint() -> None:
    watch, factors = Watch(), sampled(2)
    watch.begin([of(factors)])
    factors[0][:10] *= -1
    assert watch.observe([of(factors)], 1)["sign_flips"] == pytest.approx(0.25)
    file = BytesIO()
    torch.save(watch.state_dict(), file)
    file.seek(0)
    other = Watch()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.observe([of(factors)], 2) == watch.observe([of(factors)], 2)
    # A weight of another size begins anew.
    assert watch.observe([of([f[:30] for f in factors])], 3)["sign_flips"] == 0


def test_onset_is_the_first_epoch_with_zeros() -> None:
    watch, factors = Watch(), sampled(3)
    watch.begin([of(factors)])
    assert "onset_epoch" not in watch.observe([of(factors)], 1)
    factors[0][:2] = 0.0
    assert watch.observe([of(factors)], 2)["onset_epoch"] == 2
    factors[0][:20] = 0.0
    record = watch.observe([of(factors)], 3)
    assert record["onset_epoch"] == 2
    assert record["compression_at"]["1.2e-07"] == 2


def test_a_layer_of_zeros_is_named_once() -> None:
    watch, factors, lost = Watch("here"), sampled(3), sampled(3)
    watch.begin([of(factors), of(lost, name="first.weight")])
    lost[0].zero_()
    layers = [of(factors), of(lost, name="first.weight")]
    with pytest.warns(UserWarning, match=r"here: all of first\.weight is zero after epoch 1.*lam=0\.1 is too strong"):
        record = watch.observe(layers, 1)
    assert len(record["alarms"]) == 1
    assert watch.observe(layers, 2)["alarms"] == record["alarms"]


def test_everything_zero_has_no_compression_ratio() -> None:
    with pytest.warns(UserWarning, match="all of w is zero"):
        record = Watch().observe([of([torch.zeros(3, 2), torch.zeros(3, 2)])], 1)
    assert record["compression_at"]["1.2e-07"] is None
    assert record["relative_misalignment"] == 0


@pytest.mark.parametrize(
    ("accuracy", "chance", "scale", "raised"),
    [(0.11, 0.113, 0.01, True), (0.9, 0.113, 0.01, False), (0.11, 0.113, 1.0, False), (None, None, 0.01, False)],
)
def test_a_collapse_is_a_network_at_chance_whose_penalty_vanishes(
    accuracy: float | None, chance: float | None, scale: float, raised: bool
) -> None:
    watch, factors = Watch(), sampled(3)
    watch.begin([of(factors)])
    after = [of([f * scale for f in factors])]
    arguments: dict[str, Any] = {"accuracy": accuracy, "chance": chance}
    if raised:
        with pytest.warns(UserWarning, match=r"the network collapses: after epoch 4 it predicts no better .* \(11 %\)"):
            watch.observe(after, 4, **arguments)
    else:
        assert watch.observe(after, 4, **arguments)["alarms"] == []


def test_factors_that_stay_apart_are_found_out_once_the_budget_is_spent() -> None:
    watch, factors = Watch(), sampled(3)
    watch.begin([of(factors)])
    apart = [of([factors[0] * 2, *factors[1:]])]
    assert watch.observe(apart, 1, budget=20.0)["alarms"] == []
    assert watch.observe([of(Split(imbalance=0.0).factors(torch.ones(40, 30), 3))], 2, budget=30.0)["alarms"] == []
    with pytest.warns(UserWarning, match="the relative misalignment of the factors, .* after epoch 3, is not below"):
        watch.observe(apart, 3, budget=30.0)
