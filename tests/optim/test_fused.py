"""Fused steps are the plain ones to rounding, and are taken exactly where they are asked for."""

import copy
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary
from zipfile import ZipFile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openwork.factorizations import product
from openwork.kernels import cpu, fused_kernels, lowering, native, tables
from openwork.optim import (
    RAMDA,
    RMDA,
    FactorizedSGD,
    ProxAdamW,
    ProximalOptimizer,
    Stages,
    StructuredOptimizer,
    regularize,
)
from openwork.optim.fused import all_finite, warn_once
from openwork.optim.plans import MOST_PLANS
from openwork.partitions import Blocks, Heads, Partition, Slices
from openwork.penalties import L1, GroupLasso, GroupMCP, Penalty, SparseGroupLasso, Target

PROXIMAL: list[Callable[..., ProximalOptimizer]] = [RAMDA, RMDA, ProxAdamW]
KINDS_AND_DTYPES = [(RAMDA, torch.float32), *((kind, torch.float64) for kind in PROXIMAL)]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def is_fused(optimizer: StructuredOptimizer) -> bool:
    """Whether the next step of the first group is fused."""
    group = optimizer.param_groups[0]
    return optimizer._fused_step(group, optimizer._moving(group)) is not None


def distance(ones: list[nn.Parameter], others: list[nn.Parameter]) -> float:
    """Largest distance of two entries, in units of the largest entry of the weight."""
    tiny = torch.finfo(ones[0].dtype).tiny
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ones, others, strict=True)]
    distances = [float((a - b).abs().max() / b.abs().max().clamp_min(tiny)) for a, b in pairs if a.numel()]
    return max(distances, default=0.0)


def step_both(one: Any, other: Any, ones: list[nn.Parameter], others: list[nn.Parameter], scale: float = 1.0) -> None:
    """One step of two optimizers with the same random gradients."""
    for a, b in zip(ones, others, strict=True):
        a.grad = scale * (0.3 * torch.randn_like(a) + a.detach() / scale)
        b.grad = a.grad.clone()
    one.step()
    other.step()


def weights(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, scale: float = 1.0) -> list[nn.Parameter]:
    """Random weights, every other input of which is small."""
    found: list[nn.Parameter] = []
    for shape in shapes:
        x = scale * torch.randn(shape, dtype=dtype)
        if len(shape) > 1:
            x[:, ::2] *= 0.02
        found.append(nn.Parameter(x))
    return found


