import pytest
import torch

from openwork.sketches import Key, PermK
from openwork.sketches.key import Backend

BACKENDS = pytest.mark.parametrize("backend", ["hash", "torch"])


def draws(law: PermK, key: Key, size: int) -> torch.Tensor:
    return torch.stack([law.sample(key.at(worker=worker), size).weights for worker in range(law.workers)])


@BACKENDS
@pytest.mark.parametrize(("workers", "size"), [(1, 3), (2, 6), (3, 10), (4, 10), (5, 3), (5, 5), (6, 3), (3, 1)])
def test_the_mean_of_all_workers_is_the_identity(workers: int, size: int, backend: Backend) -> None:
    law = PermK(workers)
    for step in range(20):
        rows = draws(law, Key(1, step=step, backend=backend), size)
        assert torch.equal(rows.mean(0), torch.ones(size).double())
        assert torch.equal((rows != 0).sum(0), torch.full((size,), law.overlap(size)))


@BACKENDS
def test_shares_are_disjoint_and_cover_everything(backend: Backend) -> None:
    law, key = PermK(4), Key(0, step=7, backend=backend)
    shares = [law.share(key.at(worker=worker), 10) for worker in range(4)]
    assert all(torch.equal(share, share.sort().values) for share in shares)
    assert torch.cat(shares).sort().values.tolist() == list(range(10))
    for worker, share in enumerate(shares):
        assert law.sample(key.at(worker=worker), 10).kept.nonzero().flatten().tolist() == share.tolist()


def test_padding_keeps_the_probability_exact() -> None:
    law = PermK(4)
    assert law.inclusion(10).tolist() == [0.25] * 10
    kept = torch.stack([law.sample(Key(0, step=step), 10).kept for step in range(2000)]).double()
    assert float((kept.mean(0) - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_vectors_of_workers_are_orthogonal() -> None:
    law = PermK(3)
    generator = torch.Generator().manual_seed(0)
    for step in range(10):
        parts = torch.stack(
            [
                law.sample(Key(0, step=step, worker=worker), 9).adjoint(torch.randn(9, generator=generator).double())
                for worker in range(3)
            ]
        )
        assert abs(float(parts.mean(0).square().sum() - parts.square().sum() / 9)) < 1e-12


def test_steps_differ_and_workers_share_a_permutation() -> None:
    law = PermK(2)
    first = [law.sample(Key(0, step=step), 12).kept for step in range(5)]
    second = [law.sample(Key(0, step=step, worker=1), 12).kept for step in range(5)]
    assert all(torch.equal(a, ~b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(first[0], other) for other in first)


@BACKENDS
def test_unequal_shares(backend: Backend) -> None:
    phi, size, steps = (0.55, 0.25, 0.2), 7, 400
    law = PermK(3, phi)
    counts = torch.zeros(3, size)
    for step in range(steps):
        rows = draws(law, Key(2, step=step, backend=backend), size)
        assert torch.equal((rows != 0).sum(0), torch.ones(size, dtype=torch.int64))
        assert torch.allclose(
            torch.tensor(phi, dtype=torch.float64) @ rows, torch.ones(size).double(), rtol=0, atol=1e-14
        )
        kept = (rows != 0).sum(1)
        assert all(abs(int(many) - share * size) < 1 for many, share in zip(kept, phi, strict=True))
        counts += rows != 0
    error = torch.tensor([(share * (1 - share) / steps) ** 0.5 for share in phi])
    assert bool(((counts / steps - torch.tensor(phi)[:, None]).abs() < 5 * error[:, None]).all())


def test_boundaries_in_whole_numbers_are_not_rounded() -> None:
    law = PermK(3, (0.5, 0.3, 0.2))
    for step in range(50):
        assert [law.share(Key(0, step=step, worker=worker), 10).numel() for worker in range(3)] == [5, 3, 2]
