"""L-SVRG: transcription, anchors, resuming, safety."""

from math import nan

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.testing import assert_close

from openwork.sketches import LSVRG, Key, PermK, Pool, SketchedModule
from openwork.sketches.numbers import permutation, uniform
from tests.sketches.members import POOL, D, closure_of, rows, stored


class Quadratic(nn.Module):
    """``0.5 x'Ax - b'x``; positive definite."""

    A: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(D, D, dtype=torch.float64, generator=generator)
        self.register_buffer("A", root @ root.T / D + torch.eye(D, dtype=torch.float64))
        self.x = nn.Parameter(torch.randn(D, dtype=torch.float64, generator=generator))

    def forward(self) -> Tensor:
        return 0.5 * self.x @ self.A @ self.x - self.x.sum()


def sketched_quadratic() -> SketchedModule:
    return SketchedModule(Quadratic(), PermK(2), shift="zero", key=Key(7))


def gradients(sketched: SketchedModule, x: Tensor, members: list[Tensor]) -> Tensor:
    """Of every member, ``(N, D)``, from the definition."""
    a = sketched.module.get_buffer("A")
    return torch.stack([s * (a @ (s * x) - 1) for s in members])


def chosen(t: int, name: str, count: int) -> Tensor:
    return uniform(Key(7, step=t, family=f"LSVRG: {name}"), count)


@pytest.mark.parametrize("anchor", [None, 2])
@pytest.mark.parametrize("redraw", ["refresh", "step"])
def test_the_algorithm_as_it_is_written(anchor: int | None, redraw: str) -> None:
    sketched, lr, p = sketched_quadratic(), 0.03, 0.3
    algorithm = LSVRG(
        SGD(sketched.parameters(), lr=lr),
        sketched,
        POOL,
        refresh=p,
        anchor=anchor,
        redraw_anchor="step" if redraw == "step" else "refresh",
    )
    x = sketched.module.get_parameter("x").detach().clone()
    n, w, h, refreshes, pool = len(POOL), x, torch.zeros(D), 0, rows()

    def mean_at(point: Tensor, t: int) -> Tensor:
        order = permutation(Key(7, step=t, family="LSVRG: subset"), n)[: n if anchor is None else anchor]
        return gradients(sketched, point, pool)[order].mean(0)

    for t in range(30):
        if t == 0 or redraw == "step":
            h = mean_at(w, t)
        s = int(chosen(t, "members", 1) * n)
        after = x - lr * (gradients(sketched, x, pool)[s] - gradients(sketched, w, pool)[s] + h)
        if float(chosen(t, "refresh", 1)) < p:
            w, h, refreshes = x, mean_at(x, t), refreshes + 1
        x = after
        algorithm.step(closure_of(sketched))
    assert refreshes > 2
    assert_close(sketched.module.get_parameter("x").detach(), x, rtol=0, atol=1e-12)


def test_a_pool_of_draws_is_the_same_as_their_keys() -> None:
    keyed, pooled = sketched_quadratic(), sketched_quadratic()
    draws = tuple(PermK(2).sample(key.at(family="x"), D) for key in POOL)
    one = LSVRG(SGD(keyed.parameters(), lr=0.03), keyed, POOL)
    other = LSVRG(SGD(pooled.parameters(), lr=0.03), pooled, Pool(draws))
    assert one.refresh == other.refresh == 1 / 6
    for _ in range(20):
        assert torch.equal(one.step(closure_of(keyed)), other.step(closure_of(pooled)))
    assert torch.equal(keyed.module.get_parameter("x"), pooled.module.get_parameter("x"))


def test_anchors_may_see_other_data() -> None:
    sketched, calls = sketched_quadratic(), []
    algorithm = LSVRG(SGD(sketched.parameters(), lr=0.03), sketched, POOL, refresh=1.0)

    def whole() -> Tensor:
        calls.append("anchor")
        return closure_of(sketched)()

    def batch() -> Tensor:
        calls.append("batch")
        return closure_of(sketched)()

    algorithm.step(batch, whole)
    assert calls == ["anchor"] * 6 + ["batch"] * 2 + ["anchor"] * 6


