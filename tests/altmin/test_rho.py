"""Rules for the weight of the links."""

import pytest
import torch

from openwork.altmin import AdaptiveRho, AMTrainer, FixedRho, RelativeRho, RhoPolicy, RisingCostRho
from tests.altmin.tasks import labelled, network


def test_relative_rho_weighs_relative_residuals() -> None:
    trainer = AMTrainer(network(), rho=RelativeRho(0.3))
    trainer.start(*labelled())
    for layer in trainer._started()[0].problem.layers:
        torch.testing.assert_close(layer.rho, 0.3 / float(layer.z.now.square().mean()))


def test_adaptive_rho_grows_while_the_network_is_worse_than_its_surrogate() -> None:
    rule = AdaptiveRho(0.1, every=10, growth=1.3)
    assert rule.growth_now(0.1, [0.5], 0.2) == 1.3
    assert rule.growth_now(0.1, [0.41], 0.2) == 1.0


def test_growth_scales_what_is_weighed_against_the_links() -> None:
    trainer = AMTrainer(network(), rho=AdaptiveRho(1e-4, every=2, growth=1.5), mu=0.2, balance=0)
    trainer.start(*labelled())
    for _ in range(4):
        trainer.sweep()
    layer = trainer._started()[0].problem.layers[0]
    growth = layer.rho / 1e-4
    assert growth == pytest.approx(2.25)
    assert layer.mu == pytest.approx(0.2 * growth)
    assert layer.penalty_weight == pytest.approx(40 * growth)
    assert trainer.report()["rho"][-1] == pytest.approx(1.5e-4)


def test_dladmms_rho_jumps_after_three_rises_and_stops_at_its_cap() -> None:
    rule = RisingCostRho()
    assert rule.growth_now(1e-6, [1.0, 1.1, 1.2], 0) == 1
    assert rule.growth_now(1e-6, [1.0, 1.1, 1.2, 1.3], 0) == 10
    assert rule.growth_now(1e-6, [1.0, 1.1, 1.1, 1.3], 0) == 1
    assert rule.growth_now(0.05, [1.0, 1.1, 1.2, 1.3], 0) == pytest.approx(2)
    assert rule.growth_now(0.1, [1.0, 1.1, 1.2, 1.3], 0) == 1


@pytest.mark.parametrize("policy", [FixedRho, RelativeRho, AdaptiveRho, RisingCostRho])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rho_that_is_not_positive_is_refused(policy: type[FixedRho], value: float) -> None:
    with pytest.raises(ValueError, match=rf"{policy.__name__}: value must be finite and > 0, got {value}"):
        policy(value)


@pytest.mark.parametrize("policy", [AdaptiveRho, RisingCostRho])
def test_a_factor_that_does_not_grow_is_refused(policy: type[AdaptiveRho]) -> None:
    with pytest.raises(ValueError, match=rf"{policy.__name__}: growth must be finite and > 1, got 1.0"):
        policy(growth=1.0)


def test_a_rule_of_ones_own_is_a_subclass() -> None:
    class Half(RhoPolicy):
        @property
        def start(self) -> float:
            return 0.5

    trainer = AMTrainer(network(), rho=Half())
    trainer.start(*labelled())
    assert trainer._started()[0].problem.layers[0].rho == 0.5
