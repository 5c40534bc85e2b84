"""A data set in memory, split into training, validation and test samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from openwork.data.generators import generator


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their targets; false in a condition when there are none.

    Args:
        inputs: ``(N, ...)``.
        targets: ``(N, ...)``, the target of each input.

    Raises:
        ValueError: If there are not as many targets as inputs.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if self.inputs.shape[0] != self.targets.shape[0]:
            raise ValueError(
                f"Split: {self.inputs.shape[0]} inputs have {self.targets.shape[0]} targets; give each input one target"
            )

    def __len__(self) -> int:
        return self.targets.shape[0]

    def take(self, rows: Tensor) -> "Split":
        """The samples with the indices ``rows``, ``(M,)`` int64, in that order."""
        return Split(self.inputs.index_select(0, rows), self.targets.index_select(0, rows))

    def none(self) -> "Split":
        """No samples, of the same kind."""
        return self.take(torch.empty(0, dtype=torch.int64, device=self.targets.device))

    def to(self, device: torch.device | str) -> "Split":
        """These samples on ``device``."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: what to train on, what to choose by, and what to look at once.

    Args:
        name: Of the data set.
        train: Samples to train on.
        valid: Samples to choose models by, from the training set; may be empty.
        test: Samples for the final number.
        classes: Of the targets, which are 0 to ``classes - 1``; 0 where the targets are real numbers.
        note: What a reader of a result must be told about the splits, or nothing.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    classes: int
    note: str = ""

    def hold_out(self, valid: float, seed: int | None) -> Self:
        """Move part of the training samples to the validation samples.

        Args:
            valid: How many: a fraction of the training samples if below 1, else a whole number of them.
            seed: Of the draw; ``None`` takes the last samples.

        Returns:
            The same data split anew; training and validation samples keep their order.

        Raises:
            ValueError: If nothing would be left to train on, or ``valid`` is negative, or there already are
                validation samples.
        """
        total = len(self.train)
        count = round(valid * total) if 0 <= valid < 1 else valid
        if not (0 <= count < total and count == int(count)):
            raise ValueError(
                f"{self.name}: valid must be a fraction in [0, 1) of the {total} training samples or a whole number "
                f"below {total}, got {valid}"
            )
        if self.valid:
            raise ValueError(f"{self.name}: there are {len(self.valid)} validation samples already; hold out once")
        order = torch.arange(total) if seed is None else torch.randperm(total, generator=generator("valid", seed))
        train, held = part(self.train, order, int(count))
        return replace(self, train=train, valid=held)

    def standardize(self, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor) -> Self:
        """Inputs ``(x - mean) / std`` in float32, after dividing bytes by 255.

        Args:
            mean: One number, or one per channel or feature (axis 1 of the inputs).
            std: The same, above 0.

        Raises:
            ValueError: If an entry of ``std`` is not above 0.
        """
        shift, scale = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        if not bool((scale > 0).all()):
            raise ValueError(f"{self.name}: std must be above 0, got {float(scale.min())}; leave constant features out")

        def along_axis_1(numbers: Tensor, inputs: Tensor) -> Tensor:
            return numbers.reshape(-1, *[1] * (inputs.ndim - 2)) if numbers.ndim else numbers

        def standardized(split: Split) -> Split:
            inputs = split.inputs / 255 if split.inputs.dtype == torch.uint8 else split.inputs.float().clone()
            # In place: the copy made above is the only one that a large data set can afford.
            inputs.sub_(along_axis_1(shift, inputs)).div_(along_axis_1(scale, inputs))
            return Split(inputs, split.targets)

        return self._each(standardized)

    def to(self, device: torch.device | str) -> Self:
        """This data on ``device``."""
        return self._each(lambda split: split.to(device))

    def _each(self, change: Callable[[Split], Split]) -> Self:
        return replace(self, train=change(self.train), valid=change(self.valid), test=change(self.test))


def split_off_test(name: str, samples: Split, classes: int, fraction: float) -> Data:
    """Data whose test samples are a fixed random draw, for sets without an official split.

    The draw does not depend on any seed of the user's, so the test samples are the same in every run.

    Args:
        name: Of the data set.
        samples: All of them.
        classes: See ``Data``.
        fraction: Of the samples that are for testing, in (0, 1).
    """
    total = len(samples)
    order = torch.randperm(total, generator=generator("test", name))
    train, test = part(samples, order, round(fraction * total))
    return Data(
        name,
        train=train,
        valid=train.none(),
        test=test,
        classes=classes,
        note=f"no official split: the test samples are a fixed random {fraction:.0%}",
    )


def part(samples: Split, order: Tensor, count: int) -> tuple[Split, Split]:
    """All samples but the last ``count`` of ``order``, and those; both as they were ordered before."""
    first = len(samples) - count
    order = order.to(samples.targets.device)
    return samples.take(torch.sort(order[:first])[0]), samples.take(torch.sort(order[first:])[0])
