from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import MiniBatchTrainer, Sign, Squared

D = torch.float64


def blobs(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    y = torch.arange(n) % 3
    return torch.tensor([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]], dtype=D)[y] + 0.6 * torch.randn(n, 2, dtype=D), y


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_learns_from_batches(momentum: float) -> None:
    x, y = blobs(300)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 3)).to(D)
    trainer = MiniBatchTrainer(model, momentum=momentum)
    for _ in range(8):
        for start in range(0, 300, 50):
            assert trainer.partial_fit(x[start : start + 50], y[start : start + 50]) is trainer
    assert (model(x).argmax(1) == y).double().mean() > 0.95


def test_sign_layers_move() -> None:
    x, y = blobs(60)
    model = nn.Sequential(nn.Linear(2, 8), Sign(), nn.Linear(8, 3)).to(D)
    before = next(model.parameters()).detach().clone()
    MiniBatchTrainer(model).partial_fit(x, y)
    assert not torch.equal(next(model.parameters()), before)


@pytest.mark.parametrize("bias", [True, False])
def test_one_layer_takes_the_damped_ridge_step(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=bias)).to(D)
    x, y = torch.randn(30, 4, dtype=D), torch.randn(30, 2, dtype=D)
    read = torch.cat([x, torch.ones(30, 1, dtype=D)], 1) if bias else x
    z = model(x).detach()
    code = (y + 0.5 * z) / 1.5
    ridge = torch.linalg.solve(read.T @ read / 30 + 0.7 * torch.eye(read.shape[1], dtype=D), read.T @ (code - z) / 30)
    MiniBatchTrainer(model, loss=Squared(), rho=0.5, damping=0.7).partial_fit(x, y)
    torch.testing.assert_close(model(x), z + read @ ridge)


def test_codes_lower_the_objective_of_the_batch() -> None:
    x, y = blobs(60)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)).to(D)
    trainer = MiniBatchTrainer(model)
    with torch.no_grad():
        codes, inputs = trainer._forward(x)

        def objective() -> float:
            links = zip(trainer._links, inputs, codes, strict=True)
            terms = [(link.bias_add(link.forward(a)) - z).square().sum() * 0.05 for link, a, z in links]
            return float(trainer.loss.value(codes[-1], y) + sum(terms))

        values = [objective()]
        for _ in range(10):
            trainer._pass(codes, inputs, y)
            values.append(objective())
    assert all(b <= a * (1 + 1e-10) for a, b in pairwise(values))
    assert values[-1] < 0.8 * values[0]


def test_wrong_arguments_are_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"MiniBatchTrainer: rho must be > 0 and finite, got 0"):
        MiniBatchTrainer(model, rho=0.0)
    with pytest.raises(ValueError, match=r"passes must be >= 1, got 0"):
        MiniBatchTrainer(model, passes=0)
    with pytest.raises(ValueError, match=r"damping must be > 0 and finite, got 0"):
        MiniBatchTrainer(model, damping=0.0)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\), got 1"):
        MiniBatchTrainer(model, momentum=1.0)
    with pytest.raises(TypeError, match=r"training on mini-batches needs linear layers"):
        MiniBatchTrainer(nn.Sequential(nn.Conv1d(1, 1, 1)))
    with pytest.raises(ValueError, match=r"labels must be in 0, \.\.\., 2"):
        MiniBatchTrainer(model).partial_fit(torch.zeros(1, 2), torch.tensor([3]))
