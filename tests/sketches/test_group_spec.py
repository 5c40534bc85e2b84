"""Groups by hand: the couplings they make, what they refuse, and experts that are really taken out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork import models
from openwork.shrinking import NotEqual
from openwork.sketches import GroupSpec, Key, RandK, SketchedModule, UnitSlices
from openwork.wiring import AxisSlices, inspect


def hidden(model_width: int = 6) -> GroupSpec:
    return GroupSpec(
        model_width,
        [UnitSlices("1.weight", 0, "in"), UnitSlices("1.bias", -1, "in"), UnitSlices("3.weight", -1, "out")],
    )


def same(ours: tuple[AxisSlices, ...], theirs: tuple[AxisSlices, ...]) -> bool:
    one, other = ({(p.name, p.dim, p.shape): p.units.tolist() for p in parts} for parts in (ours, theirs))
    return one == other


def test_is_what_the_wiring_finds() -> None:
    model = models.mlp((4, 6, 3))
    ours, (theirs,) = hidden().coupling(model), inspect(model, torch.randn(2, 4)).removable
    assert ours.width == theirs.width
    assert same(ours.producers, theirs.producers)
    assert same(ours.consumers, theirs.consumers)


def test_statistics_flattened_positions_and_fused_heads() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var")
    spec = GroupSpec(4, [*(UnitSlices(name, 0, "in") for name in names), UnitSlices("3.weight", 1, "out", stride=4)])
    ours, theirs = spec.coupling(conv), inspect(conv, torch.randn(2, 3, 2, 2)).removable[0]
    assert same(ours.producers, theirs.producers)
    assert same(ours.consumers, theirs.consumers)
    assert same(ours.statistics, theirs.statistics)

    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    spec = GroupSpec(
        2,
        [
            UnitSlices("in_proj_weight", 0, "in", stride=4),
            UnitSlices("in_proj_bias", 0, "in", stride=4),
            UnitSlices("out_proj.weight", 1, "out", stride=4),
        ],
    )
    rows, bias = spec.coupling(layer).producers
    (columns,) = spec.coupling(layer).consumers
    assert rows.units.tolist() == bias.units.tolist() == 3 * [0, 0, 0, 0, 1, 1, 1, 1]
    assert columns.units.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_ranges_of_one_dimension() -> None:
    """Two query heads for each of two key heads, in one matrix."""
    model = nn.Sequential(nn.Linear(4, 16), nn.Linear(8, 3))
    spec = GroupSpec(
        2,
        [
            UnitSlices("0.weight", 0, "in", stride=4, stop=8),
            UnitSlices("0.weight", 0, "in", stride=2, start=8, stop=12),
            UnitSlices("1.weight", 1, "out", stride=4),
        ],
    )
    (part,) = spec.coupling(model).producers
    assert part.units.tolist() == [0] * 4 + [1] * 4 + [0, 0, 1, 1] + [-1] * 4


class Experts(nn.Module):
    """Fused experts behind gates, in a loop that nobody can trace: it depends on the values of the gates."""

    def __init__(self, gates: str, experts: int = 4) -> None:
        super().__init__()
        self.gates, self.experts = gates, experts
        self.gate = nn.Linear(6, experts)
        self.up, self.down = nn.Parameter(torch.randn(experts, 6, 5)), nn.Parameter(torch.randn(experts, 5, 3))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.gate(x)
        scores = scores.softmax(-1) if self.gates == "softmax" else scores.sigmoid()
        out = x.new_zeros(len(x), 3)
        for at in range(self.experts):
            if float(scores[:, at].detach().amax()) > 0:
                out = out + scores[:, at, None] * torch.relu(x @ self.up[at]) @ self.down[at]
        return out


def experts(gates: str) -> tuple[Experts, Tensor, GroupSpec]:
    torch.manual_seed(0)
    spec = GroupSpec(
        4,
        [
            *(UnitSlices(name, 0, "in") for name in ("gate.weight", "gate.bias", "up")),
            UnitSlices("down", 0, "out"),
        ],
        attributes=["experts"],
    )
    return Experts(gates).double(), torch.randn(5, 6, dtype=torch.float64), spec


def test_experts_with_gates_of_their_own_are_sliced() -> None:
    model, x, spec = experts("sigmoid")
    options: dict[str, Any] = {"shift": "zero", "granularity": "units", "groups": [spec.coupling(model)]}
    masked = SketchedModule(model, RandK(2), example_inputs=x, **options)
    sliced = SketchedModule(model, RandK(2), example_inputs=x, mode="slice", **options)
    for step in range(3):
        found: list[list[Tensor]] = []
        for one in (masked, sliced):
            one.zero_grad()
            with one.draw(Key(0, step)):
                loss = one(x).sin().sum()
            loss.backward()
            found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        assert len(found[0]) == 5
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
    small: Any = sliced.submodel(Key(0)).module
    assert small.experts == 2
    assert tuple(small.up.shape) == (2, 6, 5)


def test_experts_that_share_a_softmax_are_refused() -> None:
    model, x, spec = experts("softmax")
    with pytest.raises(NotEqual, match="most likely a normalization, a softmax or a mean runs over them"):
        SketchedModule(
            model, RandK(2), shift="zero", granularity="units", groups=[spec.coupling(model)], example_inputs=x,
            mode="slice",
        )  # fmt: skip


def test_a_forgotten_attribute_is_seen() -> None:
    model, x, spec = experts("sigmoid")
    spec = GroupSpec(4, spec.slices)
    with pytest.raises(NotEqual, match="it does not run"):
        SketchedModule(
            model, RandK(2), shift="zero", granularity="units", groups=[spec.coupling(model)], example_inputs=x,
            mode="slice",
        )  # fmt: skip


def frozen() -> nn.Module:
    model: Any = models.mlp((4, 6, 3))
    model[3].weight.requires_grad_(False)
    return model


def counting() -> nn.Module:
    model: Any = models.mlp((4, 6, 3))
    model[3].weight = nn.Parameter(torch.ones(3, 6, dtype=torch.int64), requires_grad=False)
    return model


W1, W2 = UnitSlices("1.weight", 0, "in"), UnitSlices("3.weight", 1, "out")
BAD: list[tuple[str, list[UnitSlices], str]] = [
    ("name", [W1, UnitSlices("2.weight", 1, "out")], "has no tensor '2.weight'; nearest are"),
    ("dim", [W1, UnitSlices("3.weight", 2, "out")], r"'3.weight' of shape \(3, 6\) has no dimension 2"),
    ("width", [UnitSlices("1.weight", 1, "in"), W2], "4 indices of dimension 1 .* are no multiple of 6 units"),
    ("stride", [W1, UnitSlices("3.weight", 1, "out", stride=2)], "are no multiple of 6 units of 2"),
    ("range", [W1, UnitSlices("3.weight", 1, "out", stop=7)], "start 0 and stop 7 of '3.weight' must lie in order"),
    ("twice", [W1, W1, W2], "two slices of '1.weight' overlap in dimension 0"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_slices_that_do_not_fit(parts: list[UnitSlices], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupSpec(6, parts).coupling(models.mlp((4, 6, 3)))


def test_what_cannot_be_sketched() -> None:
    with pytest.raises(ValueError, match=r"'3.weight' is frozen and cannot be sketched"):
        hidden().coupling(frozen())
    with pytest.raises(ValueError, match=r"'3.weight' is of torch.int64 and cannot be sketched"):
        hidden().coupling(counting())
    with pytest.raises(ValueError, match=r"'1.running_mean' is a buffer and cannot be sketched"):
        GroupSpec(4, [UnitSlices("1.running_mean", 0, "out")]).coupling(
            nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
        )


def test_part_of_a_tied_tensor() -> None:
    model = models.gpt(20, 8, 8, 1, 2, seed=0)
    spec = GroupSpec(8, [UnitSlices("positions.weight", 1, "in"), UnitSlices("head.weight", 1, "out")])
    message = (
        "'head.weight' is the same tensor as 'tokens.weight', which the group leaves out; list dimension 1 of both"
    )
    with pytest.raises(ValueError, match=message):
        spec.coupling(model)
    both = GroupSpec(8, [*spec.slices, UnitSlices("tokens.weight", 1, "in")]).coupling(model)
    assert [(part.name, part.dim) for part in both.slices()] == [("positions.weight", 1), ("tokens.weight", 1)]


def test_attributes_that_do_not_count_units() -> None:
    model = models.mlp((4, 6, 3))
    for attribute in ("1.in_features", "1.heads", "9.in_features"):
        with pytest.raises(ValueError, match=f"attribute '{attribute}' must hold 6 or a multiple of it, got"):
            GroupSpec(6, [W1, W2], attributes=[attribute]).coupling(model)


@pytest.mark.parametrize(
    ("width", "part", "message"),
    [
        (0, W2, "width must be at least 1, got 0"),
        (6, UnitSlices("3.weight", 1, "out", stride=0), "stride of '3.weight' must be at least 1, got 0"),
        (6, UnitSlices("3.weight", 1, "both"), "role of '3.weight' must be 'in' or 'out', got 'both'"),  # pyright: ignore[reportArgumentType]
        (6, W1, "nothing reads the units"),
    ],
    ids=["width", "stride", "role", "unread"],
)
def test_numbers_out_of_range(width: int, part: UnitSlices, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GroupSpec(width, [part])
