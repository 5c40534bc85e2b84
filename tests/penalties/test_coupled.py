import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from openwork.partitions import Blocks, Slices
from openwork.penalties import (
    L1,
    Coupled,
    GroupL0,
    GroupLasso,
    GroupMCP,
    GroupPenalty,
    GroupSCAD,
    Nonnegative,
    NuclearNorm,
    Penalty,
    SparseGroupLasso,
    Target,
    Zero,
)
from openwork.structure import Support
from openwork.wiring import AxisSlices

PENALTIES = [
    GroupLasso(0.4),
    GroupLasso(0.9, weight="one"),
    GroupLasso(0.1, weight="size"),
    SparseGroupLasso(0.4),
    GroupMCP(0.3),
    GroupSCAD(0.3),
    GroupL0(0.05),
    Nonnegative(GroupLasso(0.3)),
]

# Two couplings, of four and of three units. Units along the axis of every weight; -1 is none.
FIRST = {
    "conv": (1, (5, 4, 2, 2), [0, 1, 2, 3]),
    "flat": (1, (3, 12), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
    "gates": (0, (10, 2), [0, 1, 2, 3, -1, 0, 1, 2, 3, -1]),
    "bias": (0, (4,), [0, 1, 2, 3]),
    "part": (0, (9, 3), [-1, 0, 1, 2, 3, -1, -1, -1, -1]),
}
SECOND = {
    "part": (0, (9, 3), [-1, -1, -1, -1, -1, 0, 1, 2, -1]),
    "head": (0, (6, 2), [0, 0, 1, 1, 2, 2]),
}
ALONE = {"alone": (1, (7, 6), [0, 0, 1, 1, 2, 2])}
SHUFFLED = {"part": (0, (9, 3), [-1, 5, 2, 2, 0, -1, 4, 1, 3]), "bias": (0, (4,), [3, 1, 0, 2])}

Side = dict[str, tuple[int, tuple[int, ...], list[int]]]


def slices(side: Side) -> list[AxisSlices]:
    return [AxisSlices(name, dim, shape, torch.tensor(units)) for name, (dim, shape, units) in side.items()]


def couple(penalty: GroupPenalty, *sides: Side) -> tuple[Coupled, list[list[AxisSlices]], list[str]]:
    """The penalty, its couplings, and the names of the weights in their order, which is not that of the couplings."""
    shapes = {name: shape for side in reversed(sides) for name, (_, shape, _) in side.items()}
    parts = [slices(side) for side in sides]
    return Coupled.of(penalty, parts, shapes), parts, list(shapes)


SIDES = {
    "views": (FIRST, SECOND, ALONE),
    # What has no view stays together with all that is coupled to it.
    "scattered": ({"gates": (0, (10, 2), [3, 1, 2, 0, -1, 0, 1, 2, 3, -1]), "conv": FIRST["conv"]}, SECOND, ALONE),
    "scattered alone": ({"alone": (1, (7, 6), [2, 0, 1, 1, 0, 2])},),
    "scattered among others": (FIRST | {"bias": (0, (4,), [3, 1, 0, 2])}, SECOND, ALONE),
}


def problem(coupled: Coupled) -> tuple[list[Tensor], list[Tensor]]:
    b = [torch.randn(shape, dtype=torch.float64) * 10 ** torch.randn(shape).double() / 3 for shape in coupled.shapes]
    # One unit is small.
    for units in coupled.couplings[-1]:
        piece = units.take(b[units.position]).clone()
        piece.select(units.axis, 0).mul_(1e-3)
        units.put_(b[units.position], piece)
    return b, [torch.rand_like(x) + 0.1 for x in b]


def entries(part: AxisSlices, unit: int) -> Tensor:
    """Where the entries of one unit are in a weight."""
    here = (part.units == unit).view([-1 if dim == part.dim else 1 for dim in range(len(part.shape))])
    return here.expand(part.shape)


def one_by_one(
    penalty: GroupPenalty,
    sides: list[list[AxisSlices]],
    names: list[str],
    b: list[Tensor],
    d: list[Tensor],
    weight: float,
) -> tuple[list[Tensor], list[Tensor]]:
    """Every unit on its own, as one vector; and who survives, per coupling."""
    x = [p / q for p, q in zip(b, d, strict=True)]
    alive: list[Tensor] = []
    for side in sides:
        width = int(side[0].units.max()) + 1
        alive.append(torch.zeros(width, dtype=torch.bool))
        for unit in range(width):
            at = [(names.index(part.name), entries(part, unit)) for part in side]
            vectors = [torch.cat([xs[i][here] for i, here in at]) for xs in (b, d)]
            solution = penalty.regroup(Blocks((vectors[0].numel(),))).solve(vectors[0], vectors[1], weight)
            for (i, here), values in zip(at, solution.x.split([int(here.sum()) for _, here in at]), strict=True):
                x[i][here] = values
            alive[-1][unit] = bool(solution.kept)
    return x, alive


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("penalty", PENALTIES, ids=repr)
def test_every_unit_is_one_group_over_all_weights(penalty: GroupPenalty, sides: tuple[Side, ...]) -> None:
    coupled, parts, names = couple(penalty, *sides)
    b, d = problem(coupled)
    wanted, alive = one_by_one(penalty, parts, names, b, d, 0.7)
    solutions = coupled.solve_([x.clone() for x in b], [x.clone() for x in d], 0.7)
    for solution, x in zip(solutions, wanted, strict=True):
        assert_close(solution.x, x)
        assert torch.equal(solution.x == 0, x == 0)
        assert bool((solution.residual < 1e-6).all())
    kept = [solution.kept for solution in solutions]
    assert [k.tolist() for k in coupled.distinct(kept)] == [k.tolist() for k in alive]
    assert 0 < sum(int(k.sum()) for k in alive) < sum(k.numel() for k in alive)
    assert [k.tolist() for k in coupled.kept_list(wanted)] == [k.tolist() for k in kept]
    ones = [torch.ones_like(x) for x in b]
    proxes = coupled.prox_list(b, 0.3)
    for solution, x in zip(proxes, one_by_one(penalty, parts, names, b, ones, 0.3)[0], strict=True):
        assert_close(solution.x, x)


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_the_value_is_the_sum_over_units(sides: tuple[Side, ...]) -> None:
    coupled, parts, names = couple(GroupLasso(0.4), *sides)
    x, _ = problem(coupled)
    wanted = 0.0
    for side in parts:
        for unit in range(int(side[0].units.max()) + 1):
            vector = torch.cat([x[names.index(part.name)][entries(part, unit)] for part in side])
            wanted += 0.4 * vector.numel() ** 0.5 * float(vector.norm())
    assert float(coupled.value_list(x)) == pytest.approx(wanted)


@pytest.mark.parametrize("limit", [None, 0, 1, 20, 60, 10_000])
@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
def test_parts_hold_every_entry_once_and_solve_the_same(sides: tuple[Side, ...], limit: int | None) -> None:
    coupled, _, _ = couple(SparseGroupLasso(0.4), *sides)
    b, d = problem(coupled)
    whole = coupled.solve_([x.clone() for x in b], [x.clone() for x in d], 0.7)
    seen, x = [torch.zeros_like(p) for p in b], [torch.full_like(p, torch.nan) for p in b]
    kept: list[list[Tensor]] = [[] for _ in b]
    squares = 0.0
    for part in coupled.split([p.shape for p in b], limit):
        for piece in part.pieces:
            piece.take(seen[piece.position]).add_(1)
        pairs = [[piece.take(xs[piece.position]) for piece in part.pieces] for xs in (b, d)]
        assert isinstance(part.penalty, Coupled | Zero)
        for piece, solution in zip(part.pieces, part.penalty.solve_(pairs[0], pairs[1], 0.7), strict=True):
            piece.take(x[piece.position]).copy_(solution.x)
            kept[piece.position].append(solution.kept)
            squares += float(solution.residual.square().sum())
    assert all(bool((count == 1).all()) for count in seen)
    for point, bits, solution in zip(x, kept, whole, strict=True):
        assert_close(point, solution.x)
        assert torch.equal(torch.cat(bits), solution.kept)
    assert squares == pytest.approx(sum(float(s.residual.square().sum()) for s in whole), abs=1e-20)


def test_parts_are_cut_between_units() -> None:
    coupled, _, _ = couple(GroupLasso(0.4), FIRST, SECOND, ALONE)
    sizes = [
        sum(piece.take(torch.empty(coupled.shapes[piece.position])).numel() for piece in part.pieces)
        for part in coupled.split(coupled.shapes, 60)
    ]
    # Units of 37, 7 and 14 entries, and ten free ones.
    assert sizes == [37, 37, 37, 37 + 3 * 7, 3 * 14, 10]


def test_structures_say_what_is_zero_along_the_axis() -> None:
    coupled, _, names = couple(GroupLasso(1.0), FIRST, SECOND, ALONE)
    kept = coupled.kept_list([torch.zeros(shape) for shape in coupled.shapes])
    x = [torch.zeros(shape) for shape in coupled.shapes]
    x[names.index("flat")][0, 4] = 1.0  # unit 1 of the first coupling
    x[names.index("head")][5, 1] = 1.0  # unit 2 of the second
    found = dict(zip(names, coupled.read_list(coupled.kept_list(x)), strict=True))
    assert all(not k.any() for k in coupled.distinct(kept))
    assert [k.tolist() for k in coupled.distinct(coupled.kept_list(x))] == [
        [False, True, False, False],
        [False, False, True],
        [False, False, False],
    ]
    alive = {name: structure.kept.int().tolist() for name, structure in found.items()}
    assert alive == {
        "conv": [0, 1, 0, 0],
        "flat": [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        "gates": [0, 1, 0, 0, 1, 0, 1, 0, 0, 1],
        "bias": [0, 1, 0, 0],
        "part": [1, 0, 1, 0, 0, 0, 0, 1, 1],
        "head": [0, 0, 0, 0, 1, 1],
        "alone": [0, 0, 0, 0, 0, 0],
    }
    dims = {name: structure.groups for name, structure in found.items() if isinstance(structure, Support)}
    assert dims == {name: Slices(1 if name in ("conv", "flat", "alone") else 0) for name in names}


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 1.0])
def test_target_ranks_the_units_of_all_couplings_together(fraction: float) -> None:
    coupled, parts, names = couple(GroupLasso(1.0), FIRST, SECOND, ALONE)
    b, d = problem(coupled)
    target = Target(coupled, fraction)
    assert target.joins and not target.separable
    solutions = target.solve_([x.clone() for x in b], d, 1.0)
    alive = torch.cat(target.distinct([solution.kept for solution in solutions]))
    assert int((~alive).sum()) == round(fraction * 10)
    # There is one strength that does the same.
    weights = torch.cat(coupled.criticals(b, d)).sort().values
    zeros = round(fraction * 10)
    weight = 0.0 if zeros == 0 else float(weights[zeros - 1]) * (1 + 1e-9)
    for solution, x in zip(solutions, one_by_one(GroupLasso(1.0), parts, names, b, d, weight)[0], strict=True):
        assert_close(solution.x, x, rtol=1e-5, atol=1e-5)


