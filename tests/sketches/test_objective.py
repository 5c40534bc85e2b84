"""The objective by Monte Carlo against enumeration, and its standard error against the truth."""

from itertools import combinations, permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from typing_extensions import override

from openwork import models
from openwork.sketches import DiagonalSketch, Identity, Key, PermK, RandK, SketchedModule, mc_objective


class Point(nn.Module):
    """A vector of weights as outputs."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)

    @override
    def forward(self, _: Tensor) -> Tensor:
        return self.x


A = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
A = A @ A.T / 12 + torch.eye(12)
B = torch.linspace(-1, 1, 12, dtype=torch.float64)
NOTHING = torch.zeros(1)


def quadratic(y: Tensor, _: Tensor) -> Tensor:
    size = len(y)
    return y @ A[:size, :size] @ y / 2 - B[:size] @ y


def sketched(law: DiagonalSketch, size: int = 12) -> SketchedModule:
    x = torch.linspace(0.5, 1.5, size, dtype=torch.float64)
    return SketchedModule(Point(x), law, shift={"x": torch.full((size,), 0.2, dtype=torch.float64)})


def exact(model: SketchedModule, law: DiagonalSketch) -> float:
    """The closed form: f(v) + grad f(v) u + u (E[w w'] * A) u / 2."""
    x, v = model.module.get_parameter("x").detach(), model.shifts["x"]
    assert v is not None
    u, size = x - v, len(x)
    smooth = law.second_moment(size) * A[:size, :size]
    return float(quadratic(v, v) + (A[:size, :size] @ v - B[:size]) @ u + u @ smooth @ u / 2)


@pytest.mark.parametrize("complementary", [True, False])
@pytest.mark.parametrize("law", [RandK(4), RandK(5), RandK(0.5), PermK(3), PermK(5)], ids=repr)
def test_it_is_the_closed_form(law: DiagonalSketch, complementary: bool) -> None:
    model = sketched(law)
    found = mc_objective(model, quadratic, (NOTHING, NOTHING), n=500, complementary=complementary)
    assert abs(found.mean - exact(model, law)) < 4 * found.stderr
    assert found.stderr < 0.2 * abs(found.mean)


@pytest.mark.parametrize("law", [RandK(4), RandK(3), PermK(4), PermK(3)], ids=repr)
def test_sets_vary_less_than_independent_draws(law: DiagonalSketch) -> None:
    model = sketched(law)
    sets = mc_objective(model, quadratic, (NOTHING, NOTHING), n=400)
    alone = mc_objective(model, quadratic, (NOTHING, NOTHING), n=400, complementary=False)
    assert sets.stderr < alone.stderr


@pytest.mark.parametrize("complementary", [True, False])
def test_its_standard_error_is_calibrated(complementary: bool) -> None:
    law = RandK(6)
    model = sketched(law)
    truth = exact(model, law)
    inside = 0
    for repeat in range(200):
        found = mc_objective(
            model, quadratic, (NOTHING, NOTHING), n=32, complementary=complementary, key=Key(100 + repeat)
        )
        inside += abs(found.mean - truth) <= 1.96 * found.stderr
    assert 0.90 <= inside / 200 <= 0.99


def test_a_set_of_all_shares_is_a_mean_over_permutations() -> None:
    law, size = PermK(2), 4
    model = sketched(law, size)
    x, v = model.module.get_parameter("x").detach(), torch.full((size,), 0.2, dtype=torch.float64)
    values = []
    for order in permutations(range(size)):
        for share in (order[:2], order[2:]):
            weights = torch.zeros(size, dtype=torch.float64)
            weights[list(share)] = 2.0
            values.append(float(quadratic(v + weights * (x - v), v)))
    assert sum(values) / len(values) == pytest.approx(exact(model, law), rel=1e-12)
    found = mc_objective(model, quadratic, (NOTHING, NOTHING), n=400)
    assert abs(found.mean - sum(values) / len(values)) < 4 * found.stderr


@pytest.mark.parametrize(("size", "k"), [(6, 2), (7, 2), (5, 5), (7, 3)])
def test_complements_of_rand_k_are_disjoint_and_fair(size: int, k: int) -> None:
    law, counts = RandK(k), {chosen: 0 for chosen in combinations(range(size), k)}
    total = 0
    for draw in range(600):
        weights = torch.stack([one.weights for one in law.complements(Key(0, draw=draw), size)])
        assert len(weights) == size // k
        assert (weights != 0).sum(dim=0).max() == 1
        assert ((weights == 0) | (weights == size / k)).all()
        last = tuple((weights[-1] != 0).nonzero().flatten().tolist())
        counts[last] += 1
        total += 1
    expected = total / len(counts)
    # Chi square of the last of each set, which must have the law of the first.
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < len(counts) + 5 * (2 * len(counts)) ** 0.5


def test_complements_of_perm_k_are_the_shares_of_all_workers() -> None:
    law, key = PermK(3), Key(5, worker=1)
    shares = law.complements(key, 7)
    assert torch.equal(shares[1].weights, law.sample(key, 7).weights)
    assert torch.equal(torch.stack([one.weights for one in shares]).mean(0), torch.ones(7, dtype=torch.float64))


def test_families_of_other_set_sizes_go_together() -> None:
    # Layers of 5 and of 4 entries: sets of 2 and of 2, and of 1 where 3 entries are left.
    model = nn.Sequential(nn.Linear(1, 5), nn.Linear(5, 1)).double()
    wrapped = SketchedModule(model, RandK(2), include=["*.weight", "0.bias"], shift="zero")
    x, y = torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    sets = mc_objective(wrapped, mse_loss, (x, y), n=400)
    alone = mc_objective(wrapped, mse_loss, (x, y), n=400, complementary=False)
    assert abs(sets.mean - alone.mean) < 4 * (sets.stderr**2 + alone.stderr**2) ** 0.5
    assert sets.n == 400


def test_it_leaves_everything_as_it_was() -> None:
    model = SketchedModule(models.lenet5((6, 16)), RandK(0.5), shift="zero").train()
    state = {name: x.clone() for name, x in model.named_parameters()}
    before = torch.get_rng_state()
    batch = (torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1]))
    first = mc_objective(model, nn.functional.cross_entropy, batch, n=4)
    assert first == mc_objective(model, nn.functional.cross_entropy, batch, n=4)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], x) for name, x in model.named_parameters())
    assert str(first).count("±") == 1


