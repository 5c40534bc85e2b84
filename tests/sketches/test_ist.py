"""Independent subnetwork training."""

import pytest
import torch
from torch import Tensor, nn

from openwork.sketches import Key, PermK, SketchedModule, replicated_bytes
from tests.sketches.conftest import Ranks
from tests.sketches.processes import GATHERED, ROUNDS, SIZE, TAU
from tests.sketches.simulation import simulated_ist


class Quadratic(nn.Module):
    """``x' A x / 2``."""

    def __init__(self, a: Tensor, x: Tensor) -> None:
        super().__init__()
        self.a = a
        self.x = nn.Parameter(x)

    def forward(self) -> Tensor:
        return 0.5 * self.x @ self.a @ self.x


def test_a_step_raises_the_dense_loss_and_lowers_the_sketched_one() -> None:
    # Shulgin & Richtárik, arXiv:2306.16484: as a solver of f the estimator is biased where W is not positive.
    a = torch.tensor([[1.0, 2.5], [2.5, 9.0]], dtype=torch.float64)
    b = torch.diag(a.diag())  # E[(1/n) sum of C_i A C_i] with n = d = 2 and C_i = sqrt(n) e_i e_i'
    w = 0.5 * (a @ b + b @ a)
    values, vectors = torch.linalg.eigh(w)
    assert values[0].item() == pytest.approx(-0.908, abs=5e-4)
    smooth = torch.linalg.eigvalsh(a)[-1].item()
    quadratic = Quadratic(a, vectors[:, 0].clone())
    model = SketchedModule(quadratic, PermK(2), shift="zero", key=Key(0)).train()

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            sketched: list[float] = []
            for worker in range(2):
                with model.draw(model.key.at(worker=worker)):
                    sketched.append(model().item())
            return quadratic().item(), sum(sketched) / 2

    before = losses()
    gradient = torch.zeros(2, dtype=torch.float64)
    for worker in range(2):
        with model.draw(model.key.at(worker=worker)):
            gradient += torch.autograd.grad(model(), [quadratic.x])[0] / 2
    with torch.no_grad():
        quadratic.x -= gradient / (2 * smooth)
    after = losses()

    assert before == pytest.approx((0.218, 1.182), abs=5e-4)
    assert after == pytest.approx((0.369, 0.788), abs=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("tau", [1, TAU])
@pytest.mark.parametrize("name", ["perm-k model", "perm-k units"])
def test_rounds_are_those_of_one_process(ranks: Ranks, name: str, tau: int) -> None:
    expected = simulated_ist(GATHERED[name], len(ranks), tau)
    for results in ranks:
        found = results[f"ist {name}, {tau}"]["weights"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
        assert torch.equal(found, ranks[0][f"ist {name}, {tau}"]["weights"])


@pytest.mark.slow
def test_a_round_sends_a_share_however_many_steps_it_has(ranks: Ranks) -> None:
    for results in ranks:
        for tau in (1, TAU):
            sent = results[f"ist perm-k model, {tau}"]
            assert sent["steps"] == ROUNDS
            assert sent["bytes"] == ROUNDS * replicated_bytes(SIZE, len(ranks), 8)
