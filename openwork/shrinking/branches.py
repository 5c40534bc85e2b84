"""Modules whose output is the same whatever comes in, such as a residual branch that ends in zeros."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from openwork.files import Json
from openwork.forward_pass import arguments, evaluating
from openwork.shrinking.finding import Finding
from openwork.shrinking.parts import Constant
from openwork.wiring import prepared


@dataclass(frozen=True, eq=False)
class Branch:
    """A module that gives a constant.

    Args:
        path: Of the module.
        values: What each channel of its output is.
        dim: Dimension of the channels, >= 0.
        stride: Positions of the input to one of the output.
    """

    path: str
    values: Tensor
    dim: int
    stride: int

    @property
    def numbers(self) -> dict[str, Json]:
        """What ``Constant`` has to be told."""
        return {"channels": len(self.values), "dim": self.dim, "stride": self.stride}


def constant_branches(model: nn.Module, finding: Finding, example_inputs: object) -> list[Branch]:
    """Outermost modules that give a constant per channel, in the shape of their input but for its channels.

    Args:
        model: As it was traced.
        finding: What is known about its tensors.
        example_inputs: As for ``wiring.trace``.

    Returns:
        The modules; none inside another.
    """
    suspects = _suspects(model, finding)
    if not suspects:
        return []
    calls = _calls(model, list(suspects), example_inputs)
    found: list[Branch] = []
    for path, known in suspects.items():
        if any(path.startswith(f"{outer.path}.") for outer in found) or path not in calls:
            continue
        branch = _branch(model.get_submodule(path), path, known, calls[path])
        if branch is not None:
            found.append(branch)
    return found


def _suspects(model: nn.Module, finding: Finding) -> dict[str, Tensor]:
    """Modules with parameters whose only output is known, by path, outer ones first."""
    inside: dict[str, list[fx.Node]] = {}
    for node in finding.traced.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if node.op == "call_function":
            for path, _ in stack.values():
                inside.setdefault(path, []).append(node)
    found: dict[str, Tensor] = {}
    for path in sorted(inside, key=lambda path: path.count(".")):
        module = model.get_submodule(path)
        if not path or isinstance(module, Constant) or not any(True for _ in module.parameters()):
            continue
        members = set(inside[path])
        outputs = [node for node in inside[path] if any(user not in members for user in node.users)]
        # What takes no memory cannot be written into.
        plain = len(outputs) == 1 and not finding.numbers.overwritten(outputs[0])
        known: Any = finding.numbers[outputs[0]] if plain else None
        if isinstance(known, Tensor) and known.is_floating_point() and known.ndim > 1 and bool(known.isfinite().all()):
            found[path] = known
    return found


def _calls(model: nn.Module, paths: Sequence[str], example_inputs: object) -> dict[str, tuple[int, ...]]:
    """Shape of the one input of each module that is called once, with one tensor, and gives one."""
    seen: dict[str, list[tuple[int, ...] | None]] = {path: [] for path in paths}

    def note(path: str) -> Any:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            plain = len(args) == 1 and not kwargs and isinstance(args[0], Tensor) and isinstance(output, Tensor)
            seen[path].append(tuple(cast("Tensor", args[0]).shape) if plain else None)

        return hook

    handles = [model.get_submodule(p).register_forward_hook(note(p), with_kwargs=True) for p in paths]
    try:
        args, kwargs = arguments("shrink", example_inputs)
        with prepared(model), torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: shapes[0] for path, shapes in seen.items() if len(shapes) == 1 and shapes[0] is not None}


def _branch(module: nn.Module, path: str, known: Tensor, given: tuple[int, ...]) -> Branch | None:
    """The constant, if its shape can be told from the input's."""
    shape = tuple(known.shape)
    if len(given) != len(shape):
        return None
    for dim in range(1, len(shape)):
        rows = known.movedim(dim, 0).flatten(1)
        if given[:dim] != shape[:dim] or not bool((rows == rows[:, :1]).all()):
            continue
        stride = max((-(-size // new) for size, new in zip(given[dim + 1 :], shape[dim + 1 :], strict=True)), default=1)
        if _strides(module, given, dim, stride):
            return Branch(path, rows[:, 0].clone(), dim, stride)
    return None


def _strides(module: nn.Module, given: tuple[int, ...], dim: int, stride: int) -> bool:
    """Whether a module turns every size into that divided by the stride, rounded up: for as many sizes as decide it."""
    like = next(module.parameters())
    for more in range(stride if stride > 1 else 1):
        sizes = [size + more for size in given[dim + 1 :]]
        x = torch.zeros(*given[: dim + 1], *sizes, dtype=like.dtype, device=like.device)
        try:
            with evaluating(module), torch.no_grad():
                found = module(x)
        except Exception:
            # It insists on its sizes, so nothing else will come in.
            return more > 0
        if tuple(found.shape[dim + 1 :]) != tuple(-(-size // stride) for size in sizes):
            return False
    return True


__all__ = ["Branch", "constant_branches"]
