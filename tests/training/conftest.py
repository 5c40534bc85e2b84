"""A recipe of someone's own, in a folder of its own, that can be made to stop in the middle."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = '''\
"""A recipe with everything that draws random numbers, which dies at a step of choice."""

import os
import signal

from torch import nn
from torch.nn.functional import cross_entropy

from openwork.data import CropFlip, Data, Split, digits
from openwork.optim import RAMDA, regularize
from openwork.penalties import GroupLasso
from openwork.training import Run, supervised


def noisy(lam: float = 2e-3, epochs: int = 6, seed: int = 0) -> Run:
    """Digits with convolution, batch normalization, dropout, and augmentation.

    Args:
        lam: Strength.
        epochs: Passes over the training samples.
        seed: Of the split and the order.
    """
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10)
    )
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.constant_(parameter, 0.01)
    data = digits(seed=seed)
    splits = (data.train, data.valid, data.test)
    train, valid, test = (Split(s.inputs[:256].view(-1, 1, 8, 8), s.targets[:256]) for s in splits)
    calls = 0

    def loss(outputs, targets):
        nonlocal calls
        if outputs.requires_grad:
            calls += 1
            if calls == int(os.environ.get("DIES_AT", 0)):
                if os.environ["DIES_OF"] == "error":
                    raise ArithmeticError("planted")
                os.kill(os.getpid(), getattr(signal, os.environ["DIES_OF"]))
        return cross_entropy(outputs, targets)

    return supervised(
        network,
        loss,
        RAMDA(regularize(network, GroupLasso(lam)), lr=0.01, averaging=0.25),
        data=Data("digits", train, valid, test, classes=10),
        epochs=epochs,
        milestones=[1],
        batch_size=32,
        augment=CropFlip(1),
        select="best",
        seed=seed,
    )
'''

OpenWork = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the recipe, whose file is in the working directory."""
    # Modules are remembered by name: each test has its own.
    name = f"own_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return f"{name}:noisy"


@pytest.fixture
def openwork() -> OpenWork:
    """The command line, in a process of its own, in the working directory."""
    root = Path(__file__).parents[2]

    def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "openwork", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "PYTHONPATH": str(root), **environment},
        )

    return command