def with_gradients(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    params = weights(*shapes)
    for param in params:
        param.grad = torch.ones_like(param)
    return params


# -- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("penalty", [GroupLasso(0.05), L1(0.02), SparseGroupLasso(0.05), None])
def test_agrees_with_plain_torch(kind: Any, penalty: Penalty | None, threads: int) -> None:
    ones = weights((40, 30), (6, 8, 3, 3), (5, 700))
    others = copy.deepcopy(ones)
    if isinstance(penalty, L1 | GroupLasso | SparseGroupLasso):
        # Strong enough that some vanish, and not all.
        penalty = dataclasses.replace(penalty, lam={RAMDA: 1, RMDA: 20, ProxAdamW: 5}[kind] * penalty.lam)
    one, other = kind(ones, lr=0.1, penalty=penalty, fused=True), kind(others, lr=0.1, penalty=penalty, fused=False)
    for optimizer in (one, other):
        Stages(optimizer, [5])
    torch.set_num_threads(threads)
    try:
        for _ in range(10):
            step_both(one, other, ones, others)
            assert distance(ones, others) < 1e-12
            assert one.read_out().alive == other.read_out().alive
    finally:
        torch.set_num_threads(1)
    with one.structured(), other.structured():
        assert distance(ones, others) < 1e-12
        assert [(a != 0).sum() for a in ones] == [(b != 0).sum() for b in others]
    assert one.read_out().residual < 1e-9
    if penalty is not None:
        assert 0 < one.read_out().alive < one.read_out().total


@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("groups", [Slices(0), Slices(1)])
@pytest.mark.parametrize("most", [0, tables.MOST_KEPT])
def test_rows_longer_than_strips_and_tiles_and_more_than_a_block(
    kind: Any, groups: Partition, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Metrics of a tile are kept from pass to pass, or made anew in each.
    monkeypatch.setattr(tables, "MOST_KEPT", most)
    monkeypatch.setattr(tables, "_known", WeakKeyDictionary())
    ones = weights((5, tables.STRIP + 3), (3, tables.WIDEST + 70), (4 * tables.BLOCK + 6, 3))
    others = copy.deepcopy(ones)
    one, other = (
        kind(xs, lr=0.1, penalty=GroupLasso(0.5, groups), fused=x) for xs, x in ((ones, True), (others, False))
    )
    for _ in range(4):
        step_both(one, other, ones, others)
        assert distance(ones, others) < 1e-12
        assert one.read_out().alive == other.read_out().alive


@given(data=st.data())
@settings(max_examples=25)
def test_random_shapes_groups_and_dtypes(data: st.DataObject) -> None:
    kind, dtype = data.draw(st.sampled_from(KINDS_AND_DTYPES))
    shapes = data.draw(
        st.lists(st.lists(st.integers(1, 20), min_size=2, max_size=4).map(tuple), min_size=1, max_size=3)
    )
    groups: Partition = data.draw(st.sampled_from([Slices(0), Slices(1), Slices(-1), Heads(1, 1), Blocks((1,))]))
    lasso: Penalty = data.draw(
        st.sampled_from(
            [GroupLasso(0.1, groups), SparseGroupLasso(0.1, 0.3, groups), SparseGroupLasso(0.1, 1.0, groups)]
        )
    )
    torch.manual_seed(data.draw(st.integers(0, 1000)))
    ones = weights(*shapes, dtype=dtype)
    others = copy.deepcopy(ones)
    one, other = kind(ones, lr=0.05, penalty=lasso, fused=True), kind(others, lr=0.05, penalty=lasso, fused=False)
    for _ in range(3):
        step_both(one, other, ones, others)
    assert is_fused(one)
    assert distance(ones, others) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("kind", "scales"),
    [
        (partial(RAMDA, eps=0.0), (1e-12, 1e-6, 1e6, 1e12)),
        # Two kernels that no other test needs.
        pytest.param(partial(ProxAdamW, eps=0.0), (1e-18, 1e-8, 1.0, 1e8, 1e18), marks=pytest.mark.slow),
        # Beyond what has a square in this precision.
        pytest.param(RMDA, (1e-25, 1e-8, 1.0, 1e8, 1e25), marks=pytest.mark.slow),
    ],
)
def test_huge_and_tiny_numbers_in_single_precision(kind: Any, scales: tuple[float, ...]) -> None:
    for scale in scales:
        ones = weights((16, 12), (5, 700), dtype=torch.float32, scale=scale)
        others = copy.deepcopy(ones)
        lam = 0.05 * (scale if kind is RMDA else 1.0)
        one, other = (
            kind(ws, lr=0.1 * (1.0 if kind is RMDA else scale), penalty=GroupLasso(lam), fused=fused)
            for ws, fused in ((ones, True), (others, False))
        )
        for _ in range(4):
            step_both(one, other, ones, others, scale)
        assert distance(ones, others) < 1e-6, scale
        assert all(bool(w.isfinite().all()) for w in ones)


@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("lam", [0.0, 1e30])
def test_no_strength_keeps_and_a_huge_one_drops_everything(kind: Any, lam: float) -> None:
    ones = weights((12, 10), (4, 6, 3, 3))
    others = copy.deepcopy(ones)
    one, other = (kind(ws, penalty=GroupLasso(lam), fused=f) for ws, f in ((ones, True), (others, False)))
    for _ in range(3):
        step_both(one, other, ones, others)
    assert distance(ones, others) < 1e-12
    assert one.read_out().alive == (0 if lam else one.read_out().total) == other.read_out().alive
    assert one.read_out().residual == 0.0


@pytest.mark.parametrize("kind", PROXIMAL)
def test_dead_groups_single_entries_and_empty_tensors(kind: Any) -> None:
    ones = weights((1, 1), (0, 4), (3, 0), (5, 1), (1, 5), (6, 4))
    with torch.no_grad():
        ones[-1][:, 0] = 0.0
    others = copy.deepcopy(ones)
    one, other = (kind(ws, penalty=GroupLasso(0.01), fused=f) for ws, f in ((ones, True), (others, False)))
    for _ in range(3):
        for a, b in zip(ones, others, strict=True):
            a.grad = torch.randn_like(a)
            if a.numel():
                a.grad[:, 0] = 0.0
            b.grad = a.grad.clone()
        one.step()
        other.step()
    assert distance(ones, others) < 1e-12
    assert not ones[-1][:, 0].any()
    found, expected = one.read_out(), other.read_out()
    assert (found.alive, found.total, found.residual) == (expected.alive, expected.total, pytest.approx(0, abs=1e-12))
    assert [s.kept.shape for s in one.structures().values()] == [s.kept.shape for s in other.structures().values()]


@pytest.mark.parametrize("kind", PROXIMAL)
def test_weights_that_change_their_order_of_memory_leave_their_state_behind(kind: Any) -> None:
    (param,) = weights((6, 8, 3, 3))
    optimizer = kind([param], penalty=GroupLasso(0.02), fused=True)
    param.grad = torch.randn_like(param)
    optimizer.step()
    assert is_fused(optimizer)
    param.data = param.detach().to(memory_format=torch.channels_last)
    assert not is_fused(optimizer)
    for name, state in optimizer.state[param].items():
        if state.shape == param.shape:
            optimizer.state[param][name] = state.to(memory_format=torch.channels_last)
    assert is_fused(optimizer)


@pytest.mark.parametrize("kind", PROXIMAL)
def test_weights_in_any_order_of_memory(kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 8, 3, 3, generator=generator, dtype=torch.float64)
    for memory in (torch.channels_last, torch.contiguous_format):
        for grads in (torch.channels_last, torch.contiguous_format):
            ones = [nn.Parameter(kernel.clone(memory_format=memory)), nn.Parameter(kernel[0, :, 0].clone().t())]
            others = [nn.Parameter(w.detach().contiguous()) for w in ones]
            one, other = (
                kind(ws, lr=0.1, penalty=GroupLasso(0.1), fused=f) for ws, f in ((ones, True), (others, False))
            )
            for time in range(3):
                for a, b in zip(ones, others, strict=True):
                    b.grad = (time + 1) * b.detach().sin()
                    a.grad = b.grad.contiguous(memory_format=grads) if a.ndim == 4 else b.grad
                assert is_fused(one)
                one.step()
                other.step()
            assert distance(ones, others) < 1e-12
            assert one.read_out().alive == other.read_out().alive


@pytest.mark.parametrize("kind", [RAMDA, RMDA])
@pytest.mark.parametrize("options", [{"maximize": True}, {"weight_decay": 0.1}, {"lr": torch.tensor(0.05)}])
def test_options_of_the_gradient(kind: Any, options: dict[str, Any]) -> None:
    ones = weights((30, 20), (50,))
    others = copy.deepcopy(ones)
    one, other = (kind(ws, fused=f, **options) for ws, f in ((ones, True), (others, False)))
    for _ in range(4):
        step_both(one, other, ones, others)
    assert distance(ones, others) < 1e-12


def coupled_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(),
        nn.Linear(6, 2),
    ).double()  # fmt: skip