@pytest.mark.parametrize("at", [0, 7])
def test_a_resumed_run_goes_on_to_the_same_bits(at: int) -> None:
    def begin() -> tuple[SketchedModule, Adam, LSVRG]:
        sketched = sketched_quadratic()
        optimizer = Adam(sketched.parameters(), lr=0.05)
        return sketched, optimizer, LSVRG(optimizer, sketched, POOL, refresh=0.3, anchor=3)

    parts = begin()
    for _ in range(at):
        parts[2].step(closure_of(parts[0]))
    states = [part.state_dict() for part in parts]
    again = begin()
    for part, state in zip(again, states, strict=True):
        part.load_state_dict(stored(state))
    for _ in range(10):
        assert torch.equal(parts[2].step(closure_of(parts[0])), again[2].step(closure_of(again[0])))
    assert torch.equal(parts[0].module.get_parameter("x"), again[0].module.get_parameter("x"))


def test_a_state_of_other_parameters_is_refused() -> None:
    sketched = sketched_quadratic()
    algorithm = LSVRG(SGD(sketched.parameters(), lr=0.03), sketched, POOL)
    algorithm.step(closure_of(sketched))
    state = algorithm.state_dict()
    state["point"] = [torch.zeros(3)]
    with pytest.raises(
        ValueError, match=r"LSVRG: point of the state to load has shapes \[\(3,\)\], the parameters have"
    ):
        algorithm.load_state_dict(state)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    sketched = sketched_quadratic()
    algorithm = LSVRG(SGD(sketched.parameters(), lr=0.03), sketched, POOL, refresh=0.5)
    algorithm.step(closure_of(sketched))
    before, state = sketched.module.get_parameter("x").detach().clone(), algorithm.state_dict()
    for _ in range(3):
        algorithm.step(closure_of(lambda: sketched() * nan))
    assert algorithm.skipped == 3
    assert torch.equal(sketched.module.get_parameter("x"), before)
    assert torch.equal(algorithm.state_dict()["point"][0], state["point"][0])
    assert torch.equal(algorithm.state_dict()["mean_at_point"][0], state["mean_at_point"][0])


def test_a_closure_that_fails_at_the_other_point_leaves_the_weights() -> None:
    sketched = sketched_quadratic()
    algorithm = LSVRG(SGD(sketched.parameters(), lr=0.03), sketched, POOL, refresh=0.1)
    for _ in range(3):
        algorithm.step(closure_of(sketched))
    before, calls = sketched.module.get_parameter("x").detach().clone(), []

    def failing() -> Tensor:
        calls.append(sketched.module.get_parameter("x").detach().clone())
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return closure_of(sketched)()

    with pytest.raises(RuntimeError, match="out of memory"):
        algorithm.step(failing)
    assert not torch.equal(calls[1], before)
    assert torch.equal(sketched.module.get_parameter("x"), before)


def test_bad_arguments_are_refused() -> None:
    sketched = sketched_quadratic()
    optimizer = SGD(sketched.parameters(), lr=0.03)
    with pytest.raises(ValueError, match="LSVRG: pool is empty; pass the keys"):
        LSVRG(optimizer, sketched, [])
    with pytest.raises(TypeError, match=r"LSVRG: pool must be a Pool or keys of draws, got 3 in it; pass Keys"):
        LSVRG(optimizer, sketched, [Key(0), 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="LSVRG: anchor must be a number of members from 1 to 6, got 7"):
        LSVRG(optimizer, sketched, POOL, anchor=7)
    with pytest.raises(ValueError, match=r"LSVRG: refresh must be a probability in \(0, 1\], got 0"):
        LSVRG(optimizer, sketched, POOL, refresh=0)
    draws = tuple(PermK(2).sample(Key(0, worker=i), D) for i in range(2))
    with pytest.raises(ValueError, match="LSVRG: pool has weights, and members count alike here"):
        LSVRG(optimizer, sketched, Pool(draws, (0.4, 0.6)))
    small = tuple(PermK(2).sample(Key(0, worker=i), 4) for i in range(2))
    with pytest.raises(ValueError, match="LSVRG: the pool has draws of 4 numbers, the module of 8"):
        LSVRG(optimizer, sketched, Pool(small))
