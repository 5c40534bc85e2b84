"""Alternating minimization: training without backpropagation, block by block."""

from openwork.altmin.activations import activation_of
from openwork.altmin.elementwise import Activation
from openwork.altmin.links import LinearLink, Link, links_of
from openwork.altmin.losses import CrossEntropy, OutputLoss, Squared
from openwork.altmin.piecewise import ReLU

__all__ = [
    "Activation",
    "CrossEntropy",
    "LinearLink",
    "Link",
    "OutputLoss",
    "ReLU",
    "Squared",
    "activation_of",
    "links_of",
]
