"""Which slices of which weights belong together."""

from openwork.wiring.coupling import AxisSlices, Coupling, Side
from openwork.wiring.inspection import Wiring, inspect
from openwork.wiring.layers import Role, role_of
from openwork.wiring.tracing import Traced, trace

__all__ = ["AxisSlices", "Coupling", "Role", "Side", "Traced", "Wiring", "inspect", "role_of", "trace"]
