"""What a rule may do: read the arguments of an operation, join and block channels, and combine labels."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, cast

import torch
from torch import Tensor, fx

from openwork.wiring.atoms import Atoms, broadcast
from openwork.wiring.coupling import Remark
from openwork.wiring.values import Label, Value, compress, pad

# When an entry of a result is zero: if all operands are, if any is, or if the first is.
Zero = Literal["all", "any", "first"]
Result = Value | Sequence[Value]
Rule = Callable[["Call"], "Result"]

# Why the slice of a weight that reads a channel is not zero when the channel is; nobody needs to be told.
NEVER_ZERO = ""


@dataclass(frozen=True)
class Call:
    """One operation of the graph with what is known about its arguments.

    Args:
        node: The operation.
        args: Its positional arguments; values in place of tensors.
        kwargs: Its keyword arguments, likewise.
        atoms: Where channels are joined and blocked.
    """

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    atoms: Atoms

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or by name."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)

    def value(self, index: int, name: str) -> Value:
        """A tensor argument."""
        return self.arg(index, name)

    @property
    def operands(self) -> list[Value]:
        """All tensors among the arguments."""
        arguments = (*self.args, *self.kwargs.values())
        return [item for arg in arguments for item in items(arg) if isinstance(item, Value)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result; of the first tensor, if there are several."""
        return shapes_of(self.node)[0]

    @property
    def several(self) -> bool:
        """Whether the result is several tensors."""
        return isinstance(self.node.meta.get("val"), (list, tuple))

    @property
    def ragged(self) -> bool:
        """Whether the data decide how long the result is, as where a mask is the index."""
        values = items(self.node.meta.get("val"))
        return any(type(size) is not int for value in values for size in getattr(value, "shape", ()))

    @property
    def name(self) -> str:
        """Name of the operation, such as ``relu``."""
        return operation(self.node)

    @property
    def module(self) -> str:
        """Path of the innermost module that runs the operation."""
        return module_of(self.node)

    @property
    def place(self) -> str:
        """Module and source line of the operation."""
        return place(self.node)

    def dense(self) -> Result:
        """The result, when nothing is known about its channels."""
        source = f"what {self.name} gives{self.place}"
        values = [Value(shape, source=source) for shape in shapes_of(self.node)]
        return values if self.several else values[0]

    def unknown(self) -> Result:
        """The result of an operation that nobody knows, which blocks every channel that touches it."""
        for operand in self.operands:
            for label in operand.labels:
                why = "gives what the data say how long it is" if self.ragged else "is not known"
                self.block(label, f"the operation {self.node.target} {why}")
        return self.dense()

    def block(self, label: Label, why: str) -> None:
        """The units of a label cannot be removed because of this operation."""
        self.atoms.block(label.ids, f"{why}{self.place}")

    def block_index(self, index: Value) -> None:
        """Channels that decide which entries are looked up cannot be removed."""
        for label in index.labels:
            self.block(label, "it says which entries are looked up")

    def literal(self, number: object) -> bool:
        """Whether a number stands as such on the source line of the operation."""
        code = next((code for _, code in reversed(frames(self.node))), "")
        return isinstance(number, int) and re.search(rf"(?<![\w.]){number}(?![\w.])", code) is not None

    def produce(self, value: Value) -> None:
        """A parameter that meets activations produces channels."""
        if value.owned:
            for label in value.labels:
                self.atoms.mark(label.ids, "producer")


def shapes_of(node: fx.Node) -> list[tuple[int, ...]]:
    """Shape of each tensor that a node gives; empty for what is no tensor, with 0 for a length that data decide."""
    shapes = [tuple(getattr(item, "shape", ())) for item in items(node.meta.get("val"))]
    return [tuple(size if type(size) is int else 0 for size in shape) for shape in shapes]


def items(arg: object) -> list[object]:
    """What a list or tuple holds; anything else alone."""
    return list(cast("Iterable[object]", arg)) if isinstance(arg, (list, tuple)) else [arg]


def operation(node: fx.Node) -> str:
    """Name of an operation, such as ``relu``; of one that is not ATen's, with its namespace."""
    name = str(node.target)
    return name.split(".")[1] if name.startswith("aten.") else name.partition(".default")[0]


