"""Prune curves against masks that are applied by hand."""

from statistics import fmean, stdev

import pytest
import torch
from torch import Tensor, nn

from openwork.sketches import Key, RandK, SketchedModule, Spread, prune_curve


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)).double()


def inputs() -> Tensor:
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def sketched() -> SketchedModule:
    return SketchedModule(network(), RandK(0.5), shift="zero", granularity="units", example_inputs=inputs())


def kept(module: nn.Module) -> dict[str, float]:
    columns = module.get_parameter("3.weight").detach()
    assert not module.training
    return {"kept": float(columns.any(dim=0).sum()), "sum": float(columns.sum())}


def test_every_ratio_has_its_masks() -> None:
    model = sketched()
    weight = model.module.get_parameter("3.weight").detach().clone()
    points = prune_curve(model, kept, [1.0, 0.5, 0.25], n=8)
    assert [point.ratio for point in points] == [1.0, 0.5, 0.25]
    assert [set(point.metrics["kept"].values) for point in points] == [{6.0}, {3.0}, {2.0}]
    assert [len(point.metrics["kept"].values) for point in points] == [1, 8, 8]
    assert points[0].metrics["sum"].values == (float(weight.sum()),)
    # The mean over all masks is the dense model.
    many = prune_curve(model, kept, [0.5], n=300)[0].metrics["sum"]
    assert abs(many.mean - float(weight.sum())) < 4 * many.std / 300**0.5
    assert torch.equal(model.module.get_parameter("3.weight"), weight)


def test_the_same_key_gives_the_same_masks() -> None:
    model = sketched()
    first, same, other = (prune_curve(model, kept, [0.5], n=4, key=Key(seed)) for seed in (1, 1, 2))
    assert first == same
    assert first != other


@pytest.mark.parametrize(("rule", "scale"), [("nested", 2.0), ("magnitude", 1.0)])
def test_other_rules_have_one_mask(rule: str, scale: float) -> None:
    model = sketched()
    weight = model.module.get_parameter("3.weight").detach()
    (point,) = prune_curve(model, kept, [0.5], rule=rule)  # pyright: ignore[reportArgumentType]
    order = range(6) if rule == "nested" else weight.norm(dim=0).argsort(descending=True).tolist()
    expected = scale * float(weight[:, list(order)[:3]].sum())
    assert point.metrics["sum"].values == (pytest.approx(expected, rel=1e-12),)
    assert point.metrics["sum"].std == 0


def test_statistics_are_those_of_every_mask() -> None:
    model, x = sketched(), inputs()
    batches = [(x[:20], torch.zeros(20)), (x[20:], torch.zeros(20))]
    seen: list[Tensor] = []

    def outputs(module: nn.Module) -> dict[str, float]:
        seen.append(module.get_buffer("1.running_mean").clone())
        return {"mean": float(module(x).mean())}

    prune_curve(model, outputs, [0.5], n=2)
    assert torch.equal(seen[0], torch.zeros(6, dtype=torch.float64))
    prune_curve(model, outputs, [0.5], n=2, batches=batches)
    reached = model.module[0](x).detach()  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(seen[2], (reached[:20].mean(0) + reached[20:].mean(0)) / 2)
    assert torch.equal(seen[2], seen[3])
    assert torch.equal(model.module.get_buffer("1.running_mean"), torch.zeros(6, dtype=torch.float64))


def test_a_spread_is_that_of_its_values() -> None:
    spread = Spread((4.0, 1.0, 3.0, 2.0, 10.0))
    assert (spread.mean, spread.std) == (fmean(spread.values), stdev(spread.values))
    assert spread.quartiles == (2.0, 3.0, 4.0)
    assert (spread.min, spread.max) == (1.0, 10.0)
    assert (Spread((7.0,)).std, Spread((7.0,)).quartiles) == (0.0, (7.0, 7.0, 7.0))


def test_bad_input() -> None:
    model = sketched()
    with pytest.raises(TypeError, match=r"^prune_curve: sketched must be a SketchedModule, got Sequential; wrap"):
        prune_curve(network(), kept, [0.5])  # pyright: ignore[reportArgumentType]
    for ratio in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^prune_curve: a keep ratio must be above 0 and at most 1, got "):
            prune_curve(model, kept, [0.5, ratio])
    with pytest.raises(ValueError, match=r"^prune_curve: ratios is empty; pass at least one"):
        prune_curve(model, kept, [])
    with pytest.raises(ValueError, match=r"^prune_curve: n must be at least 1 mask, got 0$"):
        prune_curve(model, kept, [0.5], n=0)
    with pytest.raises(ValueError, match=r"^prune_curve: rule must be one of 'random', 'magnitude', 'nested', got 'x'"):
        prune_curve(model, kept, [0.5], rule="x")  # pyright: ignore[reportArgumentType]
