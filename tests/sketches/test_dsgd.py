"""Double sketched gradient descent: reductions, transcriptions, workers, importance, recentring, safety."""

from collections.abc import Callable
from functools import partial
from math import inf, nan

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.testing import assert_close

from openwork.sketches import DSGD, Diagonal, Identity, Key, PermK, Pool, RandK, SketchedModule, Whole

D = 12


class Quadratic(nn.Module):
    """``0.5 x'Ax - b'x``; positive definite."""

    A: Tensor
    b: Tensor

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(D, D, dtype=torch.float64, generator=generator)
        self.register_buffer("A", root @ root.T / D + torch.eye(D, dtype=torch.float64))
        self.register_buffer("b", torch.randn(D, dtype=torch.float64, generator=generator))
        self.x = nn.Parameter(torch.randn(D, dtype=torch.float64, generator=generator))

    def forward(self) -> Tensor:
        return 0.5 * self.x @ self.A @ self.x - self.b @ self.x

    def gradient(self, x: Tensor) -> Tensor:
        return self.A @ x - self.b


def closure_of(module: Callable[[], Tensor]) -> Tensor:
    loss = module()
    loss.backward()
    return loss


def diagonal(law: RandK | PermK, key: Key) -> Tensor:
    return law.sample(key.at(family="x"), D).weights


