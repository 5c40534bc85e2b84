"""What all algorithms of sketched training share: means of gradients under several draws, and steps along them."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from openwork.optim.arithmetic import finite
from openwork.sketches.families import Drawn, joined
from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.numbers import permutation, uniform
from openwork.sketches.pool import Pool
from openwork.sketches.sketch import Diagonal

Closure = Callable[[], Tensor]
# One for each parameter of the optimizer; None where nothing depends on it.
Gradients = list[Tensor | None]
Members = Pool | Sequence[Key]


class Algorithm:
    """Steps of an optimizer along gradients of the sketched loss.

    Closures compute the loss with the sketched module, call ``backward()`` and return it; several calls of
    ``backward()`` add up. Gradients are zeroed here. What has to be done with a gradient before it is used, such as
    clipping, belongs into ``optimizer.register_step_pre_hook``. A step whose gradient is not finite is not taken: it
    leaves weights and state as they are, and goes on to the next draw.

    Args:
        optimizer: Any that needs no closure, over parameters of the module. What theorems say holds for plain SGD.
        sketched: The model; its key counts the steps, whether or not it follows the optimizer.

    Raises:
        TypeError: If ``optimizer`` or ``sketched`` is something else.
        ValueError: If the optimizer has no parameter of the module.
    """

    def __init__(self, optimizer: Optimizer, sketched: SketchedModule) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{self._name}: optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if not isinstance(sketched, SketchedModule):
            raise TypeError(f"{self._name}: sketched must be a SketchedModule, got {type(sketched).__name__}; wrap it")
        self.optimizer = optimizer
        self.sketched = sketched
        self._skipped = 0
        if set(sketched.parameters()).isdisjoint(self._parameters):
            raise ValueError(
                f"{self._name}: the optimizer has no parameter of the sketched module; build it over "
                "sketched.parameters()"
            )

    @property
    def skipped(self) -> int:
        """Steps not taken because a gradient was not finite."""
        return self._skipped

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    # -- gradients --------------------------------------------------------------------------------------------------

    def _gradients(self, closure: Closure, draw: Key | Drawn, multiplier: float = 1.0) -> tuple[Tensor, Gradients]:
        """The loss under one draw and its gradients.

        Args:
            closure: Of the loss.
            draw: Which.
            multiplier: Of both.

        Raises:
            TypeError: If the closure returns no loss.
            ValueError: If it leaves no gradient.
        """
        parameters = self._parameters
        for parameter in parameters:
            parameter.grad = None
        with self.sketched.draw(draw), torch.enable_grad():
            loss = closure()
        if not isinstance(loss, Tensor):
            raise TypeError(f"{self._name}: the closure must return the loss, a tensor, got {type(loss).__name__}")
        found: Gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        if all(gradient is None for gradient in found):
            raise ValueError(
                f"{self._name}: the closure left no gradient; compute the loss with the sketched module and call "
                "loss.backward() in it"
            )
        if multiplier == 1:
            return loss.detach(), found
        return loss.detach() * multiplier, [g if g is None else g * multiplier for g in found]

    def _mean(self, closure: Closure, draws: Sequence[Key | Drawn]) -> tuple[Tensor, Gradients]:
        """Mean loss and gradients under several draws.

        Args:
            closure: Of the loss.
            draws: Which, at least one.
        """
        return mean([self._gradients(closure, draw) for draw in draws])

    def _drawn(self, pool: Pool) -> list[Drawn]:
        """The members of a pool as draws of the module.

        Args:
            pool: Of its only family.

        Raises:
            ValueError: If it has several families, or another size.
        """
        family, *others = self.sketched.families
        if others:
            raise ValueError(
                f"{self._name}: a Pool is of one vector and the module draws {len(others) + 1}, such as "
                f"{family.name!r}; use granularity='model', or keys as pool"
            )
        sizes = {draw.diagonal.numel() for draw in pool if isinstance(draw, Diagonal)}
        if not sizes <= {family.size}:
            raise ValueError(
                f"{self._name}: the pool has draws of {max(sizes)} numbers, the module of {family.size}; "
                "make the pool for this size"
            )
        device = next(self.sketched.parameters()).device
        there = [Diagonal(d.diagonal.to(device), d.scale) if isinstance(d, Diagonal) else d for d in pool]
        return [joined([family.maps(draw)]) for draw in there]

    @contextmanager
    def _at(self, point: Sequence[Tensor]) -> Generator[None]:
        """Other weights inside; afterwards the same bits as before.

        Args:
            point: One tensor for each parameter.
        """
        with torch.no_grad():
            backups = self._copies()
            _write(self._parameters, point)
        try:
            yield
        finally:
            with torch.no_grad():
                _write(self._parameters, backups)

    def _copies(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self._parameters]

    # -- steps ------------------------------------------------------------------------------------------------------

    def _take(self, *needed: Gradients) -> bool:
        """Take a step along the first gradients, if all that is needed is finite, and go on to the next draw.

        Args:
            *needed: Gradients.

        Returns:
            Whether the step was taken.
        """
        before = self.sketched.key.step
        finite = _all_finite([gradient for gradients in needed for gradient in gradients if gradient is not None])
        if finite:
            for parameter, gradient in zip(self._parameters, needed[0], strict=True):
                parameter.grad = gradient
            self.optimizer.step()
        else:
            self._skipped += 1
        # Where the module follows the optimizer, the step has counted already.
        if self.sketched.key.step == before:
            self.sketched.advance()
        return finite

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs beside the state of the sketched module and of the optimizer, to go on bit for bit."""
        return {"skipped": self._skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; load the states of the sketched module and of the optimizer too.

        Args:
            state_dict: From the same algorithm over the same parameters.
        """
        self._skipped = int(state_dict["skipped"])

    def _loaded(self, tensors: Sequence[Tensor | None] | None, what: str) -> Gradients | None:
        """Copies of loaded tensors beside their parameters.

        Args:
            tensors: One for each parameter, or None if the algorithm had not begun.
            what: What they are, for messages.

        Raises:
            ValueError: If they do not fit.
        """
        if tensors is None:
            return None
        parameters = self._parameters
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
        if len(shapes) != len(parameters) or any(
            shape not in (None, tuple(p.shape)) for shape, p in zip(shapes, parameters, strict=False)
        ):
            raise ValueError(
                f"{self._name}: {what} of the state to load has shapes {shapes}, the parameters have "
                f"{[tuple(p.shape) for p in parameters]}; load it into the algorithm it was saved from"
            )
        return [
            None if tensor is None else tensor.detach().to(p.device, copy=True)
            for tensor, p in zip(tensors, parameters, strict=True)
        ]


class PoolAlgorithm(Algorithm):
    """An algorithm over a finite pool of draws, of which it can take the mean.

    Args:
        optimizer: As in ``Algorithm``.
        sketched: As in ``Algorithm``.
        pool: N draws: a ``Pool`` for the module's only family, or the keys of draws of its law. Their mean is the
            identity for whole permutations, such as all workers' keys of ``PermK`` at some steps.
        refresh: Probability of a new reference gradient, in (0, 1].

    Raises:
        TypeError: If the pool has something else in it.
        ValueError: If the pool is empty, weighted, or not for this module, or ``refresh`` is out of range.
    """

    def __init__(self, optimizer: Optimizer, sketched: SketchedModule, pool: Members, refresh: float) -> None:
        super().__init__(optimizer, sketched)
        if not len(pool):
            raise ValueError(f"{self._name}: pool is empty; pass the keys of at least one draw")
        if isinstance(pool, Pool) and pool.weights is not None:
            raise ValueError(f"{self._name}: pool has weights, and members count alike here; repeat members instead")
        if not 0 < refresh <= 1:
            raise ValueError(f"{self._name}: refresh must be a probability in (0, 1], got {refresh}")
        strange = [] if isinstance(pool, Pool) else [one for one in pool if not isinstance(one, Key)]
        if strange:
            raise TypeError(f"{self._name}: pool must be a Pool or keys of draws, got {strange[0]!r} in it; pass Keys")
        self._pool: Sequence[Key | Drawn] = self._drawn(pool) if isinstance(pool, Pool) else tuple(pool)
        self.refresh = refresh

    def _check_count(self, name: str, count: int | None) -> None:
        if count is not None and not 1 <= count <= len(self._pool):
            raise ValueError(
                f"{self._name}: {name} must be a number of members from 1 to {len(self._pool)}, got {count}"
            )

    def _refreshing(self) -> bool:
        """Whether this step makes a new reference gradient."""
        key = self.sketched.key.at(family=f"{self._name}: refresh")
        return float(uniform(key, 1)) < self.refresh

    def _members(self, count: int) -> list[Key | Drawn]:
        """Members that are drawn independently at this step.

        Args:
            count: How many.
        """
        key = self.sketched.key.at(family=f"{self._name}: members")
        return [self._pool[int(u)] for u in uniform(key, count) * len(self._pool)]

    def _subset(self, count: int | None) -> Sequence[Key | Drawn]:
        """Members drawn without replacement at this step, or all.

        Args:
            count: How many; None for all.
        """
        if count is None:
            return self._pool
        key = self.sketched.key.at(family=f"{self._name}: subset")
        return [self._pool[int(index)] for index in permutation(key, len(self._pool))[:count]]


def mean(terms: Sequence[tuple[Tensor, Gradients]]) -> tuple[Tensor, Gradients]:
    """The mean of losses and of gradients: summed in order into zeros, then divided by their number.

    One alone is given back as it is. Processes that each have one term get the same bits by the same order.

    Args:
        terms: Losses and gradients, at least one.
    """
    if len(terms) == 1:
        return terms[0]
    losses, gradients = zip(*terms, strict=True)
    total = cast("Tensor", sum(losses)) / len(terms)
    return total, [_mean(column) for column in zip(*gradients, strict=True)]


def _mean(column: Sequence[Tensor | None]) -> Tensor | None:
    known = [gradient for gradient in column if gradient is not None]
    if not known:
        return None
    total = torch.zeros_like(known[0])
    for gradient in known:
        total.add_(gradient)
    return total.div_(len(column))


def corrected(new: Gradients, old: Gradients, reference: Gradients) -> Gradients:
    """``new - old + reference``, where None stands for zeros.

    Args:
        new: Gradients.
        old: Likewise.
        reference: Likewise.
    """
    result: Gradients = []
    for a, b, c in zip(new, old, reference, strict=True):
        difference = a if b is None else b.neg() if a is None else a - b
        # A new tensor in any case, since optimizers write into gradients.
        result.append(difference if c is None else c.clone() if difference is None else difference + c)
    return result


def _write(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _all_finite(gradients: Sequence[Tensor]) -> bool:
    """Waits for a device, as whoever skips a step of any optimizer has to."""
    if not gradients:
        return True
    return bool(finite([g.coalesce().values() if g.is_sparse else g for g in gradients]))


__all__ = ["Algorithm", "Closure", "Gradients", "Members", "PoolAlgorithm", "corrected", "mean"]
