"""What every law of a sketch must do."""

from math import sqrt

import torch
from torch import Tensor
from torch.testing import assert_close

from openwork.sketches import Diagonal, DiagonalSketch, Draw, Key, Pool, Sketch, Whole

# Standard errors by which a mean may miss what it is compared with.
_SIGMAS = 5


def check_sketch(law: Sketch, size: int, *, draws: int = 1000, seed: int = 0) -> None:
    """Check a law against the definitions of its methods, with both back ends.

    Means are exact for a ``Pool``, all of whose draws are known, and otherwise over random draws.

    Args:
        law: The law.
        size: Numbers in a vector, for which it has draws; 10 or so.
        draws: How many are averaged, where means are not exact.
        seed: Of the keys and tensors tried.

    Raises:
        AssertionError: If it breaks the contract; the message says where.
    """
    for backend in ("hash", "torch"):
        key = Key(seed, backend=backend)
        state = torch.get_rng_state()
        some = [law.sample(key.at(step=step), size) for step in range(20)]
        if not torch.equal(torch.get_rng_state(), state):
            raise AssertionError(f"sample of {law} changes the global random state")
        for draw in some:
            _check_draw(law, draw, size, seed)
        _check_purity(law, key, size)
    if isinstance(law, Pool):
        maps = torch.stack([_matrix(law, draw, size) for draw in law.draws])
        weights = law.probabilities
    else:
        keys = [Key(seed, step=step) for step in range(draws)]
        maps = torch.stack([_matrix(law, law.sample(one, size), size) for one in keys])
        weights = None
    _check_mean(law, "E[S]", maps, weights, torch.eye(size, dtype=torch.float64))
    _check_constants(law, maps, size)
    _check_squares(law, maps, weights, size, seed)
    if isinstance(law, DiagonalSketch):
        _check_moments(law, maps.diagonal(dim1=1, dim2=2), weights, size)


def _matrix(law: Sketch, draw: Draw, size: int) -> Tensor:
    """S, float64 ``(size, size)``."""
    eye = torch.eye(size, dtype=torch.float64)
    if isinstance(draw, Diagonal):
        return draw.weights.diag()
    # Along axis 1 the rows of the identity are what is mapped, one for each output.
    return draw.apply(eye).T if law.axis == 1 else torch.stack([draw.apply(row) for row in eye], dim=1)


def _check_draw(law: Sketch, draw: Draw, size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (size,) if law.axis is None else (*[3] * law.axis, size, 2)
    x, y = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    assert_close((draw.apply(x) * y).sum(), (x * draw.adjoint(y)).sum(), msg=f"adjoint of a draw of {law} is none")
    if draw.apply(x.float()).dtype != torch.float32:
        raise AssertionError(f"a draw of {law} changes the type of what it is applied to")
    if isinstance(law, DiagonalSketch) and not isinstance(draw, Whole | Diagonal):
        raise AssertionError(f"{law} is a diagonal law, but its draw is a {type(draw).__name__}")
    if isinstance(draw, Diagonal):
        dropped = draw.apply(torch.full_like(x, torch.inf))[~draw.kept]
        if bool((dropped != 0).any()):
            raise AssertionError(f"what a draw of {law} drops must be exactly zero, whatever it was")


def _check_purity(law: Sketch, key: Key, size: int) -> None:
    def drawn(one: Key) -> Tensor:
        return _matrix(law, law.sample(one, size), size)

    first = drawn(key)
    if not torch.equal(first, drawn(key)):
        raise AssertionError(f"two draws of {law} with the same key differ")
    # Some draws may be equal by chance, but not 50.
    if all(torch.equal(first, drawn(key.at(step=step))) for step in range(50)):
        if law.constants(size).variance > 1e-9:
            raise AssertionError(f"draws of {law} are the same at all steps")
        return
    workers = law.complementary if isinstance(law, DiagonalSketch) and law.complementary > 1 else 50
    others = {
        "families": [key.at(family=str(number)) for number in range(50)],
        "draws": [key.at(draw=number) for number in range(50)],
        "workers": [key.at(worker=number) for number in range(workers)],
    }
    for name, keys in others.items():
        if all(torch.equal(first, drawn(one)) for one in keys):
            raise AssertionError(f"draws of {law} are the same for all {name}")


def _check_mean(law: Sketch, name: str, values: Tensor, weights: Tensor | None, expected: Tensor) -> None:
    if weights is not None:
        assert_close((weights @ values.flatten(1)).view(expected.shape), expected, msg=f"{name} of {law} is wrong")
        return
    mean = values.mean(0)
    error = values.std(0) / sqrt(values.shape[0])
    wrong = (mean - expected).abs() > _SIGMAS * error + 1e-9 * (1 + expected.abs())
    if bool(wrong.any()):
        at = tuple(wrong.nonzero()[0].tolist())
        raise AssertionError(
            f"{name} of {law} at {at} is {float(mean[at]):.4g} +- {float(error[at]):.2g}, not {float(expected[at]):.4g}"
        )


def _check_constants(law: Sketch, maps: Tensor, size: int) -> None:
    constants = law.constants(size)
    diagonal = isinstance(law, DiagonalSketch)
    largest = float(maps.abs().max() if diagonal else torch.linalg.matrix_norm(maps, ord=2).max()) ** 2
    if largest > constants.largest * (1 + 1e-9):
        raise AssertionError(f"constants of {law}: largest is {constants.largest:.4g}, but a draw has {largest:.4g}")
    if not 1 - 1e-9 <= constants.convex <= constants.smooth <= constants.largest * (1 + 1e-9):
        raise AssertionError(f"constants of {law}: 1 <= convex <= smooth <= largest does not hold, {constants}")


def _check_squares(law: Sketch, maps: Tensor, weights: Tensor | None, size: int, seed: int) -> None:
    # convex ||x||^2 <= E||S x||^2 <= smooth ||x||^2
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for unit in (x / x.norm(), *torch.eye(size, dtype=torch.float64)):
        squares = (maps @ unit).square().sum(1)
        mean = float(squares.mean() if weights is None else weights @ squares)
        slack = (0.0 if weights is not None else _SIGMAS * float(squares.std()) / sqrt(len(squares))) + 1e-9 * mean
        constants = law.constants(size)
        if not constants.convex - slack <= mean <= constants.smooth + slack:
            raise AssertionError(f"constants of {law}: {constants}, but E||S x||^2 = {mean:.4g} for a unit vector x")


def _check_moments(law: DiagonalSketch, rows: Tensor, weights: Tensor | None, size: int) -> None:
    kept = (rows != 0).to(torch.float64)
    _check_mean(law, "inclusion", kept, weights, law.inclusion(size))
    _check_mean(law, "pair_matrix", kept[:, :, None] * kept[:, None], weights, law.pair_matrix(size))
    _check_mean(law, "second_moment", rows[:, :, None] * rows[:, None], weights, law.second_moment(size))
    squares = law.mean_square(size)
    assert_close(squares, law.second_moment(size).diagonal(), msg=f"mean_square of {law} is no diagonal of its moments")
    constants = law.constants(size)
    # Workers may have laws of their own, and constants are those over all.
    if law.complementary == 1:
        expected = torch.tensor([constants.convex, constants.smooth], dtype=torch.float64)
        assert_close(torch.stack(squares.aminmax()), expected, msg=f"convex or smooth of {law} is wrong")


__all__ = ["check_sketch"]
