import pytest
import torch

from openwork.sketches import Bernoulli, Diagonal, Key, rescaled_lr, scaled_point, unscaled_point

SIZE = 12
UNIFORM = 0.4
EACH = torch.linspace(0.2, 1.0, SIZE, dtype=torch.float64)


def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A quadratic and a shift."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
    b, v = torch.randn(2, SIZE, generator=generator, dtype=torch.float64)
    return root @ root.T / SIZE + torch.eye(SIZE), b, v


def test_points_go_there_and_back() -> None:
    _, x, v = problem()
    for p in (UNIFORM, EACH):
        assert torch.allclose(unscaled_point(scaled_point(x, v, p), v, p), x, rtol=0, atol=1e-14)
    assert torch.equal(scaled_point(x, v, 1.0), v + (x - v))


@pytest.mark.parametrize("p", [UNIFORM, EACH], ids=["uniform", "each"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_is_the_same_in_both_units(p: float | torch.Tensor, optimizer: str) -> None:
    """Spec: the maximal difference stays below 1e-12 over 200 steps; Adam with eps = 0, kept entries only."""
    kind = "sgd" if optimizer == "sgd" else "adam"
    a, b, v = problem()
    law = Bernoulli(p)
    x, z = v.clone(), v.clone()
    lr = 0.05
    rates = {"x": rescaled_lr(lr, p, kind, scaled=False), "z": rescaled_lr(lr, p, kind)}
    moments = {name: (torch.zeros(SIZE).double(), torch.zeros(SIZE).double()) for name in ("x", "z")}
    for step in range(200):
        draw = law.sample(Key(0, step=step), SIZE)
        mask = Diagonal(draw.kept)
        assert torch.allclose(v + mask.apply(x - v), v + draw.apply(z - v), rtol=0, atol=1e-12)
        gradients = {
            "x": mask.adjoint(a @ (v + mask.apply(x - v)) - b),
            "z": draw.adjoint(a @ (v + draw.apply(z - v)) - b),
        }
        moved = {}
        for name, g in gradients.items():
            if kind == "sgd":
                moved[name] = rates[name] * g
                continue
            first, second = moments[name]
            first.lerp_(g, 0.1)
            second.mul_(0.99).add_(g.square(), alpha=0.01)
            # No eps: entries that have not seen a gradient yet stay.
            ratio = first / torch.where(second > 0, second.sqrt(), 1.0)
            moved[name] = rates[name] * ratio / (1 - 0.9 ** (step + 1)) * (1 - 0.99 ** (step + 1)) ** 0.5
        x, z = x - moved["x"], z - moved["z"]
        assert float((scaled_point(x, v, p) - z).abs().max()) < 1e-12
    assert float((x - v).abs().max()) > 0.1
