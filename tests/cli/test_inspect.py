"""``openwork inspect``: what a recipe's model could lose, before training."""

from collections.abc import Callable
from pathlib import Path

import pytest

from openwork.cli import main

OWN = '''
import torch
from torch import nn
from openwork.data import Data, Split
from openwork.training import Run, supervised

class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        while x.sum() > 1000:
            x = x / 2
        return self.layer(x)

def loop() -> Run:
    """Control flow that depends on values."""
    samples = Split(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
    model = Loop()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = Data("none", samples, samples, samples, classes=2)
    return supervised(model, nn.functional.cross_entropy, optimizer, data=data, epochs=1)
'''


def test_couplings_are_listed_and_what_blocks_the_rest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", "rmda_digits", "--hidden", "[9,7]"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("2 couplings can lose units (")
    assert [line.split() for line in lines[1:4]] == [
        ["width", "saves", "producers", "consumers"],
        ["9", "576", "1.weight,", "1.bias", "3.weight"],
        ["7", "120", "3.weight,", "3.bias", "5.weight"],
    ]
    assert "    it is an output of the model" in lines
    assert printed.err == ""  # no line for those who wait, where nobody does
    assert not any(tmp_path.iterdir())


def test_a_sketched_network_is_inspected_without_its_sketch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "mast_digits", "--hidden", "[9,7]"]) == 0
    printed = capsys.readouterr().out
    assert [line.split()[2] for line in printed.splitlines()[2:4]] == ["1.weight,", "3.weight,"]
    assert "module.py" not in printed


def test_a_factorized_model_is_seen_as_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "dwf_gate_digits", "--hidden", "[12,8]"]) == 0
    printed = capsys.readouterr().out
    assert "1.weight" in printed and "original" not in printed


def test_a_mistake_is_one_sentence(says: Callable[..., str], tmp_path: Path) -> None:
    assert says("inspect") == ("inspect: the following arguments are required: recipe; see openwork inspect --help")
    assert says("inspect", "ramda_digts").startswith("there is no recipe 'ramda_digts'; did you mean ramda_digits or")
    assert says("inspect", "ramda_digits", "--lamb", "1").startswith(
        "inspect ramda_digits has no option --lamb; did you mean --lam"
    )
    assert says("inspect", "ramda_digits", "extra").endswith("a recipe comes before its options")
    assert says("inspect", "ramda_digits", "--lam", "-1").startswith("GroupLasso: --lam must be >= 0, got -1.0")
    (tmp_path / "own_loop.py").write_text(OWN)
    assert says("inspect", "own_loop:loop").startswith(
        "trace: Loop cannot be traced, most often because its control flow depends on the values of a tensor ("
    )
