"""Samples made up so that it is known which inputs matter."""

from typing import Any

import pytest
import torch

from openwork.data import planted


def test_labels_depend_on_the_first_inputs_alone() -> None:
    made = planted(3, 5, 400, classes=3, valid=0.25, seed=2)
    assert (len(made.train), len(made.valid), len(made.test)) == (300, 100, 2000)
    assert made.train.inputs.shape == (300, 8)
    assert set(made.test.targets.tolist()) == {0, 1, 2}
    # A least-squares fit of the labels from the inputs of noise explains nothing, one from the first inputs does.
    x, y = made.test.inputs, torch.nn.functional.one_hot(made.test.targets).float()
    y = y - y.mean(0)

    def explained(inputs: torch.Tensor) -> float:
        fitted = inputs @ torch.linalg.lstsq(inputs, y).solution
        return float(1 - (y - fitted).square().sum() / y.square().sum())

    assert explained(x[:, 3:]) < 0.02
    assert explained(x[:, :3]) > 0.1


def test_samples_are_a_function_of_the_seed() -> None:
    a, b, c = planted(seed=1), planted(seed=1), planted(seed=2)
    assert torch.equal(a.train.inputs, b.train.inputs) and torch.equal(a.valid.targets, b.valid.targets)
    assert not torch.equal(a.test.inputs, c.test.inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"informative": 0}, r"planted: informative must be at least 1, got 0"),
        ({"noise": -1}, r"planted: noise must be at least 0, got -1"),
        ({"samples": 0}, r"planted: samples must be at least 1, got 0"),
        ({"classes": 1}, r"planted: classes must be at least 2, got 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planted(**options)