def test_layout_and_precision_do_not_matter() -> None:
    coupled, _, _ = couple(GroupLasso(0.4), FIRST, SECOND, ALONE)
    b, d = problem(coupled)
    plain = coupled.solve_([x.clone() for x in b], [x.clone() for x in d], 0.7)

    def strange(x: Tensor) -> Tensor:
        return x.to(memory_format=torch.channels_last) if x.ndim == 4 else x.mT.contiguous().mT if x.ndim == 2 else x

    for solution, wanted in zip(
        coupled.solve_([strange(x) for x in b], [strange(x) for x in d], 0.7), plain, strict=True
    ):
        assert_close(solution.x, wanted.x)
    for solution in coupled.solve_([x.float() for x in b], [x.float() for x in d], 0.7):
        assert solution.x.dtype == torch.float32


def test_a_copy_solves_the_same() -> None:
    coupled, _, _ = couple(GroupLasso(0.4), *SIDES["scattered"])
    b, d = problem(coupled)
    wanted = coupled.solve_([x.clone() for x in b], d, 0.7)
    list(coupled.split(coupled.shapes, 10))
    for twin in (copy.deepcopy(coupled), replace(coupled, penalty=GroupLasso(0.4))):
        assert twin == coupled and hash(twin) == hash(coupled)
        for one, other in zip(twin.solve_([x.clone() for x in b], d, 0.7), wanted, strict=True):
            assert torch.equal(one.x, other.x)


