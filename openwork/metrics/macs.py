"""How many multiply-accumulate operations a forward pass takes."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Size, nn
from torch.utils._python_dispatch import TorchDispatchMode  # private by name, and what torch's notes on modes document
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from openwork.forward_pass import arguments, check_module, evaluating, run

aten = torch.ops.aten


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulate operations of one forward pass; 1 MAC = 2 FLOPs.

    Args:
        total: Of the whole pass, for all samples of the batch.
        modules: Of each module with all that it calls, by qualified name; ``""`` is the model itself, a module that
            is used twice has the sum under its first name, and one that did not run has 0.
        uncounted: Operations that ran and whose arithmetic is not in ``total`` although it might matter, such as
            ``aten._fft_r2c`` or an operation of someone else's library; sorted. To have one counted, give torch its
            formula with ``torch.utils.flop_counter.register_flop_formula``.
    """

    total: int
    modules: Mapping[str, int]
    uncounted: tuple[str, ...]


def macs(model: nn.Module, example_inputs: object) -> Macs:
    """Count the multiply-accumulate operations of ``model(...)`` in evaluation mode.

    What is counted are matrix products and convolutions, however they come about: by layer, ``einsum``, attention
    (all scores, also those that a causal mask discards), recurrent cells. Padding counts as input. By convention free,
    and passed over in silence, is what does a few operations per entry that it reads or writes: elementwise functions,
    reductions, normalization, softmax, pooling, interpolation, indexing, copies. Everything else is named in
    ``uncounted``.

    Fused kernels for attention and recurrent layers are off while counting, and the model really runs, once. The
    model, the flags of torch and its random numbers are as before afterwards.

    Args:
        model: Any module.
        example_inputs: A tensor; a tuple or list of positional arguments; or a dictionary of keyword arguments.

    Returns:
        The counts for these inputs; pass a batch of one for the cost of a sample.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If there are no example inputs, or the model does not run on them.
    """
    check_module("macs", model)
    args, kwargs = arguments("macs", example_inputs)
    counter = _Counter(model)
    with (
        # Code that torch.compile meets while operations are counted, it would run uncompiled ever after.
        torch.compiler.set_stance("force_eager"),
        evaluating(model),
        torch.no_grad(),
        _unfused(),
        counter.following(),
        counter,
    ):
        run("macs", model, args, kwargs)
    return Macs(counter.modules[""], counter.modules, tuple(sorted(counter.uncounted)))


@contextmanager
def _unfused() -> Generator[None]:
    """No kernel that computes whole layers: what is inside them would not be seen."""
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    recurrent: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]  # a recurrent layer is one operation of theirs
    enabled = [backend.enabled for backend in recurrent]
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for backend in recurrent:
            backend.enabled = False
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for backend, before in zip(recurrent, enabled, strict=True):
            backend.enabled = before


class _Counter(TorchDispatchMode):
    """Adds up the operations that run, for every module that is running at the time."""

    # Else torch.cond and its like refuse to run.
    supports_higher_order_operators = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.modules = {name: 0 for name, _ in model.named_modules()}
        self.uncounted: set[str] = set()
        self.formulas = _formulas()
        self.running: list[str] = []

    @contextmanager
    def following(self) -> Generator[None]:
        """Know inside which modules are running."""
        hooks = []
        try:
            for name, module in self.model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # takes no hooks: its operations count for the module around it
                hooks.append(module.register_forward_pre_hook(partial(self._enter, name), prepend=True))
                hooks.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _enter(self, name: str, _module: nn.Module, _inputs: object) -> None:
        self.running.append(name)

    def _leave(self, _module: nn.Module, _inputs: object, _output: object) -> None:
        self.running.pop()

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        kwargs = kwargs or {}
        if func is torch.ops.higher_order.cond:
            condition, then, otherwise, operands = args
            with self:
                return (then if condition else otherwise)(*operands)
        formula = self.formulas.get(getattr(func, "overloadpacket", func))
        if formula is None and hasattr(func, "decompose"):
            # Inside a model's own inference_mode, composite operations arrive whole.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            self._add(formula(*args, **kwargs, out_val=result) // 2)
        elif not _is_free(func):
            self.uncounted.add(_name(func))
        return result

    def _add(self, count: int) -> None:
        for name in {"", *self.running}:
            self.modules[name] += count


def _name(func: Any) -> str:
    return f"{func.namespace}.{func.overloadpacket.__name__}" if hasattr(func, "overloadpacket") else func.name()


def _is_free(func: Any) -> bool:
    """Whether an operation does a few operations per entry that it reads or writes, at most."""
    if not hasattr(func, "overloadpacket"):
        return False
    if func.is_view or {torch.Tag.pointwise, torch.Tag.reduction} & set(func.tags):
        return True
    namespace, _, name = _name(func).partition(".")
    return namespace == "prim" or (namespace == "aten" and name.strip("_").startswith(_FREE))


