"""What every penalty must do."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.testing import assert_close

from openwork.penalties import DiagonalProx, GroupPenalty, Penalty
from openwork.testing.layouts import strided_copies

STEPS = (0.01, 0.3, 1.0, 7.0)


def check_penalty(penalty: Penalty, shape: Sequence[int], *, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Check a penalty against the definition of its proximal operator, which needs no closed form.

    With ``p = prox(x, step)`` and ``phi(z) = f(z) + ||z - x||^2 / (2 step)``, every ``z`` tried has
    ``phi(z) >= phi(p) + ||z - p||^2 / (2 step)``, without the last term where ``f`` is not convex. Single groups are
    also reset to 0 and to ``x``. The same is asked of ``solve`` under a diagonal metric.

    Args:
        penalty: The penalty. One whose strength depends on the point, such as ``Target``, has no such definition.
        shape: A shape that it fits, of at least one entry.
        tolerance: Relative error allowed, for solvers that stop early.
        seed: Of the tensors tried.

    Raises:
        AssertionError: If it breaks the contract; the message says where.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x = normal(*shape)
    penalty.check(x)
    _check_value(penalty, x)
    for step in STEPS:
        _check_prox(penalty, x, step, normal, tolerance)
    _check_invariances(penalty, x, tolerance)
    _check_empty(penalty, shape)
    if isinstance(penalty, DiagonalProx):
        (d,) = penalty.metrics([torch.exp(normal(*shape))])
        for weight in (0.1, 1.0, 3.0):
            _check_solve(penalty, x, d.contiguous(), weight, normal, tolerance)
        _check_lists(penalty, x, d.contiguous(), tolerance)
        _check_no_metric(penalty, x, d.contiguous())
    if isinstance(penalty, GroupPenalty):
        _check_critical(penalty, x, torch.exp(normal(*shape)))


def _check_value(penalty: Penalty, x: Tensor) -> None:
    zero = torch.zeros_like(x)
    _require(penalty.value(x).shape == (), penalty, "value is not a 0-dim tensor")
    _require(bool(penalty.value(zero) == 0), penalty, "value of 0 is not 0")
    _require(bool(penalty.value(x) >= 0), penalty, "value is negative")
    for step in (0.0, 0.5, 1e6):
        _require(torch.equal(penalty.prox(zero, step), zero), penalty, f"prox(0, {step}) is not 0")
    if penalty.value(x).isfinite():
        assert_close(penalty.prox(x, 0.0), x, msg=f"{penalty}: prox(x, 0) is not x")


def _check_prox(penalty: Penalty, x: Tensor, step: float, normal: Callable[..., Tensor], tolerance: float) -> None:
    before = x.clone()
    p = penalty.prox(x, step)
    _require(torch.equal(x, before), penalty, "prox writes its argument")
    _check_minimum(
        penalty,
        p,
        lambda z: (z - x).square().sum() / (2 * step),
        lambda z: z.square().sum() / (2 * step),
        _rivals(penalty, p, x, normal),
        tolerance,
        f"prox with step {step}",
    )
    (listed,) = penalty.prox_list([x], step)
    assert_close(listed.x, p, msg=f"{penalty}: prox_list differs from prox")
    if isinstance(penalty, GroupPenalty):
        _require(torch.equal(listed.kept, penalty.groups.any(p)), penalty, "kept is not where the prox is nonzero")
    single = penalty.prox(x.float(), step)
    _require(single.dtype == torch.float32, penalty, "prox changes the dtype")
    _require(bool(penalty.prox(x, 1e6 * step).isfinite().all()), penalty, "prox with a large step is not finite")


def _check_minimum(
    penalty: Penalty,
    p: Tensor,
    smooth: Callable[[Tensor], Tensor],
    growth: Callable[[Tensor], Tensor],
    rivals: Sequence[Tensor],
    tolerance: float,
    where: str,
    weight: float = 1.0,
) -> None:
    """No rival does better; in the convex case each does worse by at least ``growth`` of its distance."""
    _require(bool(p.isfinite().all()), penalty, f"{where} is not finite")
    least = smooth(p) + weight * penalty.value(p)
    for z in rivals:
        value = smooth(z) + weight * penalty.value(z)
        bound = least + growth(z - p) if penalty.convex else least
        slack = tolerance * (1 + least.abs() + bound.abs())
        _require(bool(value >= bound - slack), penalty, f"{where} is beaten by {float(bound - value):.3g}")


def _rivals(penalty: Penalty, p: Tensor, x: Tensor, normal: Callable[..., Tensor]) -> list[Tensor]:
    """Points near and far that a minimizer ``p`` must beat; ``x`` is what the penalty pulls it away from."""
    noise = normal(*x.shape)
    rivals = [torch.zeros_like(x), x, noise, x.clamp_min(0.0), noise.abs(), (p + x) / 2, 0.5 * p, 1.1 * p]
    rivals += [p + size * noise * (p != 0) for size in (1e-1, 1e-3)] + [p + 1e-3 * noise]
    if isinstance(penalty, GroupPenalty):
        groups = penalty.groups
        numbers = torch.arange(groups.any(x).numel()).view(groups.grid(x.shape))
        for number in numbers.flatten()[:20]:
            here = groups.spread(numbers == number, like=x)
            rivals += [torch.where(here, other, p) for other in (0.0, x, x.clamp_min(0.0))]
    return rivals


def _check_solve(
    penalty: DiagonalProx, b: Tensor, d: Tensor, weight: float, normal: Callable[..., Tensor], tolerance: float
) -> None:
    start = normal(*b.shape)
    x, kept, residual = penalty.solve(b.clone(), d.clone(), weight, start)
    _check_minimum(
        penalty,
        x,
        lambda z: (0.5 * d * z.square() - b * z).sum(),
        lambda z: 0.5 * (d * z.square()).sum(),
        [*_rivals(penalty, x, b / d, normal), start],
        tolerance,
        f"solve with weight {weight}",
        weight,
    )
    _require(bool(residual.isfinite().all() and (residual >= 0).all()), penalty, "residual is not a norm")
    bound = 1e3 * tolerance * (1 + b.norm())
    _require(bool(residual.square().sum().sqrt() <= bound), penalty, f"residual is {float(residual.max()):.3g}")
    if isinstance(penalty, GroupPenalty):
        _require(torch.equal(kept, penalty.groups.any(x)), penalty, "kept is not where the solution is nonzero")
    as_tensor = penalty.solve(b.clone(), d.clone(), torch.tensor(weight, dtype=torch.float64), start)
    assert_close(as_tensor.x, x, msg=f"{penalty}: solve depends on whether weight is a tensor")
    flat = torch.full_like(b, 1 / weight)
    assert_close(
        penalty.solve(b * flat, flat, 1.0).x,
        penalty.prox(b, weight),
        rtol=tolerance**0.5,
        atol=tolerance**0.5,
        msg=f"{penalty}: solve with d = 1 / step is not prox",
    )
    # A power of two, so that rounding is the same.
    scaled = penalty.solve(b * 4, d * 4, weight * 4, start)
    assert_close(
        scaled.x, x, rtol=tolerance**0.5, atol=tolerance**0.5, msg=f"{penalty}: solve(c b, c d, c weight) depends on c"
    )


def _check_lists(penalty: DiagonalProx, b: Tensor, d: Tensor, tolerance: float) -> None:
    several = [b, -b, 2 * b]
    solutions = penalty.solve_([x.clone() for x in several], [d.clone() for _ in several], 0.5)
    for x, solution in zip(several, solutions, strict=True):
        alone = penalty.solve(x, d, 0.5)
        for name, one, other in zip(solution._fields, solution, alone, strict=True):
            assert_close(
                one, other, rtol=1e-6, atol=tolerance, msg=f"{penalty}: {name} of several weights differs from one's"
            )
    cut = penalty.cut(b.shape)
    if cut is not None and penalty.separable:
        pairs = zip(torch.split(b, cut.unit, cut.dim), torch.split(d, cut.unit, cut.dim), strict=True)
        together = torch.cat([penalty.solve(*pair, 0.5).x for pair in pairs], cut.dim)
        assert_close(together, penalty.solve(b, d, 0.5).x, msg=f"{penalty}: pieces differ from the whole")


def _check_no_metric(penalty: DiagonalProx, b: Tensor, d: Tensor) -> None:
    nothing = torch.zeros_like(b)
    x, kept, residual = penalty.solve(nothing, nothing, 1.0)
    _require(torch.equal(x, nothing) and not bool(kept.any()), penalty, "solve with b = d = 0 is not 0")
    _require(bool((residual == 0).all()), penalty, "solve with b = d = 0 has a residual")
    if penalty.value(b).isfinite():
        assert_close(penalty.solve(b, d, 0.0).x, b / d, msg=f"{penalty}: solve with weight 0 is not b / d")


def _check_invariances(penalty: Penalty, x: Tensor, tolerance: float) -> None:
    p = penalty.prox(x, 0.5)
    for copy in strided_copies(x):
        assert_close(penalty.prox(copy, 0.5), p, msg=f"{penalty}: prox depends on how a weight is stored")
        if isinstance(penalty, DiagonalProx):
            ones = torch.ones_like(copy)
            solution = penalty.solve(copy, ones, 0.5).x
            assert_close(
                solution, p, rtol=1e-6, atol=tolerance**0.5, msg=f"{penalty}: solve depends on how a weight is stored"
            )
    for dim in range(x.ndim):
        flipped = penalty.prox(x.flip(dim), 0.5).flip(dim)
        assert_close(flipped, p, msg=f"{penalty}: prox does not commute with reversing axis {dim}")


def _check_empty(penalty: Penalty, shape: Sequence[int]) -> None:
    for dim in range(len(shape)):
        empty = torch.zeros(*shape[:dim], 0, *shape[dim + 1 :], dtype=torch.float64)
        _require(penalty.prox(empty, 0.5).shape == empty.shape, penalty, "prox of an empty weight has another shape")
        _require(bool(penalty.value(empty) == 0), penalty, "value of an empty weight is not 0")
        if isinstance(penalty, DiagonalProx):
            x, kept, _ = penalty.solve(empty, empty, 0.5)
            _require(x.shape == empty.shape, penalty, "solve of an empty weight has another shape")
            _require(not bool(kept.any()), penalty, "solve of an empty weight keeps a group")


def _check_critical(penalty: GroupPenalty, b: Tensor, d: Tensor) -> None:
    critical = penalty.critical(b, d)
    _require(critical.shape == penalty.groups.grid(b.shape), penalty, "critical is not one number per group")
    dropped = penalty.solve(b, d, critical * (1 + 1e-6)).kept
    _require(not bool(dropped.any()), penalty, "a group survives a weight above its critical one")
    kept = penalty.solve(b, d, critical * (1 - 1e-6)).kept
    _require(torch.equal(kept, critical > 0), penalty, "a group vanishes at a weight below its critical one")


def _require(condition: bool, penalty: Penalty, complaint: str) -> None:
    if not condition:
        raise AssertionError(f"{penalty}: {complaint}")
