from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import AMTrainer, ChunkedTrainer, Exact, MajorizedWeights, Squared
from openwork.penalties import L1, GroupLasso

D = torch.float64


def task(activation: nn.Module | None = None) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    h = activation or nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), h, nn.Linear(8, 7), deepcopy(h), nn.Linear(7, 3)).to(D)
    x = torch.randn(50, 2, 3, dtype=D)
    return model, x, (x.flatten(1) @ torch.randn(6, 3, dtype=D)).argmax(1)


@pytest.mark.parametrize("chunk_size", [7, 1000])
@pytest.mark.parametrize(
    "inertia", [(0.0, 0.0, 0.0), (0.633, 0.633, 0.5), (0.6, 0.3, 0.3)], ids=["none", "same", "two"]
)
def test_chunks_are_the_full_batch(chunk_size: int, inertia: tuple[float, float, float]) -> None:
    for activation, penalties in ((nn.ReLU(), None), (nn.Tanh(), {"1": L1(0.002), "3": GroupLasso(0.001)})):
        model, x, y = task(activation)
        other = deepcopy(model)
        full = AMTrainer(
            model,
            mu=0.02,
            inertia=inertia,
            balance=0,
            coupling=Exact(fresh=True),
            w_solver=MajorizedWeights(fresh=True),
            penalties=penalties,
        )
        chunked = ChunkedTrainer(other, chunk_size=chunk_size, mu=0.02, inertia=inertia, penalties=penalties)
        full.start(x, y)
        chunked.start(x, y)
        for _ in range(12):
            measured = full.sweep()
            value = chunked.sweep()
            assert value == pytest.approx(measured.objective, rel=1e-10)
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
            assert torch.equal(mine == 0, theirs == 0)


def test_the_objective_falls_with_any_inertia() -> None:
    model, x, _ = task()
    trainer = ChunkedTrainer(model, chunk_size=9, loss=Squared(), inertia=(0.5, 0.5, 0.5), mu=1e-3)
    trainer.inertia = type(trainer.inertia)(0.3, 0.9, 0.9)  # far outside the stable region
    trainer.start(x, torch.randn(50, 3, dtype=D))
    values = [trainer.objective, *(trainer.sweep() for _ in range(30))]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(values))
    assert trainer.restarts > 0


def test_it_learns() -> None:
    model, x, y = task()
    assert ChunkedTrainer(model, chunk_size=20, mu=0.01).fit(x, y, 60) is model
    assert (model(x).argmax(1) == y).double().mean() > 0.9


def test_wrong_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = task()
    with pytest.raises(ValueError, match=r"ChunkedTrainer: chunk_size must be >= 1, got 0"):
        ChunkedTrainer(model, chunk_size=0)
    with pytest.raises(ValueError, match=r"rho must be > 0 and finite, got 0"):
        ChunkedTrainer(model, chunk_size=5, rho=0.0)
    with pytest.raises(ValueError, match=r"mu must be >= 0 and finite, got -1"):
        ChunkedTrainer(model, chunk_size=5, mu=-1.0)
    with pytest.raises(TypeError, match=r"training in chunks needs linear layers, the model has a Conv1d"):
        ChunkedTrainer(nn.Sequential(nn.Conv1d(1, 1, 1)), chunk_size=5)
    trainer = ChunkedTrainer(model, chunk_size=5)
    with pytest.raises(RuntimeError, match=r"there are no samples yet; call start\(X, y\) first"):
        trainer.sweep()
    with pytest.raises(ValueError, match=r"labels must be in 0, \.\.\., 2"):
        trainer.start(x, y + 1)
    monkeypatch.setattr("openwork.altmin.chunks.free_bytes", lambda device: 1000)
    with pytest.raises(MemoryError, match=r"the codes of 50 samples need about 2.16e-05 GB and 1e-06 GB are free"):
        trainer.start(x, y)