# The beginnings of the names of free operations that torch's tags leave out.
_FREE = (
    # making tensors
    "arange", "empty", "eye", "full", "lift_fresh", "linspace", "new_", "ones", "scalar_tensor", "zero",
    # random ones
    "bernoulli", "exponential", "fused_dropout", "multinomial", "native_dropout", "normal", "rand", "uniform",
    # copying and asking
    "assert", "cat", "clone", "contiguous", "copy", "equal", "is_", "isin", "item", "linalg_check_errors",
    "local_scalar_dense", "pin_memory", "reshape_alias", "resize", "set_", "stack", "to_copy", "unsafe_",
    # moving
    "channel_shuffle", "chunk_cat", "constant_pad", "fill", "flip", "im2col", "col2im", "pad", "pixel_shuffle",
    "pixel_unshuffle", "reflection_pad", "repeat", "replication_pad", "roll", "tril", "triu", "unfold",
    # picking
    "bincount", "bucketize", "histc", "embedding", "gather", "index", "masked", "nonzero", "one_hot", "put", "scatter",
    "searchsorted", "select", "slice", "sort", "take", "topk", "unique", "where",
    # running sums and the like
    "count_nonzero", "cummax", "cummin", "cumprod", "cumsum", "kthvalue", "logcumsumexp", "max", "mean", "median",
    "min", "mode", "sum",
    # softmax and normalization
    "batch_norm", "cudnn_batch_norm", "fused_rms_norm", "log_softmax", "miopen_batch_norm", "native_batch_norm",
    "native_group_norm", "native_layer_norm", "safe_softmax", "softmax", "weight_norm",
    # pooling and interpolation
    "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "fractional_max_pool", "grid_sampler", "max_pool", "upsample",
    # gates of recurrent cells, whose products are operations of their own
    "thnn_fused_gru_cell", "thnn_fused_lstm_cell",
    # elementwise functions without the tag
    "floor_divide", "glu", "hardswish", "prelu", "rrelu",
    # losses, for models that return theirs
    "binary_cross_entropy", "huber_loss", "mse_loss", "nll_loss", "smooth_l1_loss",
)  # fmt: skip


def _formulas() -> Mapping[object, Callable[..., int]]:
    """FLOPs by operation: torch's formulas, those that a user registered, and those that both lack."""
    known = FlopCounterMode(
        display=False,
        custom_mapping={
            **dict.fromkeys((aten.linear, aten.mkldnn_linear), _linear),
            **dict.fromkeys((aten.mv, aten.dot, aten.vdot), _matrix_vector),
            aten.addmv: _added_matrix_vector,
            aten.addbmm: _added_matrices,
            aten._grouped_mm: _grouped_matrices,
            aten._trilinear: _trilinear,
        },
    ).flop_registry
    same = {
        aten._int_mm: aten.mm,
        aten._addmm_activation: aten.addmm,
        aten._scaled_dot_product_flash_attention_for_cpu: aten._scaled_dot_product_flash_attention,
        aten._scaled_dot_product_fused_attention_overrideable: aten._scaled_dot_product_flash_attention,
    }
    return {**known, **{new: known[old] for new, old in same.items()}}


# FLOPs from the shapes of the arguments, in the form that FlopCounterMode wants.


def _linear(x: Size, weight: Size, *_: object, **__: object) -> int:
    return 2 * prod(x) * weight[0]


def _matrix_vector(matrix: Size, *_: object, **__: object) -> int:
    return 2 * prod(matrix)


def _added_matrix_vector(_bias: Size, matrix: Size, *_: object, **__: object) -> int:
    return 2 * prod(matrix)


def _added_matrices(_bias: Size, a: Size, b: Size, *_: object, **__: object) -> int:
    return 2 * prod(a) * b[-1]


def _grouped_matrices(a: Size, b: Size, *_: object, **__: object) -> int:
    # Offsets cut an axis that one operand lacks or that is summed over: each of its entries is met once.
    batch = a[0] if len(a) == len(b) == 3 else 1
    return 2 * batch * a[-2] * a[-1] * b[-1]


def _trilinear(
    a: Size, b: Size, c: Size, at_a: Sequence[int], at_b: Sequence[int], at_c: Sequence[int], *_: object, **__: object
) -> int:
    expanded: list[list[int]] = []
    for shape, axes in ((a, at_a), (b, at_b), (c, at_c)):
        sizes = list(shape)
        for axis in axes:
            sizes.insert(axis, 1)
        expanded.append(sizes)
    # Each term is a product of three.
    return 2 * 2 * prod(torch.broadcast_shapes(*expanded))