def test_one_weight_is_a_penalty_like_any_other() -> None:
    coupled, _, _ = couple(GroupLasso(0.4), ALONE)
    (b,), (d,) = problem(coupled)
    same = GroupLasso(0.4, Blocks((7, 2)))
    assert_close(coupled.value(b), same.value(b))
    assert_close(coupled.prox(b, 0.3), same.prox(b, 0.3))
    assert_close(coupled.solve(b, d, 0.3).x, same.solve(b, d, 0.3).x)
    assert coupled.structure(b).kept.tolist() == [True] * 6
    assert coupled.convex


@pytest.mark.parametrize("penalty", [L1(0.1), NuclearNorm(0.1), Nonnegative(L1(0.1)), Zero()], ids=repr)
def test_refuses_a_penalty_without_groups(penalty: Penalty) -> None:
    with pytest.raises(
        TypeError, match="Coupled: penalty must drop groups that can be chosen, as GroupLasso does, got"
    ):
        Coupled(penalty, (), ())  # pyright: ignore[reportArgumentType]


def test_refuses_weights_that_are_not_its_own() -> None:
    coupled, _, _ = couple(GroupLasso(0.4), ALONE)
    with pytest.raises(ValueError, match=r"Coupled: no weight of shape \(7, 5\) is among those of \[\(7, 6\)\]; use"):
        coupled.check(torch.ones(7, 5))
    with pytest.raises(ValueError, match=r"Coupled: the weights must have the shapes \[\(7, 6\)\], got \[\]; keep"):
        list(coupled.split([], None))


def test_refuses_units_of_unequal_size() -> None:
    part = AxisSlices("w", 1, (2, 3), torch.tensor([0, 0, 1]))
    with pytest.raises(
        ValueError, match=r"Coupled: in 'w' some units have 1 indices along axis 1 and others 2; exclude"
    ):
        Coupled.of(GroupLasso(1.0), [[part]], {"w": (2, 3)})
