"""Alternating minimization: training without backpropagation, block by block."""

from openwork.altmin.activations import activation_of
from openwork.altmin.couplings import Band, Coupling, Exact, QuadraticPenalty
from openwork.altmin.discrete import Elementwise, Quantizer, Sign
from openwork.altmin.elementwise import Activation
from openwork.altmin.homotopy import SignHomotopy
from openwork.altmin.inertia import Inertia, InertiaSchedule, Nesterov
from openwork.altmin.links import ConvLink, LinearLink, Link
from openwork.altmin.losses import CrossEntropy, Hinge, Huber, Logistic, OutputLoss, Squared
from openwork.altmin.measurement import ForwardGap, Measurement
from openwork.altmin.minibatch import MiniBatch
from openwork.altmin.models import links_of
from openwork.altmin.orders import Order, Visit, backward_forward, forward, output_to_input, red_black
from openwork.altmin.piecewise import Piece, PiecewiseLinear
from openwork.altmin.presets import bcd, dladmm, mdlam, tiam
from openwork.altmin.rho import AdaptiveRho, FixedRho, RelativeRho, RhoPolicy, RisingCostRho
from openwork.altmin.smooth import Jet, Smooth
from openwork.altmin.trainer import AMTrainer
from openwork.altmin.weight_block import ExactWeights, MajorizedWeights, WeightSolver

__all__ = [
    "AMTrainer",
    "Activation",
    "AdaptiveRho",
    "Band",
    "ConvLink",
    "Coupling",
    "CrossEntropy",
    "Elementwise",
    "Exact",
    "ExactWeights",
    "FixedRho",
    "ForwardGap",
    "Hinge",
    "Huber",
    "Inertia",
    "InertiaSchedule",
    "Jet",
    "LinearLink",
    "Link",
    "Logistic",
    "MajorizedWeights",
    "Measurement",
    "MiniBatch",
    "Nesterov",
    "Order",
    "OutputLoss",
    "Piece",
    "PiecewiseLinear",
    "QuadraticPenalty",
    "Quantizer",
    "RelativeRho",
    "RhoPolicy",
    "RisingCostRho",
    "Sign",
    "SignHomotopy",
    "Smooth",
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