def names(text: str) -> list[str]:
    """Names of operations, written with spaces between."""
    return text.split()


def frames(node: fx.Node) -> list[tuple[str, str]]:
    """File and line, and the code there, of every frame that made a node, innermost last."""
    found = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*(?:\n([^\n]*))?', node.meta.get("stack_trace") or "")
    return [(f"{file.replace(chr(92), '/')}:{line}", code.strip()) for file, line, code in found]


def module_of(node: fx.Node) -> str:
    """Path of the innermost module that runs a node."""
    stack: Mapping[str, tuple[str, object]] = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def place(node: fx.Node) -> str:
    """Module and source line of a node, to be put at the end of a message."""
    module = module_of(node)
    # The line that a user can change, not the one in torch that it calls.
    lines = [(file.rpartition("/")[2], code) for file, code in frames(node) if "/torch/" not in file]
    at = f" in {module}" if module else ""
    return f"{at} ({lines[-1][0]}: {lines[-1][1]})" if lines else at


def meet(call: Call, operands: Iterable[Value], shape: Sequence[int], zero: Zero) -> tuple[Label, ...]:
    """Labels of an elementwise result: feature axes that lie along the same dimensions are one.

    Args:
        call: The operation.
        operands: Tensors that broadcast with each other.
        shape: Shape of the result.
        zero: When an entry of the result is zero.

    Returns:
        One label for each feature axis of the result.
    """
    operands = list(operands)
    ndim = len(shape)
    # Feature axes that share a dimension, as (which operand, label).
    clusters: list[list[tuple[int, Label]]] = []
    for which, operand in enumerate(operands):
        for label in operand.labels:
            item = (which, Label(pad(label.ids, ndim), label.lost))
            if not item[1].dims:
                continue
            touching = [c for c in clusters if any(set(item[1].dims) & set(other.dims) for _, other in c)]
            clusters = [c for c in clusters if not any(c is t for t in touching)]
            clusters.append([item, *(member for c in touching for member in c)])
    return tuple(_combine(call, operands, cluster, ndim, zero) for cluster in clusters)


def _combine(call: Call, operands: list[Value], cluster: list[tuple[int, Label]], ndim: int, zero: Zero) -> Label:
    """Join the labels of one cluster; tensors of this length that are not in it fix the length."""
    cluster = sorted(cluster, key=lambda item: (item[1].ids.numel(), item[0]))
    # After joining, all say the same, and the one that varies least says it most briefly.
    narrow = cluster[0][1]
    dims = sorted({dim for _, label in cluster for dim in label.dims})
    for which, label in cluster[1:]:
        call.atoms.join(narrow.ids, label.ids, f"meets {operands[which].source}{call.place}")
    members = {which for which, _ in cluster}
    lost = [label.lost for _, label in sorted(cluster, key=lambda item: item[0])]
    for which, operand in enumerate(operands):
        if which in members:
            continue
        padded = (1,) * (ndim - len(operand.shape)) + operand.shape
        for _, label in cluster:
            for dim in dims:
                if padded[dim] > 1 and dim in label.dims:
                    why = f"its length is fixed, since it meets {operand.source}{call.place}"
                    call.atoms.rigid(label.ids, dim, why)
    if zero == "any":
        return Label(narrow.ids, None if None in lost else next(filter(None, lost), NEVER_ZERO))
    if zero == "first" and 0 not in members:
        return Label(narrow.ids, f"{call.name} of a value that is not zero{call.place}")
    if zero == "first":
        return Label(narrow.ids, lost[0])
    if len(members) < len(operands):
        return Label(narrow.ids, f"{call.name} puts other values there{call.place}")
    return Label(narrow.ids, next((why for why in lost if why), None))


def elementwise(call: Call, operands: Sequence[Value], zero: Zero) -> Value:
    """The result of an elementwise operation on tensors that broadcast with each other."""
    owned = all(operand.owned for operand in operands)
    if not owned:
        for operand in operands:
            call.produce(operand)
    shape = broadcast(*(operand.shape for operand in operands))
    labels = meet(call, operands, shape, zero)
    source = next((o.source for o in operands if not o.owned), operands[0].source) if not labels else "a tensor"
    return Value(shape, labels, owned, source)


