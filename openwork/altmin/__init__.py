"""Alternating minimization: training without backpropagation, block by block."""

from openwork.altmin.activations import activation_of
from openwork.altmin.discrete import Elementwise, Quantizer, Sign
from openwork.altmin.elementwise import Activation
from openwork.altmin.links import LinearLink, Link, links_of
from openwork.altmin.losses import CrossEntropy, OutputLoss, Squared
from openwork.altmin.piecewise import Piece, PiecewiseLinear
from openwork.altmin.smooth import Jet, Smooth

__all__ = [
    "Activation",
    "CrossEntropy",
    "Elementwise",
    "Jet",
    "LinearLink",
    "Link",
    "OutputLoss",
    "Piece",
    "PiecewiseLinear",
    "Quantizer",
    "Sign",
    "Smooth",
    "Squared",
    "activation_of",
    "links_of",
]
