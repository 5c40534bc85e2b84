"""From a model and example inputs to a graph of ATen operations whose parameters have their names back."""

import warnings
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from openwork.forward_pass import arguments, check_module, evaluating, first_line, run


@dataclass(frozen=True)
class Traced:
    """A model as a graph.

    Args:
        graph: Its operations, in the order in which they run.
        parameters: Placeholder to the qualified name of the parameter; a shared one has its first name everywhere.
        buffers: Placeholder to the qualified name of the buffer.
        inputs: Placeholders of the example inputs; what is in none of the three is a constant.
        constants: Placeholder to a tensor that the model made when it was built and holds on to.
    """

    graph: fx.Graph
    parameters: Mapping[str, str]
    buffers: Mapping[str, str]
    inputs: frozenset[str]
    constants: Mapping[str, Tensor]


def trace(model: nn.Module, example_inputs: object) -> Traced:
    """Record the operations of a model on example inputs, in evaluation mode and without caches.

    The model is as before afterwards; nothing of it is changed or copied.

    Args:
        model: Any module that ``torch.export`` can trace without dynamic shapes.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.
            Arguments may be nested containers. Small ones are enough: only shapes matter.

    Returns:
        The graph.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If there are no example inputs, the model does not run on them, or it cannot be traced.
    """
    check_module("trace", model)
    args, kwargs = arguments("trace", example_inputs)
    with prepared(model):
        exported = _export(model, args, kwargs)
    # What nobody uses, such as attention weights that a model drops, fixes nothing.
    exported.graph.eliminate_dead_code(_stays(exported.graph, exported.graph_signature.user_inputs))
    signature = exported.graph_signature
    first = {id(tensor): name for name, tensor in _tensors(model)}
    named = {name: first[id(tensor)] for name, tensor in _tensors(model, remove_duplicate=False)}
    return Traced(
        exported.graph,
        {node: named.get(name, name) for node, name in signature.inputs_to_parameters.items()},
        {node: named.get(name, name) for node, name in signature.inputs_to_buffers.items()},
        frozenset(name for name in signature.user_inputs if isinstance(name, str)),
        {
            node: constant
            for node, name in signature.inputs_to_lifted_tensor_constants.items()
            if isinstance(constant := exported.constants.get(name), Tensor)
        },
    )


def _stays(graph: fx.Graph, inputs: Iterable[object]) -> Callable[[fx.Node], bool]:
    """Which operations stay though nobody uses them: those that run on weights, whose shapes have to fit still."""
    given = {node for node in graph.nodes if node.op == "placeholder" and node.name not in set(inputs)}
    kept: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "call_function" and given.intersection(node.all_input_nodes):
            kept.add(node)
            if given.issuperset(node.all_input_nodes):
                given.add(node)
    # What writes in place is named add_.
    return lambda node: node.op != "call_function" or node in kept or "_." in f"{node.target}."


def _tensors(model: nn.Module, *, remove_duplicate: bool = True) -> list[tuple[str, Tensor]]:
    return [
        *model.named_parameters(remove_duplicate=remove_duplicate),
        *model.named_buffers(remove_duplicate=remove_duplicate),
    ]


@contextmanager
def prepared(model: nn.Module) -> Generator[None]:
    """Evaluation mode; of Hugging Face models no key-value cache, and experts in a form whose graph is fixed."""
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None))}
    caching = [config for config in configs.values() if getattr(config, "use_cache", None) is True]
    with_experts: list[Any] = [module for module in model.modules() if hasattr(module, "set_experts_implementation")]
    experts = [module.get_experts_implementation() for module in with_experts]
    try:
        for module in with_experts:
            module.set_experts_implementation("batched_mm")
        for config in caching:
            config.use_cache = False
        with evaluating(model):
            yield
    finally:
        for module, implementation in zip(with_experts, experts, strict=True):
            module.set_experts_implementation(implementation)
        for config in caching:
            config.use_cache = True


def _export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Export, after symbolic tracing if need be.

    Raises:
        ValueError: If the model does not run, or cannot be traced.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # What tracing warns about concerns those who run the exported program.
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(model, args, kwargs, strict=False)
        except Exception as error:
            run("trace", model, args, kwargs)
            _check_not_quantized(model)
            try:
                # Symbolic tracing passes over Python that does not depend on values, such as counters and prints.
                return torch.export.export(fx.symbolic_trace(model), args, kwargs, strict=False)
            except Exception:
                raise ValueError(
                    f"trace: {type(model).__name__} cannot be traced, most often because its control flow depends on "
                    f"the values of a tensor ({first_line(error)}); use torch.where or torch.cond there, or trace "
                    "the parts of the model on their own"
                ) from error


def _check_not_quantized(model: nn.Module) -> None:
    """Say so if it is a quantized layer that cannot be traced.

    Raises:
        ValueError: If there is one.
    """
    modules: dict[str, nn.Module] = dict(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))
    for path, module in modules.items():
        if ".quantized." in f"{type(module).__module__}.":
            raise ValueError(
                f"trace: {path or type(model).__name__!r} is a quantized layer ({type(module).__name__}), which cannot "
                "be traced; shrink first and quantize after"
            )


__all__ = ["Traced", "prepared", "trace"]
