"""A penalty by its subgradient: the formula, no zeros, and what cutting leaves."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from openwork.baselines import Subgradient
from openwork.penalties import L1, GroupLasso, Penalty
from tests.baselines.loop import batch, best, kept, network, sgd, started, step, weights


def subgradient(kind: str, lam: float, weight: Tensor) -> Tensor:
    """The definitions, entry by entry and column by column; zero at zero."""
    if kind == "l1":
        return lam * weight.sign()
    result = torch.zeros_like(weight)
    for j in range(weight.shape[1]):
        norm = weight[:, j].norm()
        if norm > 0:
            result[:, j] = lam * weight.shape[0] ** 0.5 * weight[:, j] / norm
    return result


@pytest.mark.parametrize(("kind", "penalty"), [("l1", L1(0.02)), ("groups", GroupLasso(0.02))])
def test_steps_are_those_of_the_penalized_loss(kind: str, penalty: Penalty) -> None:
    pruning, plain = started(Subgradient(penalty), 20), network()
    with torch.no_grad():
        for model in (pruning.model, plain):
            model.get_parameter("0.weight")[:, 2] = 0.0  # a group at zero
    optimizer = sgd(plain)
    for number in range(20):
        step(pruning, batch(number))
        optimizer.zero_grad()
        cross_entropy(plain(batch(number)[0]), batch(number)[1]).backward()
        for p in plain.parameters():
            if p.ndim > 1 and p.grad is not None:
                p.grad += subgradient(kind, 0.02, p.detach())
        optimizer.step()
    for a, b in zip(pruning.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


class Repeating(SGD):
    """Evaluates its closure three times in a step, and remembers the gradients."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore
        assert closure is not None
        self.seen = [[closure(), *(p.grad.clone() for p in self.param_groups[0]["params"])][1:] for _ in range(3)]


def test_every_evaluation_of_a_closure_has_the_penalty() -> None:
    pruning = started(Subgradient(L1(0.1)), 3, make=lambda m: Repeating(m.parameters(), lr=0.0))
    parameters = list(pruning.model.parameters())
    plain = torch.autograd.grad(cross_entropy(pruning.model(batch(0)[0]), batch(0)[1]), parameters)

    def closure() -> float:
        pruning.optimizer.zero_grad()
        loss = cross_entropy(pruning.model(batch(0)[0]), batch(0)[1])
        loss.backward()
        return float(loss.detach())

    pruning.optimizer.step(closure)
    assert isinstance(pruning.optimizer, Repeating)
    assert len(pruning.optimizer.seen) == 3
    for grads in pruning.optimizer.seen:
        for p, grad, bare in zip(parameters, grads, plain, strict=True):
            torch.testing.assert_close(grad, bare + (0.1 * p.detach().sign() if p.ndim > 1 else 0.0))


def test_weights_are_small_and_never_zero() -> None:
    pruning, plain = started(Subgradient(L1(0.05)), 300), started(Subgradient(L1(0.0)), 300)
    for number in range(300):
        step(pruning, batch(number % 3))
        step(plain, batch(number % 3))
    pruning.settle_()
    ours, theirs = (torch.cat([w.flatten() for w in weights(p).values()]) for p in (pruning, plain))
    assert bool((ours != 0).all())
    assert float(ours.abs().median()) < 0.1 * float(theirs.abs().median())


def test_cutting_keeps_the_largest() -> None:
    pruning = started(Subgradient(L1(0.01), density=0.25), 10)
    for _ in range(10):
        step(pruning)
    magnitudes = {name: weight.abs() for name, weight in weights(pruning).items()}
    pruning.settle_()
    assert kept(pruning) == best(magnitudes, 18)


@pytest.mark.parametrize("density", [0.5, 0.4, 0.3])
def test_groups_are_cut_whole(density: float) -> None:
    pruning = started(Subgradient(GroupLasso(0.01), density=density), 10)
    for _ in range(10):
        step(pruning)
    groups = [
        (-float(weight[:, j].square().mean().sqrt()), name, j, weight.shape[0])
        for name, weight in weights(pruning).items()
        for j in range(weight.shape[1])
    ]
    expected: dict[str, set[int]] = {"0.weight": set(), "2.weight": set()}
    left = round(72 * density)
    for _, name, j, size in sorted(groups):
        left -= size
        if left < 0:
            break
        expected[name].add(j)
    pruning.settle_()
    assert pruning.masks.alive <= round(72 * density)
    assert pruning.masks.alive > round(72 * density) - 8
    for name, mask in pruning.masks.kept.items():
        assert bool((mask.all(0) == mask.any(0)).all())
        assert set(mask.any(0).nonzero().flatten().tolist()) == expected[name]


@pytest.mark.parametrize("penalty", [1e-3, None])
def test_what_is_no_penalty_is_refused(penalty: object) -> None:
    with pytest.raises(
        TypeError, match=r"Subgradient: penalty must be a penalty of one weight such as L1\(1e-4\), got"
    ):
        Subgradient(penalty)  # pyright: ignore[reportArgumentType]
