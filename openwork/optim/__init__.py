"""Optimizers for loss + penalty: exact structured zeros, in any training loop."""

from openwork.optim.base import ReadOut, StructuredOptimizer
from openwork.optim.factorized_sgd import FactorizedSGD
from openwork.optim.prox_adamw import ProxAdamW
from openwork.optim.prox_sgd import OriginalProxSGD, ProxSGD
from openwork.optim.proximal import ProximalOptimizer, ProximalReadOut
from openwork.optim.ramda import RAMDA
from openwork.optim.regularize import ParamGroups, regularize
from openwork.optim.rmda import RMDA
from openwork.optim.stages import Stages
from openwork.optim.strength import strength_max
from openwork.optim.unwrap import unwrap

__all__ = [
    "RAMDA",
    "RMDA",
    "FactorizedSGD",
    "OriginalProxSGD",
    "ParamGroups",
    "ProxAdamW",
    "ProxSGD",
    "ProximalOptimizer",
    "ProximalReadOut",
    "ReadOut",
    "Stages",
    "StructuredOptimizer",
    "regularize",
    "strength_max",
    "unwrap",
]