@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("side", ["consumers", "producers"])
def test_couplings(kind: Any, side: Any) -> None:
    one_model = coupled_model()
    other_model = copy.deepcopy(one_model)
    one, other = (
        kind(regularize(model, GroupLasso(0.05), torch.zeros(2, 3, 6, 6).double(), side), lr=0.1, fused=fused)
        for model, fused in ((one_model, True), (other_model, False))
    )
    ones, others = list(one_model.parameters()), list(other_model.parameters())
    for _ in range(6):
        step_both(one, other, ones, others)
        assert one.read_out().alive == other.read_out().alive
    assert distance(ones, others) < 1e-12
    found, expected = one.structures(), other.structures()
    for a, b in zip(ones, others, strict=True):
        assert (a in found) == (b in expected)
        assert a not in found or torch.equal(found[a].kept, expected[b].kept)
    with one.structured(), other.structured():
        assert distance(ones, others) < 1e-12


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"momentum": 0.0}, {"maximize": True}])
def test_factors(depth: int, options: dict[str, Any]) -> None:
    ones = weights((30, 20), (4, 5, 3, 3), (7,))
    others = copy.deepcopy(ones)
    built: list[FactorizedSGD] = []
    for ws, fused in ((ones, True), (others, False)):
        torch.manual_seed(1)
        built.append(FactorizedSGD(ws, lr=0.05, depth=depth, lam=1e-3, fused=fused, **options))
    for _ in range(5):
        step_both(built[0], built[1], ones, others)
    assert is_fused(built[0])
    assert not is_fused(built[1])
    assert distance(ones, others) < 1e-12
    for a, b in zip(built[0].factors().values(), built[1].factors().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    # What another process would make of the factors.
    assert all(torch.equal(product(*factors), weight) for weight, factors in built[0].factors().items())


# -- the promises ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PROXIMAL, FactorizedSGD])
@pytest.mark.parametrize("capturable", [None, True])
@pytest.mark.parametrize("bad", [nan, inf])
def test_a_bad_gradient_changes_nothing(kind: Any, capturable: bool | None, bad: float) -> None:
    params = weights((8, 6), (5, 4))
    optimizer = kind(params, capturable=capturable, fused=True)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    before = copy.deepcopy((params, list(optimizer.state.values())))
    assert params[0].grad is not None
    params[0].grad[0, 0] = bad
    optimizer.step()
    for now, then in zip(params, before[0], strict=True):
        assert torch.equal(now, then)
    for now, then in zip(optimizer.state.values(), before[1], strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)
    assert optimizer.skipped == 1


@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("penalty", [GroupLasso(0.1), L1(0.1)])
@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_gradient_at_the_first_step_drops_nothing(kind: Any, penalty: Penalty, fused: bool) -> None:
    (param,) = params = with_gradients((4, 5))
    with torch.no_grad():
        param[:, 0] = 0.0
    optimizer = kind(params, penalty=penalty, capturable=True, fused=fused)
    assert param.grad is not None
    param.grad[0, 0] = nan
    optimizer.step()
    (structure,) = optimizer.structures().values()
    assert torch.equal(structure.kept, param.any(0) if isinstance(penalty, GroupLasso) else param != 0)
    assert (optimizer.read_out().steps_unchanged, optimizer.skipped) == (0, 1)
    param.grad.fill_(1.0)
    optimizer.step()
    assert (optimizer.param_groups[0]["step"], optimizer.skipped) == (1, 1)


@pytest.mark.parametrize("kind", PROXIMAL)
def test_resumes_to_the_same_bits(kind: Any, tmp_path: Path) -> None:
    params = weights((20, 10), (4, 6, 3, 3))
    optimizer = kind(params, penalty=GroupLasso(0.02), fused=True)
    generator = torch.Generator().manual_seed(0)
    grads = [[torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params] for _ in range(8)]

    def train(some: Any, its_params: list[nn.Parameter], rounds: list[list[Tensor]]) -> None:
        for these in rounds:
            for param, grad in zip(its_params, these, strict=True):
                param.grad = grad
            some.step()

    train(optimizer, params, grads[:4])
    torch.save((params, optimizer.state_dict()), tmp_path / "saved.pt")
    train(optimizer, params, grads[4:])
    torch.serialization.add_safe_globals([nn.Parameter])
    again, state = torch.load(tmp_path / "saved.pt", weights_only=True)
    resumed = kind(again, penalty=GroupLasso(0.02), fused=True)
    resumed.load_state_dict(state)
    train(resumed, again, grads[4:])
    assert all(torch.equal(a, b) for a, b in zip(params, again, strict=True))
    assert is_fused(resumed)


@pytest.mark.parametrize(("kind", "dtype"), [(RAMDA, torch.float32), (RMDA, torch.float64)])
def test_threads_make_no_difference(kind: Any, dtype: torch.dtype) -> None:
    results: list[list[Tensor]] = []
    for threads in (1, 2):
        torch.manual_seed(3)
        torch.set_num_threads(threads)
        try:
            params = weights((700, 600), (3, 9), dtype=dtype)
            optimizer = kind(params, penalty=GroupLasso(0.02), fused=True)
            for _ in range(3):
                for param in params:
                    param.grad = torch.randn_like(param)
                optimizer.step()
        finally:
            torch.set_num_threads(1)
        results.append([param.detach() for param in params])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def trained(seed: int, threads: int) -> list[Tensor]:
    """Weights after a few fused steps, which are several chunks of work, and of which torch shares out no operation."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(seed)
    params = [nn.Parameter(torch.randn(100, 300, generator=generator, dtype=torch.float64)) for _ in range(20)]
    optimizer = RAMDA(params, lr=0.1, penalty=GroupLasso(0.05), fused=True)
    for _ in range(4):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        optimizer.step()
    assert is_fused(optimizer)
    return [param.detach() for param in params]


def equal(ones: list[Tensor], others: list[Tensor]) -> bool:
    return all(map(torch.equal, ones, others))


def test_two_threads_may_train_at_once() -> None:
    alone = [trained(seed, threads=1) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(partial(trained, threads=2), (0, 1)))
    torch.set_num_threads(1)
    assert all(map(equal, alone, together))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork")
def test_a_forked_process_takes_steps_with_threads_of_its_own() -> None:
    before = trained(0, threads=2)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if equal(trained(0, threads=2), before) else 1)
    torch.set_num_threads(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("kind", "dtype"), [(RAMDA, torch.float32), (RMDA, torch.float64)])
def test_zeros_of_structured_weights_are_those_that_the_step_kept(kind: Any, dtype: torch.dtype) -> None:
    """Also where a group lies on the threshold, on which plain torch and the kernel may not agree."""
    params = weights((64, 300), dtype=dtype)
    optimizer = kind(params, lr=0.1, penalty=GroupLasso(0.05), fused=True)
    for _ in range(20):
        params[0].grad = params[0].detach() + 0.1 * torch.randn_like(params[0])
        optimizer.step()
        with optimizer.structured():
            assert torch.equal(params[0].any(0), optimizer.structures()[params[0]].kept)
    optimizer.param_groups[0]["averaging"] = 1.0
    optimizer.step()
    before = params[0].detach().clone()
    optimizer.settle_()
    torch.testing.assert_close(params[0].detach(), before, rtol=1e-6, atol=0)


def test_autograd_notices_a_fused_step() -> None:
    param = nn.Parameter(torch.randn(4, 4))
    optimizer = RAMDA([param], fused=True)
    loss = (param * param).sum()
    param.grad = torch.randn(4, 4)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("penalty", [GroupLasso(0.1), L1(0.1), None])
def test_a_step_that_never_waits_asks_torch_for_no_more_where_there_are_more_weights(
    penalty: Any, operations: Callable[[Callable[[], object]], int]
) -> None:
    counts: list[int] = []
    for number in (2, 12):
        params = with_gradients(*[(3, 4)] * number)
        optimizer = RAMDA(params, penalty=penalty, capturable=True, fused=True)
        optimizer.step()
        counts.append(operations(optimizer.step))
    assert counts[0] == counts[1]


def test_what_is_kept_is_told_again_after_a_load_in_another_order_of_memory() -> None:
    (param,) = params = weights((3, 4, 2, 2))
    optimizer = RAMDA(params, penalty=L1(0.3), fused=True)
    for time in range(3):
        if time == 2:
            saved = copy.deepcopy(optimizer.state_dict())
            saved["state"][0]["kept"] = saved["state"][0]["kept"].contiguous(memory_format=torch.channels_last)
            optimizer.load_state_dict(saved)
        param.grad = param.detach().sin()
        optimizer.step()
    with optimizer.structured():
        assert torch.equal(optimizer.structures()[param].kept, param != 0)
        assert 0 < optimizer.read_out().alive < param.numel()


# -- what is remembered ---------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each plan that is turned into tables from now on."""
    found: list[None] = []
    make = tables.Tables

    def counted() -> tables.Tables:
        found.append(None)
        return make()

    monkeypatch.setattr(tables, "Tables", counted)
    return found


@pytest.mark.parametrize("case", ["factors", "shared penalty", "turns", "loaded"])
def test_plans_are_made_once(case: str, built: list[None]) -> None:
    params, penalty = weights((6, 4), (5, 3), (2, 7)), GroupLasso(0.1)
    optimizer: StructuredOptimizer
    remembered = 0
    if case == "factors":
        optimizer = FactorizedSGD(params, fused=True)
    elif case == "shared penalty":
        optimizer = RAMDA([{"params": params[:1]}, {"params": params[1:]}], penalty=penalty, fused=True)
    else:
        optimizer = RAMDA(params, penalty=penalty, fused=True)
    for time in range(12):
        for i, param in enumerate(params):
            param.grad = torch.ones_like(param) if case != "turns" or (i == 2) == time % 2 else None
        if time == 4:
            del built[:]
            remembered = len(tables._known)
        if case == "loaded" and time > 4:
            optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert not built
    assert len(tables._known) == remembered


def test_no_more_than_a_few_plans_are_remembered() -> None:
    params = weights(*((6, n) for n in range(1, 3 * MOST_PLANS)))
    optimizer = RAMDA(params, penalty=GroupLasso(0.1), fused=True)
    before = len(tables._known)
    for param in params:
        for other in params:
            other.grad = torch.ones_like(other) if other is param else None
        optimizer.step()
    assert len(tables._known) - before == MOST_PLANS


def test_a_method_without_newtons_needs_no_roots() -> None:
    for kind in PROXIMAL:
        (param,) = params = with_gradients((4, 5))
        optimizer = kind(params, penalty=GroupLasso(0.1), fused=True)
        optimizer.step()
        assert ("root" in optimizer.state[param]) == (kind is not RMDA)


# -- when -----------------------------------------------------------------------------------------------------------


def test_steps_are_plain_unless_asked() -> None:
    params, others = weights((6, 4)), weights((7, 3), (5,))
    optimizer, factored = RAMDA(params), FactorizedSGD(others)
    params[0].grad = torch.ones_like(params[0])
    assert not is_fused(optimizer)
    for kind in (optimizer, factored):
        assert all(group["fused"] is False for group in kind.param_groups)


def test_plain_sgd_stays_plain_beside_fused_factors() -> None:
    params = weights((7, 3), (5,))
    optimizer = FactorizedSGD(params, fused=True)
    assert [(group["depth"], group["fused"]) for group in optimizer.param_groups] == [(3, True), (1, False)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"foreach": True}, "beside foreach=True"),
        ({"foreach": False}, "beside foreach=False"),
        ({"compile": True}, "beside compile=True"),
        ({"penalty": GroupMCP(0.1)}, r"for GroupMCP\("),
        ({"penalty": Target(L1(1.0), 0.5)}, r"for Target\("),
        ({"dtype": torch.float16}, "of torch.float16 on the CPU"),
        ({"dtype": torch.bfloat16}, "of torch.bfloat16 on the CPU"),
    ],
)
def test_what_has_no_fused_step_says_why(forgetful: None, options: dict[str, Any], why: str) -> None:
    given = dict(options)
    (param,) = params = weights((6, 4), dtype=given.pop("dtype", torch.float64))
    with pytest.warns(UserWarning, match=f"^RAMDA: there is no fused step {why}.*; steps are taken in plain torch$"):
        optimizer = RAMDA(params, fused=True, **given)
    param.grad = torch.ones_like(param)
    assert not is_fused(optimizer)


