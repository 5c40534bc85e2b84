"""Published pruning methods to compare with, in any training loop."""

from openwork.baselines.acdc import ACDC
from openwork.baselines.baseline import Baseline, Training
from openwork.baselines.dense import Dense
from openwork.baselines.gradual_magnitude_pruning import GradualMagnitudePruning
from openwork.baselines.lottery_ticket import LotteryTicket
from openwork.baselines.magnitude_pruning import MagnitudePruning
from openwork.baselines.masks import Masks
from openwork.baselines.pruning import Pruning
from openwork.baselines.random_pruning import RandomPruning
from openwork.baselines.rigl import RigL
from openwork.baselines.set import SET
from openwork.baselines.snip import SNIP
from openwork.baselines.subgradient import Subgradient
from openwork.baselines.synflow import SynFlow

__all__ = [
    "ACDC",
    "SET",
    "SNIP",
    "Baseline",
    "Dense",
    "GradualMagnitudePruning",
    "LotteryTicket",
    "MagnitudePruning",
    "Masks",
    "Pruning",
    "RandomPruning",
    "RigL",
    "Subgradient",
    "SynFlow",
    "Training",
]
