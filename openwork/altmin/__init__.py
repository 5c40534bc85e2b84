"""Alternating minimization: training without backpropagation, block by block."""

from openwork.altmin.activations import activation_of
from openwork.altmin.couplings import Band, Coupling, Exact, QuadraticPenalty
from openwork.altmin.elementwise import Activation
from openwork.altmin.inertia import Inertia, InertiaSchedule, Nesterov
from openwork.altmin.links import LinearLink, Link, links_of
from openwork.altmin.losses import CrossEntropy, OutputLoss, Squared
from openwork.altmin.measurement import Measurement
from openwork.altmin.orders import Order, Visit, backward_forward, forward, output_to_input, red_black
from openwork.altmin.piecewise import ReLU
from openwork.altmin.presets import bcd, dladmm, mdlam, tiam
from openwork.altmin.rho import AdaptiveRho, FixedRho, RelativeRho, RhoPolicy, RisingCostRho
from openwork.altmin.trainer import AMTrainer, ForwardGap
from openwork.altmin.weight_block import ExactWeights, MajorizedWeights, WeightSolver

__all__ = [
    "AMTrainer",
    "Activation",
    "AdaptiveRho",
    "Band",
    "Coupling",
    "CrossEntropy",
    "Exact",
    "ExactWeights",
    "FixedRho",
    "ForwardGap",
    "Inertia",
    "InertiaSchedule",
    "LinearLink",
    "Link",
    "MajorizedWeights",
    "Measurement",
    "Nesterov",
    "Order",
    "OutputLoss",
    "QuadraticPenalty",
    "ReLU",
    "RelativeRho",
    "RhoPolicy",
    "RisingCostRho",
    "Squared",
    "Visit",
    "WeightSolver",
    "activation_of",
    "backward_forward",
    "bcd",
    "dladmm",
    "forward",
    "links_of",
    "mdlam",
    "output_to_input",
    "red_black",
    "tiam",
]
