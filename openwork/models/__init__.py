"""Networks to train: plain modules of plain layers, built on the CPU to the same bits for the same seed."""

from openwork.models.lenet import lenet5, lenet300
from openwork.models.mlp import logistic, mlp, mlp7

__all__ = ["lenet5", "lenet300", "logistic", "mlp", "mlp7"]
