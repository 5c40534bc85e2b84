"""Which tensors of a graph share memory, as far as operations in place need to know."""

from operator import getitem

from torch import fx

from openwork.wiring.flow import operation
from openwork.wiring.rules import movement

# Movement, and what copies only where it must.
_MAY_BE_VIEWS = frozenset((*movement.RULES, "alias", "detach", "to", "type_as", "contiguous"))


def in_place(name: str) -> bool:
    """Whether an operation of this name writes into its first operand."""
    return name.endswith("_") and not name.startswith("__")


def shared_memory(graph: fx.Graph) -> tuple[dict[fx.Node, list[fx.Node]], set[fx.Node]]:
    """Which nodes an operation in place writes along with its own result, and those whose views are written into.

    The second are nodes of which nothing can be known without following memory byte by byte.
    """
    root: dict[fx.Node, fx.Node] = {}
    whole: dict[fx.Node, list[fx.Node]] = {}
    views: dict[fx.Node, set[fx.Node]] = {}
    same: dict[fx.Node, list[fx.Node]] = {}
    tainted: set[fx.Node] = set()
    nodes: list[fx.Node] = list(graph.nodes)
    for node in nodes:
        base = node.args[0] if node.args else None
        if node.op != "call_function" or not isinstance(base, fx.Node):
            continue
        name = operation(node)
        if not in_place(name) and node.target is not getitem and name not in _MAY_BE_VIEWS:
            continue
        origin = root[node] = root.get(base, base)
        members = whole.setdefault(origin, [origin])
        if not in_place(name):
            views.setdefault(origin, set()).add(node)
        elif origin in views:
            tainted |= {*members, *views[origin], node}
        else:
            same[node] = list(members)
            members.append(node)
    # What is made from memory that is written into later was not known to be tainted when it was added.
    tainted |= {node for node, origin in root.items() if origin in tainted}
    return same, tainted


__all__ = ["in_place", "shared_memory"]
