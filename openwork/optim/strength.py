"""The strength at which everything vanishes, by which all others are measured."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from openwork.kernels import Scalar
from openwork.optim.proximal import ProximalOptimizer
from openwork.optim.regularize import Selection, regularize
from openwork.optim.rmda import RMDA
from openwork.penalties import Part, Penalty, Solution, Target, Zero
from openwork.penalties.base import DiagonalProx
from openwork.penalties.wrapper import Wrapper
from openwork.sharding import is_distributed
from openwork.wiring import Side

P = TypeVar("P", bound=Penalty)

# Whether anything survives the recorded subproblem at a given strength.
Survives = Callable[[float], bool]


def strength_max(
    model: nn.Module,
    loss: Callable[[Any, Any], Tensor],
    batch: tuple[Any, Any],
    penalty: Penalty,
    example_inputs: object = None,
    side: Side = "consumers",
    *,
    optimizer: Callable[[list[dict[str, Any]]], ProximalOptimizer] = RMDA,
    include: Selection | None = None,
    exclude: Selection | None = None,
) -> float:
    """The smallest ``lam`` that zeroes everything at the first step of an optimizer.

    A good strength differs a hundredfold between optimizers and learning rates; as a fraction of this number it does
    not. One step is taken on a copy of the model, and the subproblems it meets are solved again for other strengths.

    Args:
        model: Not changed, nor is the state of random numbers. If it is sharded, all processes must ask, and every
            penalized weight is collected in each of them.
        loss: Of the model's outputs and the targets, averaged over samples.
        batch: Inputs and targets; of a sharded model, those of this process.
        penalty: Its kind, groups and other options; its ``lam`` is not looked at.
        example_inputs: To penalize couplings, as for ``regularize``.
        side: Which side of them, as for ``regularize``.
        optimizer: Builds the optimizer from param groups: a class, or ``functools.partial(RAMDA, lr=0.02)``.
        include: Which parameters to penalize, as for ``regularize``.
        exclude: Which not to.

    Returns:
        That ``lam``, to rounding; 0 if nothing survives any.

    Raises:
        TypeError: If ``penalty`` has no ``lam``.
        ValueError: If something survives every strength, as at ``lr = 0``.
    """
    penalty = _with_strength(penalty, 1.0)
    subproblems: list[Survives] = []
    with torch.random.fork_rng():
        sharded = any(map(is_distributed, model.parameters()))
        if not sharded:
            model = deepcopy(model)
            model.zero_grad()
        groups = regularize(model, penalty, example_inputs, side, include=include, exclude=exclude)
        for group in groups:
            if not isinstance(group["penalty"], Zero):
                group["penalty"] = _Recorder(group["penalty"], subproblems)
        if sharded:
            _take_gradients(model, lambda: loss(model(batch[0]), batch[1]), groups)
        stepper = optimizer(groups)
        if not sharded:
            with torch.enable_grad():
                loss(model(batch[0]), batch[1]).backward()
        stepper.step()
    return _smallest(subproblems)


def _take_gradients(model: nn.Module, loss: Callable[[], Tensor], groups: list[dict[str, Any]]) -> None:
    """Put copies with gradients in place of the parameters in param groups: a sharded model cannot be copied itself."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    backups = [buffer.clone() for buffer in buffers]
    grads = [parameter.grad for parameter in parameters]
    copies: dict[Tensor, Tensor] = {}
    try:
        model.zero_grad()
        with torch.enable_grad():
            loss().backward()
        for parameter in parameters:
            copies[parameter] = parameter.detach().clone().requires_grad_(parameter.requires_grad)
            copies[parameter].grad = parameter.grad
    finally:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        with torch.no_grad():
            for buffer, backup in zip(buffers, backups, strict=True):
                buffer.copy_(backup)
    for group in groups:
        group["params"] = [copies[parameter] for parameter in group["params"]]


def _smallest(subproblems: list[Survives]) -> float:
    """Smallest number that nothing survives, by bisection; what dies at too small a number is not asked again.

    Raises:
        ValueError: If there is none.
    """
    low, high = 0.0, 1.0
    while alive := [survives for survives in subproblems if survives(high)]:
        low, high, subproblems = high, 2 * high, alive
        if high > 1e30:
            raise ValueError(
                "strength_max: something survives every strength; choose a learning rate above 0, and a penalty that "
                "can vanish"
            )
    while high - low > 1e-15 * high and high > 1e-30:
        middle = (low + high) / 2 if low else high / 16
        alive = [survives for survives in subproblems if survives(middle)]
        low, high, subproblems = (middle, high, alive) if alive else (low, middle, subproblems)
    return high if low else 0.0


def _with_strength(penalty: P, lam: float) -> P:
    """A copy with another strength, which may be that of a penalty inside.

    Raises:
        TypeError: If it has none.
    """
    names = {f.name for f in fields(penalty)} if is_dataclass(penalty) else set[str]()
    if "lam" in names:
        return replace(penalty, lam=lam)  # pyright: ignore
    # A target chooses its own strength, weights together.
    if "penalty" in names and not isinstance(penalty, Target):
        return replace(penalty, penalty=_with_strength(penalty.penalty, lam))  # pyright: ignore
    raise TypeError(f"strength_max: penalty must have a strength named lam, as GroupLasso has, got {penalty!r}")


@dataclass(frozen=True)
class _Recorder(Wrapper):
    """A penalty that keeps the subproblems it is given."""

    subproblems: list[Survives] = field(compare=False)

    @override
    def split(self, shapes: Sequence[Sequence[int]], limit: int | None) -> Iterator[Part]:
        for part in self.penalty.split(shapes, limit):
            recorder = part.penalty if isinstance(part.penalty, Zero) else replace(self, penalty=part.penalty)
            yield Part(recorder, part.pieces)

    @override
    def prox_list(self, xs: Sequence[Tensor], step: Scalar) -> list[Solution]:
        copies = [x.clone() for x in xs]
        penalty = self.penalty
        self.subproblems.append(lambda lam: _any_kept(_with_strength(penalty, lam).prox_list(copies, step)))
        return penalty.prox_list(xs, step)

    @override
    def metrics(self, d: list[Tensor]) -> list[Tensor]:
        return self._inside.metrics(d)

    @override
    def solve(self, b: Tensor, d: Tensor, weight: Scalar, start: Tensor | None = None) -> Solution:
        return self._inside.solve(b, d, weight, start)

    @override
    def solve_(
        self, b: list[Tensor], d: list[Tensor], weight: Scalar, start: list[Tensor] | None = None
    ) -> list[Solution]:
        b_copies, d_copies = ([x.clone() for x in xs] for xs in (b, d))
        penalty = self._inside

        def survives(lam: float) -> bool:
            # What is solved may be overwritten.
            b_again, d_again = ([x.clone() for x in xs] for xs in (b_copies, d_copies))
            return _any_kept(_with_strength(penalty, lam).solve_(b_again, d_again, weight))

        self.subproblems.append(survives)
        return penalty.solve_(b, d, weight, start)

    @property
    def _inside(self) -> DiagonalProx:
        if not isinstance(self.penalty, DiagonalProx):
            raise TypeError(
                f"strength_max: this optimizer needs a penalty that solves under a diagonal metric, got "
                f"{self.penalty!r}; wrap it as ProximalGradient({type(self.penalty).__name__}(...))"
            )
        return self.penalty


def _any_kept(solutions: list[Solution]) -> bool:
    return any(bool(solution.kept.any()) for solution in solutions)
