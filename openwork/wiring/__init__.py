"""Which slices of which weights belong together."""

from openwork.wiring.layers import Role, role_of

__all__ = ["Role", "role_of"]
