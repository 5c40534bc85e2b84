"""Solves under torch.compile, which take a fixed number of iterations, agree with eager ones."""

import pytest
import torch

from openwork.penalties import (
    L0,
    L1,
    DiagonalProx,
    GroupL0,
    GroupLasso,
    GroupSCAD,
    LHalf,
    Nonnegative,
    NuclearNorm,
    SparseGroupLasso,
    Target,
)

PENALTIES = [
    L1(0.5),
    L0(0.5),
    LHalf(0.5),
    GroupLasso(0.3),
    GroupL0(0.5),
    SparseGroupLasso(0.3),
    GroupSCAD(0.3),
    Nonnegative(GroupLasso(0.3)),
    NuclearNorm(1.5),
    Target(GroupLasso(0.3), 0.4),
]


# What is captured is one graph already; to take it apart into torch's basic operations takes five times as long.
@pytest.mark.parametrize(
    ("penalty", "backend"),
    [*((penalty, "eager") for penalty in PENALTIES), (L0(0.5), "aot_eager"), (GroupLasso(0.3), "aot_eager")],
    ids=str,
)
def test_one_graph_gives_the_same(penalty: DiagonalProx, backend: str) -> None:
    torch.compiler.reset()
    b = [torch.randn(8, 40), torch.randn(8, 40), torch.randn(3, 7)]
    d = [torch.exp(torch.randn_like(x)) for x in b]
    weight = torch.tensor(0.8, dtype=torch.float64)
    compiled = torch.compile(penalty.solve_, fullgraph=True, dynamic=False, backend=backend)
    eager, fixed = penalty.solve_(b, d, weight), compiled(b, d, weight)
    for one, other in zip(eager, fixed, strict=True):
        assert torch.equal(one.kept, other.kept)
        assert torch.equal(one.x == 0, other.x == 0)
        torch.testing.assert_close(one.x, other.x, rtol=1e-5, atol=1e-6)
        assert (one.x - other.x).norm() <= 1e-6 * one.x.norm()
