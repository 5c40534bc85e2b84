import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.optim import RAMDA, RMDA, OriginalProxSGD, ProxAdamW, ProximalOptimizer, ProxSGD, regularize
from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import L1, GroupLasso, NuclearNorm, Penalty, Zero

CLASSES = [RMDA, RAMDA, ProxSGD, OriginalProxSGD, ProxAdamW]
PARTITIONS = [Elements(), Slices(0), Slices(1), Slices(-1), Blocks((2, 4)), Heads(4), Heads(2, 1)]


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, dtype=torch.float64))


def with_small_groups(weight: nn.Parameter, groups: Partition) -> nn.Parameter:
    """Every other group starts close to zero."""
    grid = groups.grid(weight.shape)
    small = torch.arange(prod(grid)).view(grid) % 2 == 0
    weight.data[groups.spread(small, weight)] *= 0.01
    return weight


def train(optimizer: ProximalOptimizer, steps: int = 5, seed: int = 0) -> None:
    """Noisy steps towards zero, with small gradients at small weights."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for p in group["params"]:
                noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.grad = (p.detach() * (1 + 0.5 * noise)).to(p.dtype)
        optimizer.step()


# -- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entries", [1, 20, 100])
@pytest.mark.parametrize("groups", PARTITIONS, ids=repr)
@pytest.mark.parametrize("kind", [RMDA, RAMDA, OriginalProxSGD])
def test_cut_into_pieces_a_step_is_the_same(monkeypatch, kind, groups: Partition, entries: int) -> None:
    whole = [with_small_groups(param(n, 8), groups) for n in (16, 8, 4)]
    pieces = copy.deepcopy(whole)
    penalty = GroupLasso(0.1, groups)
    one, other = kind(whole, penalty=penalty), kind(pieces, penalty=penalty)
    train(one)
    monkeypatch.setattr("openwork.optim.base.CPU_ENTRIES", entries)
    train(other)
    assert 0 < one.read_out().alive < one.read_out().total
    assert other.read_out().alive == one.read_out().alive
    assert other.read_out().residual == pytest.approx(one.read_out().residual, abs=1e-14)
    for p, q in zip(whole, pieces, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
        assert torch.equal(one.structures()[p].kept, other.structures()[q].kept)
    with one.structured(), other.structured():
        for p, q in zip(whole, pieces, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
            assert torch.equal(p != 0, q != 0)
            assert torch.equal(one.structures()[p].kept, groups.any(q))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_free_parameter_cut_into_pieces_is_the_same(monkeypatch, kind) -> None:
    whole = param(16, 8)
    pieces = copy.deepcopy(whole)
    train(kind([whole]))
    monkeypatch.setattr("openwork.optim.base.CPU_ENTRIES", 20)
    train(kind([pieces]))
    torch.testing.assert_close(whole, pieces, rtol=1e-13, atol=1e-13)


def test_a_matrix_penalty_is_never_cut(monkeypatch) -> None:
    whole = param(16, 8)
    pieces = copy.deepcopy(whole)
    train(RAMDA([whole], penalty=NuclearNorm(0.1)))
    monkeypatch.setattr("openwork.optim.base.CPU_ENTRIES", 20)
    train(RAMDA([pieces], penalty=NuclearNorm(0.1)))
    assert torch.equal(whole, pieces)


# -- read-out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_read_out_counts_groups_and_steps(kind) -> None:
    weight, bias = param(6, 4), param(6)
    optimizer = kind([{"params": [weight], "penalty": GroupLasso(1e6)}, {"params": [bias]}])
    before = optimizer.read_out()
    assert (before.alive, before.total, before.residual, before.steps_unchanged, before.skipped) == (4, 4, 0, 0, 0)
    train(optimizer, 4)
    seen = optimizer.read_out()
    # The first step finds the structure, three more confirm it.
    assert (seen.alive, seen.total, seen.residual, seen.steps_unchanged, seen.skipped) == (0, 4, 0, 3, 0)
    optimizer.param_groups[0]["penalty_scale"] = 0.0
    if kind is RMDA:
        train(optimizer, 1)
        assert (optimizer.read_out().alive, optimizer.read_out().steps_unchanged) == (4, 0)


def test_read_out_without_a_penalty_is_empty() -> None:
    optimizer = RMDA([param(3)])
    train(optimizer)
    seen = optimizer.read_out()
    assert (seen.alive, seen.total, seen.residual) == (0, 0, 0)
    assert optimizer.structures() == {}


def test_residual_is_in_units_of_the_gradient() -> None:
    from openwork.penalties import ProximalGradient

    rough = ProximalGradient(GroupLasso(0.1), tolerance=1e-9, max_iterations=2)
    weight = param(6, 4)
    optimizer = RAMDA([weight], penalty=rough)
    train(optimizer, 10)
    assert 1e-9 < optimizer.read_out().residual < 10


def test_rank_comes_from_the_last_solve() -> None:
    weight = param(6, 4)
    optimizer = RMDA([weight], penalty=NuclearNorm(0.8), lr=1.0)
    train(optimizer, 5)
    with optimizer.structured():
        rank = int(torch.linalg.matrix_rank(weight.detach()))
    assert optimizer.structures()[weight].kept.sum() == rank == optimizer.read_out().alive
    assert 0 < rank < 4


def test_structure_before_the_first_step_is_that_of_the_weight() -> None:
    weight = param(6, 4)
    with torch.no_grad():
        weight[:, 1] = 0
    assert RMDA([weight], penalty=GroupLasso(0.1)).structures()[weight].kept.tolist() == [True, False, True, True]


# -- structured weights ---------------------------------------------------------------------------------------------


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.mark.parametrize("kind", [RMDA, RAMDA])
def test_structured_is_nothing_before_the_first_step_of_a_stage(kind) -> None:
    weight = param(6, 4)
    optimizer = kind([weight], penalty=GroupLasso(0.5))
    train(optimizer)
    optimizer.restart()
    before = weight.detach().clone()
    with optimizer.structured():
        assert torch.equal(weight, before)
    optimizer.settle_()
    assert torch.equal(weight, before)


def test_settle_warns_while_averaging_is_below_one() -> None:
    weight = param(6, 4)
    optimizer = RMDA([weight], penalty=GroupLasso(0.5), averaging=0.25)
    optimizer.settle_()
    train(optimizer)
    with pytest.warns(UserWarning, match=r"RMDA.settle_\(\): averaging is 0.25, not 1, so the structured weights may"):
        optimizer.settle_()
    settled = ProxSGD([weight], penalty=GroupLasso(0.5))
    train(settled)
    settled.settle_()


def test_training_goes_on_from_settled_weights() -> None:
    weight = with_small_groups(param(6, 4), Slices(1))
    optimizer = RMDA([weight], penalty=GroupLasso(0.1), averaging=0.25)
    train(optimizer, 8)
    with quiet():
        optimizer.settle_()
    settled = weight.detach().clone()
    assert (settled == 0).any()
    train(optimizer, 1, seed=1)
    with optimizer.structured():
        point = weight.detach().clone()
    torch.testing.assert_close(weight.detach(), 0.75 * settled + 0.25 * point)


def test_half_precision_has_exact_zeros_too() -> None:
    weight = nn.Parameter(with_small_groups(param(6, 4), Slices(1)).bfloat16().detach())
    optimizer = RAMDA([weight], penalty=GroupLasso(0.1))
    train(optimizer, 8)
    with optimizer.structured():
        alive = (weight != 0).any(0)
    assert torch.equal(alive, optimizer.structures()[weight].kept)
    assert 0 < alive.sum() < 4
    with quiet():
        optimizer.settle_()
    assert torch.equal((weight != 0).any(0), alive)
    assert torch.equal(optimizer.state[weight]["master"].bfloat16(), weight)


def test_several_penalties_live_side_by_side() -> None:
    first, second, free = param(6, 4), param(6, 4), param(4)
    optimizer = RAMDA(
        [{"params": [first], "penalty": GroupLasso(1e6)}, {"params": [second], "penalty": L1(0.0)}, {"params": [free]}]
    )
    train(optimizer)
    with optimizer.structured():
        assert not first.any() and second.all() and free.all()
    assert list(optimizer.structures()) == [first, second]


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", ["lr", "weight_decay", "penalty_scale"])
def test_negative_options_are_refused_and_leave_no_group(kind, name: str) -> None:
    optimizer = kind([param(2)])
    with pytest.raises(ValueError, match=rf"{kind.__name__}: {name} must be at least 0.*, got -1"):
        optimizer.add_param_group({"params": [param(2)], name: -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"penalty": 0.1}, TypeError, r"RMDA: penalty must be an openwork penalty such as GroupLasso\(1e-3\), got 0.1"),
        ({"penalty": GroupLasso(1.0, Slices(2))}, ValueError, r"RMDA: parameter 0 of shape \(6, 4\): Slices\(dim=2\)"),
        ({"penalty": GroupLasso(1.0, Heads(5))}, ValueError, r"6 is not a multiple of 5; choose a divisor or leave"),
        (
            {"penalty": GroupLasso(1.0, Heads(5)), "names": ["fc.weight"]},
            ValueError,
            r"RMDA: parameter 'fc.weight': Heads\(head_dim=5, dim=0\) does not tile",
        ),
        (
            {"params": [torch.ones(3, dtype=torch.int64)], "penalty": L1(1.0)},
            ValueError,
            r"RMDA: parameter 0 of shape \(3,\) is of type torch.int64 and cannot be penalized; leave it out",
        ),
        (
            {"params": [nn.Parameter(torch.ones(3), requires_grad=False)], "penalty": L1(1.0)},
            ValueError,
            r"RMDA: parameter 0 of shape \(3,\) is frozen and cannot be penalized; leave it out",
        ),
    ],
)
def test_a_penalty_that_does_not_fit_is_refused(group: dict[str, Any], error, message: str) -> None:
    with pytest.raises(error, match=message):
        RMDA([{"params": [param(6, 4)], **group}])


def test_names_are_those_torch_gives() -> None:
    layer = nn.Linear(4, 6)
    with pytest.raises(ValueError, match=r"RMDA: parameter 'weight': Heads"):
        RMDA(layer.named_parameters(), penalty=GroupLasso(1.0, Heads(5)))


def test_a_sparse_gradient_names_its_layer() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 2))
    optimizer = RMDA(regularize(model, GroupLasso(0.1)))
    model(torch.tensor([1, 2])).sum().backward()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"RMDA: the gradient of parameter '0.weight' is sparse; make its layer dense"):
        optimizer.step()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


@pytest.mark.parametrize("kind", CLASSES)
def test_weight_decay_beside_a_penalty_warns(kind) -> None:
    with pytest.warns(UserWarning, match=rf"{kind.__name__}: weight_decay=0.1 beside L1\(lam=1.0\) biases the zeros"):
        kind([param(3)], penalty=L1(1.0), weight_decay=0.1)
    kind([param(3)], weight_decay=0.1)


@pytest.mark.parametrize("kind", [RMDA, RAMDA, ProxSGD, OriginalProxSGD])
def test_weight_decay_is_added_to_the_gradient(kind) -> None:
    plain, decayed = param(3), param(3)
    decayed.data.copy_(plain.data)
    one, other = kind([plain]), kind([decayed], weight_decay=0.5)
    for _ in range(5):
        plain.grad = 1 + 0.5 * plain.detach()
        decayed.grad = torch.ones_like(decayed)
        one.step()
        other.step()
    torch.testing.assert_close(plain, decayed, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", CLASSES)
def test_penalty_scale_multiplies_the_strength(kind) -> None:
    scaled, strong = param(6, 4), param(6, 4)
    strong.data.copy_(scaled.data)
    train(kind([{"params": [scaled], "penalty_scale": 3.0}], penalty=GroupLasso(0.1)))
    train(kind([strong], penalty=GroupLasso(3.0 * 0.1)))
    torch.testing.assert_close(scaled, strong, rtol=1e-12, atol=1e-12)


# -- checkpoints ----------------------------------------------------------------------------------------------------


def test_state_of_other_shapes_is_refused_before_anything_changes() -> None:
    first, second = RMDA([param(6, 4)]), RMDA([param(4, 6)])
    train(first)
    train(second)
    before = copy.deepcopy(second.state_dict())
    message = r"RMDA: the state to load has shape \(6, 4\) as 'anchor' for a parameter of shape \(4, 6\); load it into"
    with pytest.raises(ValueError, match=message):
        second.load_state_dict(first.state_dict())
    assert second.state_dict()["param_groups"] == before["param_groups"]


def test_state_of_another_optimizer_is_refused() -> None:
    first, second = ProxSGD([param(6, 4)]), RAMDA([param(6, 4)])
    train(first)
    with pytest.raises(ValueError, match=r"RAMDA: the state to load has nothing as 'anchor'"):
        second.load_state_dict(first.state_dict())


def test_state_of_more_groups_is_refused() -> None:
    first, second = RMDA([{"params": [param(2)]}, {"params": [param(2)]}]), RMDA([param(2)])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        second.load_state_dict(first.state_dict())


def test_the_penalty_is_configuration_and_not_state() -> None:
    weight = param(6, 4)
    optimizer = RMDA([weight], penalty=GroupLasso(0.1))
    train(optimizer)
    saved = optimizer.state_dict()
    assert not any(isinstance(value, Penalty) for group in saved["param_groups"] for value in group.values())
    other = RMDA([weight], penalty=GroupLasso(0.2, Heads(2)))
    other.load_state_dict(saved)
    assert other.param_groups[0]["penalty"] == GroupLasso(0.2, Heads(2))
    # Its groups are others: the structure is found anew.
    train(other, 1)
    assert other.structures()[weight].kept.shape == (3,)


def test_without_a_penalty_there_is_zero() -> None:
    assert RMDA([param(2)]).param_groups[0]["penalty"] == Zero()


@pytest.mark.parametrize("kind", CLASSES)
def test_a_first_step_in_a_capture_is_refused_and_leaves_nothing(monkeypatch, kind) -> None:
    first, second = param(3, 2), param(2, 3)
    optimizer = kind([first, second], penalty=GroupLasso(0.1), capturable=True)
    first.grad = torch.ones_like(first)
    before = first.detach().clone()
    monkeypatch.setattr("openwork.optim.base.capturing", lambda device: True)
    with pytest.raises(RuntimeError, match=r"the first step of parameter 0 of shape \(3, 2\) was captured"):
        optimizer.step()
    assert torch.equal(first, before)
    assert not optimizer.state
    assert optimizer.param_groups[0]["step"] == 0
    monkeypatch.undo()
    optimizer.step()
    monkeypatch.setattr("openwork.optim.base.capturing", lambda device: True)
    optimizer.step()
    second.grad = torch.ones_like(second)
    with pytest.raises(
        RuntimeError, match=r"parameter 1 .* was captured, which would begin anew at every replay; take one step"
    ):
        optimizer.step()
    assert optimizer.param_groups[0]["step"] == 2


def test_state_can_be_made_ahead() -> None:
    weight, twin = param(6, 4), param(6, 4)
    twin.data.copy_(weight.data)
    early, late = RAMDA([weight], penalty=L1(0.1)), RAMDA([twin], penalty=L1(0.1))
    early.init_state()
    assert torch.equal(early.state[weight]["anchor"], weight)
    assert not early.state[weight]["grad_sum"].any()
    train(early)
    train(late)
    assert torch.equal(weight, twin)


@pytest.mark.parametrize("kind", CLASSES)
def test_lists_of_scalars_in_groups_are_plain_numbers(kind) -> None:
    optimizer = kind([param(6, 4)], penalty=GroupLasso(0.1))
    train(optimizer)
    for group in optimizer.state_dict()["param_groups"]:
        for name, value in group.items():
            assert isinstance(value, float | int | bool | tuple | list | Tensor | None), name
