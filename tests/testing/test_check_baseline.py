"""The contract of baselines finds what breaks it."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from openwork.baselines import Baseline, Pruning, Training
from openwork.baselines.baseline import Loss
from openwork.testing import check_baseline


@dataclass(frozen=True)
class Half(Baseline):
    """Keeps every other entry from the beginning on."""

    density: float = 0.5

    @override
    def begin(self, pruning: Pruning, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
        pruning.keep_(self.masks(pruning))

    def masks(self, pruning: Pruning) -> dict[str, Tensor]:
        return {
            name: (torch.arange(weight.numel()) % 2 == 0).view(weight.shape)
            for name, weight in pruning.masks.weights.items()
        }


@dataclass(frozen=True)
class Leaking(Half):
    @override
    def after_step(self, pruning: Pruning) -> None:
        with torch.no_grad():
            pruning.masks.weights["0.weight"].add_(1e-3)


@dataclass(frozen=True)
class Remembering(Half):
    @override
    def after_step(self, pruning: Pruning) -> None:
        if pruning.step == 1:
            pruning.masks.weights["0.weight"].data.mul_(1 + 0.1 * len(_SEEN))
            _SEEN.append(pruning)


_SEEN: list[Pruning] = []


@dataclass(frozen=True)
class Drawing(Half):
    @override
    def masks(self, pruning: Pruning) -> dict[str, Tensor]:
        return {name: torch.rand(weight.shape) < 0.5 for name, weight in pruning.masks.weights.items()}


@dataclass(frozen=True)
class Gappy(Half):
    @override
    def trainings(self, steps: int) -> list[Training]:
        return [Training(0, 3), Training(5, steps)]


@dataclass(frozen=True)
class Creeping(Half):
    @override
    def final(self, pruning: Pruning) -> dict[str, Tensor]:
        return pruning.masks.by_magnitude(0.5 * pruning.masks.alive / pruning.masks.total, "global")


@dataclass(frozen=True)
class Hiding(Half):
    """Its masks are not in the state: what it changes later depends on a count of its own."""

    @override
    def after_step(self, pruning: Pruning) -> None:
        count = getattr(pruning, "count", 0) + 1
        setattr(pruning, "count", count)  # noqa: B010
        if count == 30:
            pruning.keep_(pruning.masks.by_magnitude(0.3, "global"))


def test_a_sound_baseline_passes() -> None:
    check_baseline(Half(), steps=20, period=4)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (Leaking(), "a masked entry of 0.weight is not zero after step 1"),
        (Remembering(), "to the same bits"),
        (Drawing(), "it changes the global random state"),
        (Gappy(), "trainings overlap, or leave steps out"),
        (Creeping(), "settling twice masks more than settling once"),
        (Hiding(), "it does not go on from its state after step 4 to the same bits"),
    ],
)
def test_a_broken_one_does_not(baseline: Baseline, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        check_baseline(baseline)
    assert caught.value.__notes__[0].startswith("check_baseline: ")
