"""From factors back to plain weights."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import remove_parametrizations

from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.factorization import Part, blocks_of, parts_of
from openwork.factorizations.recurrent import remember_weights
from openwork.factorizations.replacing import put_, replaceable
from openwork.factorizations.two_layers import with_factors
from openwork.factorizations.watching import watch
from openwork.forward_pass import arguments, evaluating, run, tensors

SWEEP = (THRESHOLD, 1e-5, 1e-3, 1e-2)


@dataclass(frozen=True)
class CollapseReport:
    """What became of factorized weights.

    Args:
        threshold: Groups of smaller size became exactly zero.
        nonzero: Entries that are not zero, by name of the weight; those of both layers if it became two.
        total: All entries, by name of the weight.
        sweep: Compression ratio for other thresholds on the size of groups; infinite if nothing would be left.
        change: Largest change of an output on the example inputs; None without these.
    """

    threshold: float
    nonzero: Mapping[str, int]
    total: Mapping[str, int]
    sweep: Mapping[float, float]
    change: float | None

    @property
    def compression_ratio(self) -> float:
        """Entries before over entries that are not zero; infinite if there are none."""
        return _ratio(sum(self.total.values()), sum(self.nonzero.values()))

    @property
    def dead(self) -> tuple[str, ...]:
        """Weights of which nothing is left."""
        return tuple(name for name, count in self.nonzero.items() if not count)

    def __str__(self) -> str:
        total, nonzero = sum(self.total.values()), sum(self.nonzero.values())
        lines = [f"{total:,} weights => {nonzero:,} nonzero, compression ratio {self.compression_ratio:.4g}"]
        lines += [f"  {name}: {self.nonzero[name]:,} of {total:,}" for name, total in self.total.items()]
        lines.append("ratio by threshold: " + ", ".join(f"{t:.2g}: {r:.4g}" for t, r in self.sweep.items()))
        if self.change is not None:
            lines.append(f"outputs changed by at most {self.change:.2g}")
        return "\n".join(lines)


def collapse(model: nn.Module, threshold: float = THRESHOLD, example_inputs: object = None) -> CollapseReport:
    """Put plain weights in the place of factors; groups below a threshold become exactly zero.

    Names and order of the parameters are as they were before ``factorize``, except where a layer of low rank becomes
    two. An optimizer has to be built anew.

    Args:
        model: Factorized; changed in place.
        threshold: Groups (entries, units, ranks) of smaller size become zero, >= 0. With 0 the outputs do not change.
        example_inputs: A tensor, a tuple of arguments or a dictionary of keyword arguments that ``model`` accepts, to
            measure how much the outputs change, and to make two layers of one of low rank only where the model runs
            with them: code outside of a layer may look at its weight.

    Returns:
        What became of the weights.

    Raises:
        ValueError: If nothing in the model is factorized, the threshold is negative, or the model does not run or gives
            no tensors; nothing has changed then.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(f"collapse: nothing in this {type(model).__name__} is factorized; call factorize first")
    if not threshold >= 0:
        raise ValueError(f"collapse: threshold must be at least 0, got {threshold}; the default is {THRESHOLD:.3g}")
    total = {part.name: part.value.numel() for block in blocks for part in block.parts}

    def plain_() -> Mapping[str, Sequence[Tensor]]:
        for block in blocks:
            block.zero_below_(threshold)
        matrices = _matrices(model)
        _plain_(model)
        weights: dict[str, Sequence[Tensor]] = {
            name: [weight] for name, weight in model.named_parameters(remove_duplicate=False) if name in total
        }
        for path, layers in _two_layers_(model, matrices, example_inputs).items():
            weights[f"{path}.weight"] = [cast("nn.Parameter", layer.weight) for layer in layers]
        return weights

    # Weights that are made in inference mode could not be trained.
    with torch.inference_mode(False), torch.no_grad():
        sizes = [(block.magnitudes(), block.counts().double()) for block in blocks]
        return reported("collapse", model, plain_, threshold, total, sizes, example_inputs)