def contract(
    call: Call, labels: Iterable[Label], dims: Sequence[int], why: str, factors: Sequence[Value]
) -> tuple[Label, ...]:
    """Labels after a sum over dimensions, which keep length 1.

    A feature axis that lies along these dimensions alone is summed away, which zeros do not notice. One that lies along
    others too, such as a head split into its entries, goes on along those, its entries together.

    Args:
        call: The operation.
        labels: Feature axes of what is summed.
        dims: Dimensions to sum over.
        why: What is done, for messages.
        factors: What is multiplied to give the summands.

    Returns:
        The labels that are left.
    """
    weights = any(factor.owned for factor in factors)
    kept: list[Label] = []
    for label in labels:
        summed = [dim % label.ids.ndim for dim in dims if dim % label.ids.ndim in label.dims]
        if summed and label.lost:
            text = f"{why} entries that are not zero: {label.lost};{call.place}"
            if weights:
                call.atoms.remark(label.ids, Remark("constant", text, call.module))
            else:
                call.atoms.block(label.ids, text)
        if len(summed) == len(label.dims) and summed:
            if call.atoms.weighed:
                # A sum does not notice an entry where any factor is zero.
                live = [factor.living(label.dims, ndim=label.ids.ndim) for factor in factors]
                call.atoms.read(label.ids, reduce(torch.logical_and, live))
            continue
        ids = label.ids
        for dim in summed:
            call.atoms.merge(ids, dim)
            ids = ids.narrow(dim, 0, 1)
        kept.append(Label(ids, label.lost))
    return tuple(kept)


def product(call: Call, a: Value, b: Value) -> Value:
    """The sum of products ``sum_k a[..., m, k] b[..., n, k]``, of shape ``(..., m, n)``.

    Args:
        call: The operation.
        a: Shape ``(..., m, k)``.
        b: Shape ``(..., n, k)``.

    Returns:
        The result; its labels are those of ``a`` along m and of ``b`` along n.
    """
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-2], a.shape[-1])
    owned = a.owned and b.owned
    sides = [_side(call, a, -2, b.owned), _side(call, b, -3, a.owned)]
    labels = meet(call, sides, shape, "any")
    labels = contract(call, labels, [-1], "sums over", sides)
    labels = tuple(Label(label.ids.squeeze(-1), label.lost) for label in labels)
    return Value(shape[:-1], labels, owned)


def _side(call: Call, value: Value, at: int, other_owned: bool) -> Value:
    """One factor with a dimension of length 1 for the free dimension of the other; marks what parameters do."""
    marked = value.owned and not other_owned
    labels: list[Label] = []
    for label in value.labels:
        consumes = label.ids.ndim - 1 in label.dims
        lost = label.lost
        if marked:
            call.atoms.mark(label.ids, "consumer" if consumes else "producer")
            # A consumer does not make its channel zero.
            lost = NEVER_ZERO if consumes else lost
        labels.append(Label(label.ids.unsqueeze(at), lost))
    shape = list(value.shape)
    shape.insert(len(shape) + 1 + at, 1)
    live = None if value.live is None else value.live.unsqueeze(at)
    return Value(tuple(shape), tuple(labels), value.owned, value.source, live=live)


def moved(value: Value, move: Callable[[Tensor], Tensor], source: str | None = None) -> Value:
    """A tensor whose entries an operation only moves: its atoms are moved by the same operation."""
    labels: list[Label] = []
    shape: tuple[int, ...] | None = None
    for label in value.labels:
        ids = move(label.ids.expand(value.shape))
        shape = tuple(ids.shape)
        labels.append(Label(compress(ids), label.lost))
    if shape is None:
        shape = tuple(move(torch.empty(value.shape, device="meta")).shape)
    live = None if value.live is None else move(value.live.expand(value.shape))
    return Value(shape, tuple(labels), value.owned, source or value.source, live=live)