def test_that_there_is_no_fused_step_is_said_once(forgetful: None) -> None:
    with pytest.warns(UserWarning, match="there is no fused step for GroupMCP"):
        RAMDA(weights((6, 4)), penalty=GroupMCP(0.1), fused=True)
    # Warnings are errors.
    RAMDA(weights((6, 4)), penalty=GroupMCP(0.1), fused=True)


def test_parameters_of_several_kinds_have_no_fused_step(forgetful: None) -> None:
    params = [*weights((6, 4)), *weights((6, 4), dtype=torch.float32)]
    with pytest.warns(UserWarning, match=r"^RMDA: there is no fused step for parameters of several kinds; steps are"):
        RMDA(params, fused=True)


def test_amsgrad_has_no_fused_step(forgetful: None) -> None:
    with pytest.warns(UserWarning, match=r"^ProxAdamW: there is no fused step with these options; steps are taken"):
        ProxAdamW(weights((6, 4)), amsgrad=True, fused=True)


def test_what_is_no_penalty_is_refused_as_that() -> None:
    wrong: Any = "lasso"
    with pytest.raises(TypeError, match="RAMDA: penalty must be an openwork penalty"):
        RAMDA(weights((6, 4)), penalty=wrong, fused=True)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing is loaded, kept on disk or said yet."""
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path))
    caches = (fused_kernels, cpu._failure, native._function, warn_once)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


def test_without_llvm_it_says_so_and_plain_steps_go_on(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    params = weights((6, 4))
    with pytest.warns(
        UserWarning,
        match=r"^RAMDA: there is no fused step on this machine, since llvmlite, which pip install 'openwork\[fused\]' "
        r"brings, or the package's own file is missing or broken \(ModuleNotFoundError: .*\); steps are taken in",
    ):
        optimizer = RAMDA(params, penalty=GroupLasso(0.1), fused=True)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


def test_with_a_damaged_package_it_says_so_and_plain_steps_go_on(
    forgetful: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = tmp_path / "loops.zip"
    with ZipFile(archive, "w") as file:
        file.writestr("digest", lowering.digest())
        file.writestr("float64-ramda.json", "{")
    monkeypatch.setattr(lowering, "ARCHIVE", archive)
    monkeypatch.setitem(sys.modules, "numba", None)
    params = weights((6, 4))
    with pytest.warns(
        UserWarning,
        match=r"^RAMDA: there is no fused step .*\(RuntimeError: loops\.zip is damaged .*\); steps are taken",
    ):
        optimizer = RAMDA(params, penalty=GroupLasso(0.1), fused=True)
    params[0].grad = torch.ones_like(params[0])
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [inf, -inf, nan])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(bad: float, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    tensors = [torch.full((n,), largest, dtype=dtype) for n in (1, 7, tables.CHUNK_ENTRIES + 9)]
    tensors.append(torch.zeros(2, 5, 3, 3, dtype=dtype).to(memory_format=torch.channels_last))
    assert all_finite(tensors) is True
    for tensor in tensors:
        numbers = tensor.as_strided((tensor.numel(),), (1,))
        for place in {0, len(numbers) // 2, len(numbers) - 1}:
            before = float(numbers[place])
            numbers[place] = bad
            assert all_finite(tensors) is False
            numbers[place] = before


def test_of_tensors_with_gaps_or_of_two_kinds_no_kernel_says_whether_they_are_finite() -> None:
    assert all_finite([torch.zeros(4, 4)[:, :2]]) is None
    assert all_finite([torch.zeros(4), torch.zeros(4, dtype=torch.float64)]) is None
    assert all_finite([torch.zeros(4, dtype=torch.bfloat16)]) is None


@pytest.mark.parametrize("kind", [*PROXIMAL, FactorizedSGD])
def test_plain_steps_do_not_ask_for_kernels(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would import llvmlite; that ``openwork.optim`` does not is in tests/test_public_api.py."""

    def never(device: str) -> None:
        raise AssertionError(device)

    monkeypatch.setattr("openwork.optim.fused.fused_kernels", never)
    params = weights((3, 4), (5,))
    optimizer = kind(params)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    with optimizer.structured():
        pass
    with pytest.raises(AssertionError, match="cpu"):
        kind(weights((3, 4)), fused=True)