def reported(
    owner: str,
    model: nn.Module,
    zero_: Callable[[], Mapping[str, Sequence[Tensor]]],
    threshold: float,
    total: Mapping[str, int],
    sizes: Sequence[tuple[Tensor, Tensor]],
    example_inputs: object = None,
) -> CollapseReport:
    """Make weights of a model zero, and say what became of them.

    Args:
        owner: Who asks, for messages.
        model: With the weights as they were trained.
        zero_: Makes small groups zero, and gives what is there in the place of each weight, by its name.
        threshold: That it goes by.
        total: Entries of each weight, by its name.
        sizes: Sizes of groups before, and how many entries each of them has.
        example_inputs: As for ``collapse``.

    Returns:
        What became of the weights.

    Raises:
        ValueError: If the model does not run, or gives no tensors; nothing has changed then.
    """
    before = None if example_inputs is None else _outputs(owner, model, example_inputs)
    all_of_it = sum(total.values())
    gone = {t: sum(float((counts * (size < t)).sum()) for size, counts in sizes) for t in SWEEP}
    weights = zero_()
    change = None
    if before is not None:
        after = _outputs(owner, model, example_inputs)
        change = max((_change(a, b) for a, b in zip(before, after, strict=True) if a.numel()), default=0.0)
    return CollapseReport(
        threshold=threshold,
        nonzero={name: sum(int(w.detach().count_nonzero()) for w in weights[name]) for name in total},
        total=total,
        sweep={t: _ratio(all_of_it, all_of_it - zeros) for t, zeros in gone.items()},
        change=change,
    )


def _ratio(total: float, left: float) -> float:
    return total / left if left else inf


def _outputs(owner: str, model: nn.Module, example_inputs: object) -> list[Tensor]:
    """All tensors that the model gives in evaluation mode, in order.

    Raises:
        ValueError: If the model does not run, or gives none.
    """
    args, kwargs = arguments(owner, example_inputs)
    with torch.no_grad(), evaluating(model):
        given = run(owner, model, args, kwargs)
    found = tensors(given)
    if not found:
        raise ValueError(
            f"{owner}: {type(model).__name__} gives a {type(given).__name__}, in which no tensor is found whose change "
            "could be measured; leave example_inputs out, or pass a module that gives tensors"
        )
    return found


def _change(before: Tensor, after: Tensor) -> float:
    """Largest difference of two outputs; infinite where only one of them is no number."""
    a, b = (torch.view_as_real(x) if x.is_complex() else x for x in (before, after))
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a - b).abs().nan_to_num(nan=inf).masked_fill(same, 0.0).max())


def _plain_(model: nn.Module) -> None:
    """Put the products in the place of all factors; a shared weight stays one parameter."""
    factors = {
        f"factor {i} of {part.name}": factor for part in parts_of(model) for i, factor in enumerate(part.factors)
    }
    made: dict[int, nn.Parameter] = {}
    for part in parts_of(model):
        key = id(part.factors[0])
        if key not in made:
            trains = any(factor.requires_grad for factor in part.factors)
            made[key] = nn.Parameter(part.value.detach().clone(), requires_grad=trains)
        _restore(part, made[key])
    watch(model, factors, by="collapse")


def _matrices(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The two matrices of each layer of low rank that is not shared and whose weight no other module reads."""
    readers = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
    read = {id(child) for module in model.modules() if isinstance(module, readers) for child in module.children()}
    owners = Counter(id(part.factors[0]) for part in parts_of(model))
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in parts_of(model):
        pair = part.factorization.low_rank([factor.detach() for factor in part.factors])
        alone = part.owner is not model and id(part.owner) not in read and owners[id(part.factors[0])] == 1
        if pair is not None and alone and part.local == "weight":
            found[part.name.removesuffix(".weight")] = pair
    return found


def _two_layers_(
    model: nn.Module, matrices: Mapping[str, tuple[Tensor, Tensor]], example_inputs: object
) -> dict[str, nn.Sequential]:
    """Put two layers in the place of one where that saves, and where the model runs with them on example inputs."""
    made = {path: with_factors(model.get_submodule(path), b, a) for path, (b, a) in matrices.items()}
    layers = {path: two for path, two in made.items() if two is not None}
    if example_inputs is not None:
        layers = {path: layers[path] for path in replaceable(model, layers, example_inputs)}
    for path, two in layers.items():
        put_(model, model.get_submodule(path), two)
    return layers


def _restore(part: Part, weight: nn.Parameter) -> None:
    owner, local, order = part.owner, part.local, part.factorization.order
    # Copies of the module share its class, and they are still factorized.
    shared = type(owner)
    owner.__class__ = cast("type[nn.Module]", type(shared.__name__, shared.__bases__, dict(vars(shared))))
    remove_parametrizations(owner, local, leave_parametrized=True)
    remember_weights(owner)
    setattr(owner, local, weight)
    # It was put behind the others, and the order of the parameters is part of what a model is.
    parameters = owner._parameters  # pyright: ignore[reportPrivateUsage]
    for name in order:
        if name in parameters:
            parameters[name] = parameters.pop(name)


__all__ = ["SWEEP", "CollapseReport", "collapse", "reported"]
