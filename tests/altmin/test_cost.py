"""Products per sweep, counted."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from openwork.altmin import (
    AMTrainer,
    Band,
    Coupling,
    Exact,
    MajorizedWeights,
    QuadraticPenalty,
    codes,
    red_black,
    weight_block,
)
from openwork.altmin.curvature import Step, majorized
from tests.altmin.tasks import labelled, network

WIDTHS = (5, 9, 8, 7, 3)
LAYERS = len(WIDTHS) - 1


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Multiplications of every matrix product of the size of a layer."""
    found: list[int] = []
    for name in ("mm", "matmul", "addmm"):
        true = getattr(torch, name)

        def counted(*args: Tensor, true: Callable[..., Tensor] = true, **kwargs: object) -> Tensor:
            left, right = args[-2:]
            if left.ndim == right.ndim == 2:
                found.append(left.shape[0] * left.shape[1] * right.shape[1])
            return true(*args, **kwargs)

        monkeypatch.setattr(torch, name, counted)
    return found


@pytest.fixture
def extras(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for every step that a line search threw away."""
    found: list[int] = []

    def counted(
        now: tuple[Tensor, ...],
        curvature: Tensor,
        step: Callable[[Tensor], tuple[Tensor, ...]],
        linear: Callable[[Tensor], Tensor],
    ) -> Step:
        tried: list[int] = []

        def watched(c: Tensor) -> tuple[Tensor, ...]:
            tried.append(1)
            return step(c)

        result = majorized(now, curvature, watched, linear)
        found.extend(tried[1:])
        return result

    monkeypatch.setattr(weight_block, "majorized", counted)
    monkeypatch.setattr(codes, "majorized", counted)
    return found


@pytest.mark.parametrize("coupling", [Exact(), QuadraticPenalty(), Band(0.5, 1.0)], ids=repr)
@pytest.mark.parametrize("p", [(0.0, 0.0, 0.0), (0.633, 0.633, 0.5), (0.5, 0.2, 0.3)])
def test_a_sweep_takes_the_fewest_products(
    products: list[int], extras: list[int], coupling: Coupling, p: tuple[float, float, float]
) -> None:
    trainer = AMTrainer(
        network(widths=WIDTHS),
        coupling=coupling,
        inertia=p,
        safeguard="none",
        balance=0,
        w_solver=MajorizedWeights(),
    )
    trainer.start(*labelled())
    trainer.sweep()
    sizes = [40 * a * b for a, b in pairwise(WIDTHS)]
    seen = 0
    for _ in range(8):
        products.clear()
        extras.clear()
        trainer.sweep()
        assert len(products) == 2 * LAYERS + 2 * (LAYERS - 1) + len(extras)
        if not extras:
            assert sum(products) == 2 * sum(sizes) + 2 * sum(sizes[1:])
            seen += 1
    assert seen >= 4


def test_red_black_costs_the_same(products: list[int], extras: list[int]) -> None:
    trainer = AMTrainer(
        network(widths=WIDTHS), order=red_black, safeguard="none", balance=0, w_solver=MajorizedWeights()
    )
    trainer.start(*labelled())
    for _ in range(3):
        trainer.sweep()
    products.clear()
    extras.clear()
    trainer.sweep()
    assert len(products) - len(extras) == 2 * LAYERS + 2 * (LAYERS - 1)


def test_solving_for_weights_costs_one_more_behind_the_first_layer(products: list[int], extras: list[int]) -> None:
    trainer = AMTrainer(network(widths=WIDTHS), safeguard="none", balance=0)
    trainer.start(*labelled())
    for _ in range(3):
        trainer.sweep()
    products.clear()
    extras.clear()
    trainer.sweep()
    assert len(products) - len(extras) == 2 * LAYERS + 3 * (LAYERS - 1)


def test_fresh_products_cost_two_more_per_hidden_layer(products: list[int], extras: list[int]) -> None:
    trainer = AMTrainer(
        network(widths=WIDTHS),
        coupling=Exact(fresh=True),
        w_solver=MajorizedWeights(fresh=True),
        safeguard="none",
        balance=0,
    )
    trainer.start(*labelled())
    for _ in range(3):
        trainer.sweep()
    products.clear()
    extras.clear()
    trainer.sweep()
    assert len(products) - len(extras) == 2 * LAYERS + 4 * (LAYERS - 1)