def test_numba_is_not_needed(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert is_fused(RAMDA(with_gradients((6, 4)), fused=True))


def test_machine_code_is_kept(forgetful: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    native.function("float64", "factorized_sgd_2")
    (file,) = tmp_path.iterdir()
    native._function.cache_clear()

    def never(precision: str, method: str) -> None:
        raise AssertionError(precision, method)

    monkeypatch.setattr(native, "loop", never)
    assert native.function("float64", "factorized_sgd_2") is not None
    # A file that was cut short is as good as none.
    file.write_bytes(file.read_bytes()[:-1])
    native._function.cache_clear()
    with pytest.raises(AssertionError, match="factorized_sgd_2"):
        native.function("float64", "factorized_sgd_2")


def test_a_folder_that_cannot_be_written_is_no_error(
    forgetful: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("OPENWORK_CACHE", str(blocked / "folder"))
    header: dict[str, Any] = {"symbol": "step", "arguments": []}
    native._write(native.cache_folder() / "some.o", header, b"code")
    assert native._read(native.cache_folder() / "some.o") is None
    # Nor is one in which a file cannot get its name; what was written of it is taken away.
    (tmp_path / "some.o").mkdir()
    native._write(tmp_path / "some.o", header, b"code")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "some.o"}
    assert json.loads(json.dumps(header)) == header
