"""The compiled step. Compiling takes seconds each, so all of it is slow; `make test-quick` leaves it out."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from openwork.optim import RAMDA, RMDA, OriginalProxSGD, ProxAdamW, ProxSGD, Stages
from openwork.partitions import Blocks
from openwork.penalties import L1, GroupLasso, GroupMCP, Nonnegative, NuclearNorm, Penalty, SparseGroupLasso

pytestmark = [
    pytest.mark.slow,
    # torch's own compiler still uses what torch deprecates.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]

# torch's own backend takes about ten seconds for each; what is captured as one graph is compiled alike.
CASES = [
    (RMDA, GroupLasso(0.1), "inductor"),
    (RAMDA, SparseGroupLasso(0.1), "inductor"),
    (partial(ProxAdamW, amsgrad=True, weight_decay=0.1), None, "inductor"),
    *((kind, GroupLasso(0.1), "eager") for kind in (RAMDA, ProxSGD, OriginalProxSGD, ProxAdamW)),
    (RAMDA, L1(0.1), "eager"),
    (RAMDA, GroupLasso(0.1, Blocks((2, 1))), "eager"),
    (RAMDA, Nonnegative(GroupLasso(0.1)), "eager"),
    (RAMDA, GroupMCP(0.1), "eager"),
    (RAMDA, NuclearNorm(3.0), "eager"),
    (RMDA, NuclearNorm(0.3), "eager"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")


@pytest.mark.parametrize(("kind", "penalty", "backend"), CASES)
def test_agrees_with_eager_through_stages_and_compiles_once(
    kind, penalty: Penalty | None, backend: str, through: Callable[[str], None]
) -> None:
    through(backend)
    eager = [nn.Parameter(torch.randn(n, 6)) for n in (4, 4, 8)]
    with torch.no_grad():
        for param in eager:
            param[:, ::2] *= 0.01
    compiled = copy.deepcopy(eager)
    one, other = kind(eager, penalty=penalty), kind(compiled, penalty=penalty, compile=True)
    for optimizer in (one, other):
        Stages(optimizer, [4])
    generator = torch.Generator().manual_seed(0)
    for time in range(10):
        for param, twin in zip(eager, compiled, strict=True):
            noise = torch.randn(param.shape, generator=generator)
            param.grad = param.detach() * (1 + 0.5 * noise)
            twin.grad = twin.detach() * (1 + 0.5 * noise)
        one.step()
        other.step()
        if time == 0:
            torch.compiler.set_stance("fail_on_recompile")
        assert one.read_out().alive == other.read_out().alive
        for param, twin in zip(eager, compiled, strict=True):
            assert (param - twin).norm() <= 1e-6 * param.norm()
            assert torch.equal(param != 0, twin != 0)
    if penalty is not None:
        # Some vanish, some do not.
        assert 0 < one.read_out().alive < one.read_out().total


def test_many_optimizers_in_one_process_compile(through: Callable[[str], None]) -> None:
    through("eager")
    for length in range(1, 11):
        params = [nn.Parameter(torch.ones(2)) for _ in range(length)]
        optimizer = ProxSGD(params, lr=1.0, averaging=1.0, compile=True)
        for param in params:
            param.grad = torch.ones(2)
        optimizer.step()
        assert not any(param.any() for param in params)
