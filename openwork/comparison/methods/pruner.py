"""Published pruning methods."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

import torch
from typing_extensions import override

from openwork.baselines import (
    ACDC,
    SET,
    SNIP,
    Baseline,
    GradualMagnitudePruning,
    LotteryTicket,
    MagnitudePruning,
    Masks,
    RandomPruning,
    RigL,
    Subgradient,
    SynFlow,
)
from openwork.comparison.method import Method, geometric
from openwork.comparison.methods.scale import largest_strength
from openwork.comparison.task import Task
from openwork.penalties import L1, GroupLasso
from openwork.training import Run, pruned

Kind = Literal[
    "magnitude",
    "magnitude_layerwise",
    "magnitude_finetune",
    "gradual",
    "random",
    "snip",
    "synflow",
    "set",
    "rigl",
    "rigl_uniform",
    "acdc",
]
ABOUT: Mapping[Kind, str] = {
    "magnitude": "Magnitude pruning once, after training, of all weights together; no fine-tuning.",
    "magnitude_layerwise": "Magnitude pruning once, after training, of each weight the same fraction; no fine-tuning.",
    "magnitude_finetune": "Magnitude pruning once, of all weights together, then fine-tuning.",
    "gradual": "Gradual magnitude pruning of each weight the same fraction, along a cubic schedule.",
    "random": "Random masks at initialization, more of small layers (ERK).",
    "snip": "SNIP: pruning at initialization by the gradient of one batch.",
    "synflow": "SynFlow: pruning at initialization without data, in 100 iterations.",
    "set": "Sparse evolutionary training (SET): after each epoch weak connections move to random places.",
    "rigl": "RigL: weak connections move to where gradients are large; small layers are denser (ERK).",
    "rigl_uniform": "RigL: weak connections move to where gradients are large; all layers but the first equally dense.",
    "acdc": "AC/DC: compressed and dense training in turn.",
}
# How often masks may change at least, over a training: steps between two changes are those of the papers, which train
# for long, or fewer.
CHANGES = 20


@dataclass(frozen=True)
class Masked(Method):
    """Adam under masks, everything within the budget. A strength is a compression ratio of the weights that are pruned.

    Args:
        lr: Largest learning rate; it falls to 0 along half a cosine.
        weakest: First strength of a path, > 1.
        strongest: Last strength of a path.
    """

    baseline: ClassVar[bool] = True
    least: ClassVar[float] = 1.0

    lr: float = 3e-3
    weakest: float = 2.0
    strongest: float = 100.0

    @abstractmethod
    def pruning(self, task: Task, density: float, steps: int) -> Baseline:
        """The pruning method.

        Args:
            task: What is learned.
            density: Fraction of the weights that are pruned which is kept, in (0, 1].
            steps: Of the whole training.
        """

    @override
    def strengths(self, task: Task, count: int) -> list[float]:
        return geometric(self.weakest, self.strongest, count)

    @override
    def run(self, task: Task, strength: float, epochs: int, seed: int) -> Run:
        if strength < 1:
            raise ValueError(
                f"a pruner's strength must be at least 1, how many times fewer weights it leaves, got {strength:g}"
            )
        model, data = task.model(seed), task.data(seed)
        steps = epochs * ceil(len(data.train) / task.batch_size)
        return pruned(
            model,
            task.loss,
            torch.optim.Adam(model.parameters(), lr=self.lr),
            self.pruning(task, 1 / strength, steps),
            data=data,
            epochs=epochs,
            batch_size=task.batch_size,
            schedule="cosine",
            augment=task.augment,
            seed=seed,
        )

    @override
    def strength_at(self, task: Task, density: float) -> float | None:
        model = task.model(0)
        masks, params = Masks(model), sum(p.numel() for p in model.parameters())
        kept = density * params - (params - masks.total)
        return masks.total / kept if kept > 0 else None

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"lr": (3e-4, 1e-2)}


@dataclass(frozen=True)
class Pruner(Masked):
    """A method whose own numbers are those of its paper, times between changes of masks apart.

    Args:
        kind: Which. Magnitude pruning is of all weights together unless it says layerwise, and without fine-tuning
            unless it says so.
        finetune: Fraction of the training after the pruning, with fine-tuning.
    """

    kind: Kind = "magnitude"
    finetune: float = 0.3

    @override
    def about(self) -> str:
        return ABOUT[self.kind]

    @override
    def pruning(self, task: Task, density: float, steps: int) -> Baseline:
        every = min(100, max(1, steps // CHANGES))
        match self.kind:
            case "magnitude":
                return MagnitudePruning(density)
            case "magnitude_layerwise":
                return MagnitudePruning(density, "layerwise")
            case "magnitude_finetune":
                return MagnitudePruning(density, finetune=self.finetune, finetune_rate=0.3)
            case "gradual":
                return GradualMagnitudePruning(density, every=every)
            case "random":
                return RandomPruning(density, "erk")
            case "snip":
                return SNIP(density)
            case "synflow":
                return SynFlow(density)
            case "set":
                return SET(density)
            case "rigl":
                return RigL(density, every=every)
            case "rigl_uniform":
                return RigL(density, "uniform", every=every)
            case "acdc":
                return ACDC(density)


@dataclass(frozen=True)
class Ticket(Masked):
    """Lottery tickets with rewinding, all rounds within the budget: few epochs are left for each.

    The papers prune a fifth in each round, and give every round the whole budget; fewer rounds are better here.

    Args:
        rate: Fraction of what is left that one round prunes, in (0, 1).
        rewind: How far the first training is when its weights are those to go back to, a fraction of it, in [0, 1).
    """

    strongest: float = 20.0
    rate: float = 0.5
    rewind: float = 0.1

    @override
    def about(self) -> str:
        return (
            f"Lottery tickets: each round prunes {self.rate:.0%} of what is left and rewinds the rest to early weights."
        )

    @override
    def pruning(self, task: Task, density: float, steps: int) -> Baseline:
        rounds = LotteryTicket(density, self.rate).rounds
        return LotteryTicket(density, self.rate, rewind=int(self.rewind * steps / (rounds + 1)))

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {**super().ranges(), "rate": (0.2, 0.5)}


@dataclass(frozen=True)
class Unproximal(Masked):
    """A penalty by its plain subgradient, and in the end a cut: without a prox there are no zeros.

    Args:
        penalty: Of single weights (l1), or of the input features of each weight (group lasso).
        fraction: Strength of the penalty over its ``largest_strength``.
    """

    penalty: Literal["l1", "group"] = "l1"
    fraction: float = 1e-3

    @override
    def about(self) -> str:
        what, cut = ("An L1 penalty", "a cut") if self.penalty == "l1" else ("A group lasso", "a cut of whole groups")
        return f"{what} by its plain subgradient, then {cut} of the smallest: without a prox there are no zeros."

    @override
    def pruning(self, task: Task, density: float, steps: int) -> Baseline:
        match self.penalty:
            case "l1":
                return Subgradient(L1(self.fraction * largest_strength(task, L1(1.0))), density)
            case "group":
                return Subgradient(GroupLasso(self.fraction * largest_strength(task, GroupLasso(1.0))), density)

    @override
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        return {**super().ranges(), "fraction": (1e-4, 1e-2)}


__all__ = ["Masked", "Pruner", "Ticket", "Unproximal"]
