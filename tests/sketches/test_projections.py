import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from openwork.sketches import Key, RandomProjection, RightProjection, SketchedModule
from openwork.sketches.key import Backend


@pytest.mark.parametrize("backend", ["hash", "torch"])
@pytest.mark.parametrize(("rank", "size"), [(1, 5), (3, 5), (5, 5)])
def test_a_draw_is_a_scaled_projection(rank: int, size: int, backend: Backend) -> None:
    draw = RandomProjection(rank).sample(Key(0, backend=backend), size)
    s = torch.stack([draw.apply(row) for row in torch.eye(size, dtype=torch.float64)])
    assert_close(s, s.T)
    assert_close(s @ s, size / rank * s)
    assert int(torch.linalg.matrix_rank(s)) == rank
    largest = float(torch.linalg.eigvalsh(s @ s)[-1])
    constants = RandomProjection(rank).constants(size)
    assert largest == pytest.approx(constants.largest)
    assert (constants.smooth, constants.convex) == (size / rank, size / rank)


def test_directions_are_uniform() -> None:
    """Entries of a uniform unit vector: mean 0, variance 1 / d, and squares with the covariances of a sphere."""
    d, draws = 3, 1500
    q = torch.stack([RandomProjection(1).sample(Key(1, step=step), d).basis[:, 0] for step in range(draws)])
    assert float(q.mean(0).abs().max()) < 5 / math.sqrt(d * draws)
    fourth = q.square().T @ q.square() / draws
    expected = (torch.ones(d, d) + 2 * torch.eye(d)).double() / (d * (d + 2))
    assert float((fourth - expected).abs().max()) < 5 * 0.3 / math.sqrt(draws)


def test_right_projections_act_along_the_inputs() -> None:
    draw = RightProjection(2).sample(Key(0), 4)
    s = draw.scale * draw.basis @ draw.basis.T
    matrix, filters = torch.randn(3, 4).double(), torch.randn(3, 4, 2, 2).double()
    assert draw.scale == 2
    assert_close(draw.apply(matrix), matrix @ s)
    assert_close(draw.apply(filters), torch.einsum("oihw,ij->ojhw", filters, s))
    assert int(torch.linalg.matrix_rank(draw.apply(matrix))) == 2


def test_what_a_right_projection_moves_has_low_rank() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 5, dtype=torch.float64)
    sketched = SketchedModule(model, RightProjection(2), exclude="bias")
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += torch.randn(5, 6)
    drawn = sketched.sample(Key(0))
    weight = sketched.weights(drawn)["weight"]
    assert int(torch.linalg.matrix_rank(weight - start)) == 2
    (gradient,) = torch.autograd.grad(weight.square().sum(), model.weight)
    assert_close(gradient, drawn["weight"][0].adjoint(2 * weight))


def test_a_random_projection_mixes_all_entries_of_a_tensor() -> None:
    model = nn.Linear(3, 2, dtype=torch.float64)
    sketched = SketchedModule(model, RandomProjection(2), shift="zero", exclude="bias")
    drawn = sketched.sample(Key(0))
    found = sketched.weights(drawn)["weight"]
    expected = RandomProjection(2).sample(Key(0).at(family="weight"), 6).apply(model.weight.flatten()).view(2, 3)
    assert_close(found, expected)


def test_a_parameter_without_the_axis_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'bias': RightProjection acts along axis 1, which shape \(2,\) does not have"
    ):
        SketchedModule(nn.Linear(3, 2), RightProjection(2))
