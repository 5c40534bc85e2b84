"""Methods to compare, by name: functions without arguments that give them at their defaults."""

from openwork.comparison.methods.alternating import Alternating
from openwork.comparison.methods.dense import Dense
from openwork.comparison.methods.factorized import Factorized
from openwork.comparison.methods.proximal import Proximal
from openwork.comparison.methods.pruner import Pruner, Ticket, Unproximal
from openwork.comparison.methods.sketched import Sketched


def dense() -> Dense:
    """Adam, nothing removed."""
    return Dense()


def ramda() -> Proximal:
    """RAMDA with group lasso."""
    return Proximal("ramda", lr=0.01)


def rmda() -> Proximal:
    """RMDA with group lasso."""
    return Proximal("rmda", lr=0.3, weakest=0.7, strongest=6.0, fraction=0.06)


def proxsgd() -> Proximal:
    """ProxSGD with group lasso."""
    return Proximal("proxsgd", lr=0.3, weakest=0.7, strongest=6.0, fraction=0.06)


def proxadamw() -> Proximal:
    """Proximal AdamW with group lasso."""
    return Proximal("proxadamw", lr=3e-3, averaging=1.0)


def dwf2() -> Factorized:
    """Deep weight factorization with two factors: single weights, as with an L1 penalty."""
    return Factorized(2, lr=1.0, strongest=100.0)


def dwf3() -> Factorized:
    """Deep weight factorization with three factors."""
    return Factorized(3, lr=1.0, strongest=40.0)


def dwf4() -> Factorized:
    """Deep weight factorization with four factors."""
    return Factorized(4, lr=0.5, strongest=28.0)


def mast_magnitude() -> Sketched:
    """Sketched training (MAST), then magnitude pruning of each layer."""
    return Sketched()


def tiam() -> Alternating:
    """Alternating minimization (TIAM) with group lasso."""
    return Alternating("group")


def tiam_l1() -> Alternating:
    """Alternating minimization (TIAM) with an L1 penalty."""
    return Alternating("l1")


def magnitude() -> Pruner:
    """Magnitude pruning once, after training, of all weights together."""
    return Pruner(kind="magnitude")


def magnitude_layerwise() -> Pruner:
    """Magnitude pruning once, after training, of each weight the same fraction."""
    return Pruner(kind="magnitude_layerwise")


def magnitude_finetune() -> Pruner:
    """Magnitude pruning once, then fine-tuning."""
    return Pruner(kind="magnitude_finetune")


def gradual() -> Pruner:
    """Gradual magnitude pruning."""
    return Pruner(kind="gradual")


def random() -> Pruner:
    """Random pruning at initialization."""
    return Pruner(kind="random")


def snip() -> Pruner:
    """SNIP: pruning at initialization by the gradient of one batch."""
    return Pruner(kind="snip")


def synflow() -> Pruner:
    """SynFlow: pruning at initialization without data."""
    return Pruner(kind="synflow")


def set() -> Pruner:
    """Sparse evolutionary training: weak connections move to random places."""
    return Pruner(kind="set")


def rigl() -> Pruner:
    """RigL: weak connections move to where gradients are large."""
    return Pruner(kind="rigl")


def rigl_uniform() -> Pruner:
    """RigL with the same density in all weights but the first, which stays dense."""
    return Pruner(kind="rigl_uniform")


def acdc() -> Pruner:
    """AC/DC: compressed and dense training in turn."""
    return Pruner(kind="acdc")


def subgradient_l1() -> Unproximal:
    """An L1 penalty by its plain subgradient, then a cut."""
    return Unproximal(penalty="l1")


def subgradient_group() -> Unproximal:
    """A group lasso by its plain subgradient, then a cut of whole groups."""
    return Unproximal(penalty="group", weakest=1.2, strongest=10.0)


def lottery() -> Ticket:
    """Lottery tickets with rewinding."""
    return Ticket()


__all__ = [
    "acdc",
    "dense",
    "dwf2",
    "dwf3",
    "dwf4",
    "gradual",
    "lottery",
    "magnitude",
    "magnitude_finetune",
    "magnitude_layerwise",
    "mast_magnitude",
    "proxadamw",
    "proxsgd",
    "ramda",
    "random",
    "rigl",
    "rigl_uniform",
    "rmda",
    "set",
    "snip",
    "subgradient_group",
    "subgradient_l1",
    "synflow",
    "tiam",
    "tiam_l1",
]
