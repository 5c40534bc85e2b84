"""The optimizer that holds the factors, against the factors in the model and against its definition."""

import copy

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations import Sampled, Split, UnitGate
from openwork.optim import FactorizedSGD

SHAPES = ((5, 4), (3, 4, 2, 2), (3,))


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def loss(params: list[Tensor], time: int) -> Tensor:
    """A smooth function that couples all weights and changes with time."""
    total = torch.zeros(())
    for param in params:
        target = torch.linspace(-1, 1, param.numel()).view(param.shape) * (1 + 0.1 * time)
        total = total + (param - target).square().sum() / 2
    return total + sum(p.square().sum() for p in params).square() / 100  # pyright: ignore[reportAttributeAccessIssue]


def in_the_model(depth: int, lam: float, steps: int, **options) -> list[Tensor]:
    """Transcription: factors as leaves, L2 on them, torch's SGD, autograd of the product."""
    generator = torch.Generator().manual_seed(7)
    params = weights()
    factors = [[nn.Parameter(f) for f in Sampled().factors(p, depth, generator)] if p.ndim > 1 else [p] for p in params]
    groups = [
        {"params": [f for fs in factors if len(fs) > 1 for f in fs], "weight_decay": 2 * lam / depth},
        {"params": [f for fs in factors if len(fs) == 1 for f in fs]},
    ]
    optimizer = torch.optim.SGD(groups, **options)

    def product(fs: list[nn.Parameter]) -> Tensor:
        result = fs[0] * 1.0
        for f in fs[1:]:
            result = result * f
        return result

    for time in range(steps):
        optimizer.zero_grad()
        for part in range(2):
            (loss([product(fs) for fs in factors], time + part) / 2).backward()
        optimizer.step()
    return [product(fs).detach() for fs in factors]


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "options", [{"momentum": 0.0}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}], ids=str
)
@pytest.mark.parametrize("foreach", [None, False])
def test_is_sgd_on_the_factors(depth: int, options: dict, foreach: bool | None) -> None:
    params = weights()
    optimizer = FactorizedSGD(
        params, lr=0.01, depth=depth, lam=0.05, generator=torch.Generator().manual_seed(7), foreach=foreach, **options
    )
    for time in range(100):
        optimizer.zero_grad()
        for part in range(2):
            (loss(list(params), time + part) / 2).backward()
        optimizer.step()
    wanted = in_the_model(depth, 0.05, 100, lr=0.01, **options)
    for got, want in zip(params, wanted, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_tied_is_a_balanced_start(depth: int, momentum: float) -> None:
    """Also the same as powerprop at learning rate lr / D and weight decay 2 lam."""
    one, other = weights(), weights()
    options = {"lr": 0.01, "depth": depth, "lam": 0.05, "momentum": momentum}
    optimizers = (
        FactorizedSGD(one, init=Split(imbalance=0.0), **options),
        FactorizedSGD(other, init=Split(imbalance=0.0), tied=True, **options),
    )
    roots = [nn.Parameter(p.detach().sign() * p.detach().abs() ** (1 / depth)) for p in weights()[:2]]
    free = weights()[2]
    power = torch.optim.SGD(
        [
            {"params": roots, "lr": 0.01 / depth, "weight_decay": 2 * 0.05},
            {"params": [free], "lr": 0.01},
        ],
        momentum=momentum,
    )
    for time in range(60):
        for optimizer, params in zip(optimizers, (one, other), strict=True):
            optimizer.zero_grad()
            loss(list(params), time).backward()
            optimizer.step()
        power.zero_grad()
        loss([r * r.abs() ** (depth - 1) for r in roots] + [free], time).backward()
        power.step()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-12)
    same = [(r * r.abs() ** (depth - 1)).detach() for r in roots]
    for a, b, start in zip(other[:2], same, weights()[:2], strict=True):
        # Powerprop and balanced factors part where an even power would change its sign.
        stays = a.detach().sign() == start.detach().sign()
        assert stays.double().mean() > 0.5
        if bool((b.sign() == start.detach().sign()).all()) or depth % 2:
            torch.testing.assert_close(a.detach(), b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("init", [Sampled(), UnitGate(), Split()])
def test_the_weight_is_the_product_of_its_factors_from_the_beginning(init) -> None:
    params = weights()
    before = [p.detach().clone() for p in params]
    optimizer = FactorizedSGD(params, depth=3, init=init)
    for param, factors in optimizer.factors().items():
        assert torch.equal(param.detach(), factors[0] * factors[1] * factors[2])
    assert torch.equal(params[2].detach(), before[2])
    if not isinstance(init, Sampled):
        torch.testing.assert_close([p.detach() for p in params], before, rtol=1e-14, atol=0)


def test_a_killed_run_goes_on_to_the_same_bits() -> None:
    params = weights()
    optimizer = FactorizedSGD(params, lr=0.02, lam=0.01)
    for time in range(3):
        optimizer.zero_grad()
        loss(list(params), time).backward()
        optimizer.step()
    saved = copy.deepcopy((optimizer.state_dict(), [p.detach() for p in params]))
    others = weights(1)
    other = FactorizedSGD(others, lr=0.5, lam=0.01)
    with torch.no_grad():
        for param, weight in zip(others, saved[1], strict=True):
            param.copy_(weight)
    other.load_state_dict(saved[0])
    for time in range(3, 6):
        for one, ps in ((optimizer, params), (other, others)):
            one.zero_grad()
            loss(list(ps), time).backward()
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


def test_memory_is_that_of_the_table() -> None:
    for depth, bytes_each in ((2, 16), (3, 24), (4, 32)):
        weight = nn.Parameter(torch.randn(10, 10, dtype=torch.float32))
        weight.grad = torch.zeros_like(weight)
        optimizer = FactorizedSGD([weight], depth=depth)
        optimizer.step()
        state = sum(t.numel() * t.element_size() for t in optimizer.state[weight].values())
        assert state == bytes_each * 100
    weight = nn.Parameter(torch.randn(10, 10, dtype=torch.float32))
    weight.grad = torch.zeros_like(weight)
    optimizer = FactorizedSGD([weight], tied=True)
    optimizer.step()
    assert sum(t.numel() * t.element_size() for t in optimizer.state[weight].values()) == 8 * 100
