"""Which slices of which weights belong together."""

from openwork.wiring.choosing import CouplingChoice, choose, reasons
from openwork.wiring.coupling import AxisSlices, Coupling, Remark, Side
from openwork.wiring.flow import items, module_of, operation
from openwork.wiring.grouping import Grouping, Length, couplings
from openwork.wiring.inspection import Wiring, inspect, with_means
from openwork.wiring.layers import Role, is_gpt2_linear, rms_eps, role_of
from openwork.wiring.numbers import Numbers
from openwork.wiring.propagation import propagate
from openwork.wiring.selection import Selected, Selection, parameter_names, select, selected
from openwork.wiring.tracing import Traced, prepared, trace

__all__ = [
    "AxisSlices",
    "Coupling",
    "CouplingChoice",
    "Grouping",
    "Length",
    "Numbers",
    "Remark",
    "Role",
    "Selected",
    "Selection",
    "Side",
    "Traced",
    "Wiring",
    "choose",
    "couplings",
    "inspect",
    "is_gpt2_linear",
    "items",
    "module_of",
    "operation",
    "parameter_names",
    "prepared",
    "propagate",
    "reasons",
    "rms_eps",
    "role_of",
    "select",
    "selected",
    "trace",
    "with_means",
]