def network(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "SGD": partial(SGD, lr=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Adam": partial(Adam, lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_the_identity_it_is_the_optimizer_to_the_bit(name: str) -> None:
    plain, sketched = network(), SketchedModule(network(), Identity())
    one = OPTIMIZERS[name](plain.parameters())
    other = DSGD(OPTIMIZERS[name](sketched.parameters()), sketched)
    x = torch.randn(100, 8, 4, generator=torch.Generator().manual_seed(0))
    for batch in x:
        one.zero_grad()
        loss = plain(batch).square().mean()
        loss.backward()
        one.step()
        assert torch.equal(other.step(lambda batch=batch: closure_of(lambda: sketched(batch).square().mean())), loss)
    for a, b in zip(plain.parameters(), sketched.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("follow", [True, False], ids=["followed", "counting itself"])
def test_the_algorithm_as_it_is_written(follow: bool) -> None:
    module, law = Quadratic(), RandK(0.25)
    v = torch.ones(D, dtype=torch.float64)
    sketched = SketchedModule(module, law, shift={"x": v}, key=Key(3))
    optimizer = SGD(sketched.parameters(), lr=0.02)
    if follow:
        sketched.follow(optimizer)
    algorithm, x = DSGD(optimizer, sketched), module.x.detach().clone()
    for t in range(50):
        s = diagonal(law, Key(3, step=t))
        y = v + s * (x - v)
        loss = algorithm.step(lambda: closure_of(sketched))
        assert_close(loss, 0.5 * y @ module.A @ y - module.b @ y, rtol=1e-12, atol=1e-12)
        x = x - 0.02 * s * module.gradient(y)
    assert_close(module.x.detach(), x, rtol=0, atol=1e-12)
    assert sketched.key.step == 50


def test_several_draws_are_averaged() -> None:
    module, law = Quadratic(), RandK(0.25)
    sketched = SketchedModule(module, law, shift="zero")
    algorithm, x = DSGD(SGD(sketched.parameters(), lr=0.02), sketched, draws=3), module.x.detach().clone()
    for t in range(20):
        scales = [diagonal(law, Key(0, step=t, draw=draw)) for draw in range(3)]
        assert not torch.equal(scales[0], scales[1])
        algorithm.step(lambda: closure_of(sketched))
        x = x - 0.02 * sum(s * module.gradient(s * x) for s in scales) / 3
    assert_close(module.x.detach(), x, rtol=0, atol=1e-12)


def test_workers_have_shares_and_losses_of_their_own() -> None:
    """In the arithmetic that n processes repeat: added to zeros in order, then divided by n."""
    module, law, n = Quadratic(), PermK(4), 4
    sketched = SketchedModule(module, law, shift="zero")
    others = [Quadratic(seed=10 + i) for i in range(n)]

    def loss(i: int) -> Tensor:
        module.A, module.b = others[i].A, others[i].b
        return closure_of(sketched)

    algorithm, x = DSGD(SGD(sketched.parameters(), lr=0.02), sketched, workers=n), module.x.detach().clone()
    for t in range(50):
        total = torch.zeros(D, dtype=torch.float64)
        for i, other in enumerate(others):
            s = diagonal(law, Key(0, step=t, worker=i))
            leaf = x.clone().requires_grad_()
            y = torch.where(s != 0, leaf * s, 0.0)
            (0.5 * y @ other.A @ y - other.b @ y).backward()
            assert leaf.grad is not None
            total += leaf.grad
        x = x.add(total / n, alpha=-0.02)
        algorithm.step([partial(loss, i) for i in range(n)])
    assert torch.equal(module.x.detach(), x)


def test_members_drawn_with_other_probabilities_count_accordingly() -> None:
    module = Quadratic()
    pool = Pool.of(PermK(3), Key(1), D, 6)
    q = pool.importance(torch.arange(1.0, 7.0, dtype=torch.float64))
    sketched = SketchedModule(module, pool, shift="zero")
    algorithm = DSGD(SGD(sketched.parameters(), lr=0.02), sketched, probabilities=q)
    x, counts = module.x.detach().clone(), torch.zeros(6)
    for t in range(200):
        index = pool.index(Key(0, step=t, family="x"), q)
        counts[index] += 1
        member = pool[index]
        assert isinstance(member, Diagonal)
        algorithm.step(lambda: closure_of(sketched))
        x = x - 0.02 / (6 * float(q[index])) * member.weights * module.gradient(member.weights * x)
    assert_close(module.x.detach(), x, rtol=0, atol=1e-12)
    assert counts[-1] > 2 * counts[0] > 0


@pytest.mark.parametrize("scaled", [True, False], ids=["scaled", "unscaled"])
def test_recentred_every_step_it_sketches_gradients_only(scaled: bool) -> None:
    module, law = Quadratic(), RandK(0.25)
    sketched = SketchedModule(module, law, shift="init", scaled=scaled)
    algorithm = DSGD(SGD(sketched.parameters(), lr=0.02), sketched, recenter_every=1)
    x = module.x.detach().clone()
    for t in range(50):
        s = diagonal(law, Key(0, step=t))
        algorithm.step(lambda: closure_of(sketched))
        # Unscaled, the step is a mask's, and its mean p of it is kept.
        x = x - 0.02 * (s if scaled else s.clamp(max=1) / 4) * module.gradient(x)
    assert_close(module.x.detach(), x, rtol=0, atol=1e-12)


def test_recentred_every_few_steps() -> None:
    module, law = Quadratic(), RandK(0.25)
    sketched = SketchedModule(module, law, shift="zero")
    algorithm = DSGD(SGD(sketched.parameters(), lr=0.02), sketched, recenter_every=3)
    x, v = module.x.detach().clone(), torch.zeros(D, dtype=torch.float64)
    for t in range(12):
        s = diagonal(law, Key(0, step=t))
        algorithm.step(lambda: closure_of(sketched))
        x = x - 0.02 * s * module.gradient(v + s * (x - v))
        v = x if (t + 1) % 3 == 0 else v
    assert_close(module.x.detach(), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "power"), [(SGD, 2), (partial(Adam, eps=1e-30), 1)], ids=["SGD", "Adam"])
def test_unscaled_training_is_scaled_training_in_other_units(optimizer: Callable[..., Optimizer], power: int) -> None:
    p, lr, law = 0.25, 0.02, RandK(0.25)
    v = {"x": torch.linspace(-1, 1, D, dtype=torch.float64)}
    masked = SketchedModule(Quadratic(), law, shift=v, scaled=False)
    scaled = SketchedModule(Quadratic(), law, shift=v, scaled=False).to_scaled_()
    one = DSGD(optimizer(masked.parameters(), lr=lr), masked)
    other = DSGD(optimizer(scaled.parameters(), lr=lr * p**power), scaled)
    for _ in range(200):
        one.step(lambda: closure_of(masked))
        other.step(lambda: closure_of(scaled))
    assert_close(scaled.dense_weights()["x"], masked.dense_weights()["x"], rtol=0, atol=1e-12)
    assert (masked.dense_weights()["x"] - masked.module.get_parameter("x")).abs().max() > 0.1


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    model = network()
    model.unused = nn.Parameter(torch.ones(3))
    sketched = SketchedModule(model, RandK(0.5))
    algorithm = DSGD(SGD(sketched.parameters(), lr=0.1, weight_decay=0.5), sketched, draws=2)
    algorithm.step(lambda: closure_of(lambda: sketched(torch.ones(2, 4)).sum()))
    assert torch.equal(model.get_parameter("unused"), torch.ones(3))


@pytest.mark.parametrize("bad", [nan, inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    sketched = SketchedModule(network(), RandK(0.5))
    optimizer = Adam(sketched.parameters(), lr=0.01)
    algorithm, x = DSGD(optimizer, sketched), torch.ones(2, 4)
    algorithm.step(lambda: closure_of(lambda: sketched(x).square().sum()))
    weights = [p.detach().clone() for p in sketched.parameters()]
    state = [{name: value.clone() for name, value in optimizer.state[p].items()} for p in sketched.parameters()]
    algorithm.step(lambda: closure_of(lambda: sketched(x).square().sum() * bad))
    assert algorithm.skipped == 1
    assert sketched.key.step == 2
    for p, before, values in zip(sketched.parameters(), weights, state, strict=True):
        assert torch.equal(p, before)
        assert all(torch.equal(optimizer.state[p][name], value) for name, value in values.items())
    algorithm.step(lambda: closure_of(lambda: sketched(x).square().sum()))
    assert not torch.equal(next(sketched.parameters()), weights[0])
    other = DSGD(optimizer, sketched)
    other.load_state_dict(algorithm.state_dict())
    assert other.skipped == 1


def test_closures_that_give_no_gradient_are_refused() -> None:
    sketched = SketchedModule(Quadratic(), RandK(0.5))
    optimizer = SGD(sketched.parameters(), lr=0.1)
    before = sketched.module.get_parameter("x").detach().clone()
    with pytest.raises(ValueError, match=r"DSGD: the closure left no gradient; .* call loss.backward\(\)"):
        DSGD(optimizer, sketched).step(sketched)
    with pytest.raises(TypeError, match="DSGD: the closure must return the loss, a tensor, got NoneType"):
        DSGD(optimizer, sketched).step(lambda: None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="DSGD: 1 workers need as many closures, got 0; pass one for each"):
        DSGD(optimizer, sketched).step([])
    with pytest.raises(ValueError, match="DSGD: 2 workers need as many closures, got 1"):
        DSGD(optimizer, sketched, workers=2).step(lambda: closure_of(sketched))
    assert torch.equal(sketched.module.get_parameter("x"), before)
    assert sketched.key.step == 0


def test_bad_arguments_are_refused() -> None:
    sketched = SketchedModule(Quadratic(), RandK(0.5))
    optimizer = SGD(sketched.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="DSGD: draws must be at least 1, got 0"):
        DSGD(optimizer, sketched, draws=0)
    with pytest.raises(ValueError, match="DSGD: workers must be at least 1, got -1"):
        DSGD(optimizer, sketched, workers=-1)
    with pytest.raises(ValueError, match="DSGD: recenter_every must be at least 1, got 0"):
        DSGD(optimizer, sketched, recenter_every=0)
    with pytest.raises(TypeError, match="sketched must be a SketchedModule, got Quadratic; wrap it"):
        DSGD(optimizer, Quadratic())  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"optimizer must be a torch.optim.Optimizer, got float"):
        DSGD(0.1, sketched)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"has no parameter of the sketched module; build it over sketched.parameters"):
        DSGD(SGD(Quadratic().parameters(), lr=0.1), sketched)
    with pytest.raises(ValueError, match="probabilities are those of a Pool, and the law is RandK; leave them out"):
        DSGD(optimizer, sketched, probabilities=torch.ones(1, dtype=torch.float64))


def test_a_pool_is_for_one_vector_of_its_size() -> None:
    sketched = SketchedModule(network(), RandK(0.5))
    optimizer = SGD(sketched.parameters(), lr=0.1)
    q = torch.ones(1, dtype=torch.float64)
    pool = Pool((Whole(),))
    with pytest.raises(ValueError, match=r"a Pool is of one vector and the module draws 4, such as '0.weight'"):
        DSGD(optimizer, SketchedModule(sketched.module, pool), probabilities=q)