def test_without_randomness_there_is_no_error() -> None:
    model = sketched(Identity())
    found = mc_objective(model, quadratic, (NOTHING, NOTHING), n=2)
    assert found.mean == pytest.approx(float(quadratic(model.module.get_parameter("x").detach(), NOTHING)), rel=1e-15)
    assert found.stderr == 0


@pytest.mark.parametrize(("n", "drawn"), [(2, 2), (3, 3), (5, 6), (6, 6), (7, 9)])
def test_sets_are_no_larger_than_half_of_the_draws(n: int, drawn: int) -> None:
    assert mc_objective(sketched(PermK(3)), quadratic, (NOTHING, NOTHING), n=n).n == drawn


def test_bad_input() -> None:
    model = sketched(PermK(3))
    with pytest.raises(TypeError, match=r"^mc_objective: sketched must be a SketchedModule, got Point; wrap the model"):
        mc_objective(Point(B), quadratic, (NOTHING, NOTHING))  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"^mc_objective: n must be at least 2 draws, got 1; a standard error needs two"
    ):
        mc_objective(model, quadratic, (NOTHING, NOTHING), n=1)
    with pytest.raises(ValueError, match=r"^mc_objective: loss must give one number, got a tensor of shape \(12,\)"):
        mc_objective(model, torch.sub, (NOTHING, NOTHING))
    with pytest.raises(ValueError, match=r"^mc_objective: example_inputs is empty"):
        mc_objective(model, quadratic, ((), NOTHING))
