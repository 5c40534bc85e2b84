"""Steps of the codes computed in runs of rows, and compiled."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, Band, Coupling, Exact, QuadraticPenalty, Sign, activation_of, entrywise
from openwork.altmin.code_steps import joint_step
from openwork.altmin.entrywise import RUN, Compiled, eager, in_runs
from tests.altmin.tasks import labelled, network

NUMBERS = (0.1, 0.4, 0.2, 0.6, 0.1, 0.5)


def entries(rows: int, *, history: bool) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(rows)
    residual, z, z_before, a, a_before, pull = torch.randn(6, rows, 7, dtype=torch.float64, generator=generator)
    return [residual, z, z_before if history else None, a, a_before if history else None, pull]


@pytest.mark.parametrize("history", [True, False])
def test_runs_of_rows_give_what_all_rows_give(history: bool) -> None:
    given = entries(RUN // 3, history=history)
    copies = [None if x is None else x.clone() for x in given]
    activation = activation_of(nn.LeakyReLU(0.1))
    found = eager(joint_step, activation, NUMBERS, given)
    for one, other in zip(found, joint_step(activation, NUMBERS, *given), strict=True):  # pyright: ignore[reportArgumentType]
        assert torch.equal(one, other)
    assert all(x is None or torch.equal(x, y) for x, y in zip(given, copies, strict=True) if y is not None)


def test_runs_see_every_row_once() -> None:
    x = torch.randn(3 * RUN, 2)
    seen: list[int] = []

    def step(x: Tensor, none: None, labels: Tensor) -> tuple[Tensor]:
        assert none is None
        seen.append(len(x))
        return (x * labels[:, None],)

    labels = torch.arange(3 * RUN)
    (found,) = in_runs(step, x, None, labels)
    assert torch.equal(found, x * labels[:, None]) and len(seen) > 1 and sum(seen) == len(x)


def test_the_joint_step_is_the_formula() -> None:
    residual, z, z_before, a, a_before, pull = entries(50, history=True)
    assert z is not None and residual is not None and a is not None
    assert z_before is not None and a_before is not None and pull is not None
    rho, curvature, behind, p1, shift, p3 = NUMBERS
    activation = activation_of(nn.Tanh())
    d = a + p1 * (a - a_before) - behind * pull / (curvature * behind)
    c = residual + z + shift * (z - z_before)
    bar = activation.solve(c, d, rho, curvature * behind, z)
    expected = bar + p3 * (bar - z)
    code, point, rest = joint_step(activation, NUMBERS, residual, z, z_before, a, a_before, pull)
    torch.testing.assert_close(point, expected)
    torch.testing.assert_close(code, expected.tanh())
    torch.testing.assert_close(rest, residual + z - expected)


def test_without_a_compiler_it_warns_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Callable[..., Any]) -> Callable[..., Any]:
        def step(*_: object) -> None:
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nmore")

        return step

    monkeypatch.setattr(entrywise, "_compiled", broken)
    trainer = AMTrainer(network(), compile=True)
    trainer.start(*labelled())
    with pytest.warns(UserWarning, match=r"compile=True runs uncompiled, since .* no working C\+\+ compiler found$"):
        trainer.sweep()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        objective = trainer.sweep().objective
    plain = AMTrainer(network())
    plain.start(*labelled())
    plain.sweep()
    assert objective == plain.sweep().objective


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize(
    ("coupling", "make"),
    [
        (Exact(), nn.ReLU),
        (Exact(), nn.PReLU),
        (Exact(), nn.Hardtanh),
        (Exact(), nn.Tanh),
        (Exact(), nn.GELU),
        (Exact(), Sign),
        (QuadraticPenalty(0.3), nn.LeakyReLU),
        (Band(0.5, 0.9, 0.1), nn.ReLU),
    ],
    ids=["relu", "prelu", "hardtanh", "tanh", "gelu", "sign", "penalty", "band"],
)
def test_compiled_steps_are_the_eager_ones(coupling: Coupling, make: Callable[[], nn.Module]) -> None:
    torch.compiler.reset()
    objectives: list[list[float]] = []
    compiled = Compiled()
    for how in (eager, compiled):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), make(), nn.Linear(8, 7), make(), nn.Linear(7, 3)).double()
        trainer = AMTrainer(model, coupling=coupling)
        trainer.start(*labelled())
        for layer in trainer._started()[0].problem.layers:
            layer.entrywise = how
        objectives.append([trainer.sweep().objective for _ in range(6)])
    assert not compiled._failed
    torch.testing.assert_close(objectives[1], objectives[0], rtol=1e-8, atol=0)
