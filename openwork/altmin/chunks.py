"""Sweeps over samples in chunks: the iterates of the full batch, with little more than the codes in memory."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from math import isfinite, prod
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from openwork.altmin.curvature import DOUBLINGS, MARGIN, carried, majorized
from openwork.altmin.inertia import Inertia, Iterate, check_stability
from openwork.altmin.links import LinearLink
from openwork.altmin.losses import CrossEntropy, OutputLoss
from openwork.altmin.models import links_of
from openwork.altmin.penalized import penalties_of
from openwork.altmin.samples import check_samples, free_bytes, output_sizes
from openwork.altmin.state import FLOOR, sum_of_squares
from openwork.altmin.weight_block import check_linear
from openwork.penalties import Penalty, Zero

__all__ = ["ChunkedTrainer"]

ME = "ChunkedTrainer"
PLAIN = Inertia()


@dataclass(eq=False)
class Weights:
    """Blocks W and b of one layer, and the curvatures that were last confirmed. Replaced, never written into."""

    weight: Iterate
    bias: Iterate | None
    weight_curvature: Tensor
    input_curvature: Tensor

    def rest(self) -> "Weights":
        """The same without a history."""
        bias = None if self.bias is None else self.bias.rest()
        return Weights(self.weight.rest(), bias, self.weight_curvature, self.input_curvature)


@dataclass(eq=False)
class Chunk:
    """Some samples with their codes, which lie where the samples lie.

    Args:
        x: Inputs.
        y: Targets.
        codes: Block z of every layer.
    """

    x: Tensor
    y: Tensor
    codes: list[Iterate]


class Sums:
    """Sums of ``a a'``, ``z a'``, ``a`` and ``z``: all that the blocks W and b of a linear layer need of the samples.

    Args:
        weight: Of the layer.
    """

    def __init__(self, weight: Tensor) -> None:
        wide = torch.float64 if weight.device.type == "cpu" else weight.dtype
        outputs, inputs = weight.shape
        self.aa = weight.new_zeros((inputs, inputs), dtype=wide)
        self.za = weight.new_zeros((outputs, inputs), dtype=wide)
        self.a = weight.new_zeros(inputs, dtype=wide)
        self.z = weight.new_zeros(outputs, dtype=wide)
        self.count = 0

    def add(self, a: Tensor, z: Tensor) -> None:
        """Count some samples in."""
        a = a.flatten(1)
        self.aa += torch.mm(a.T, a)
        self.za += torch.mm(z.T, a)
        self.a += a.sum(0)
        self.z += z.sum(0)
        self.count += len(a)


class Pass(NamedTuple):
    """A pass over all samples that proposes codes for a hidden layer.

    Args:
        codes: Block z, chunk by chunk.
        sums: For the layer that reads the codes.
        image: ``||W d||^2`` with that layer's weight and the change d of the activations.
        change: ``||d||^2``.
        square: ``||R||^2`` with the residual R of the link before.
    """

    codes: list[Tensor]
    sums: Sums
    image: Tensor
    change: Tensor
    square: Tensor


class ChunkedTrainer:
    """Alternating minimization as of ``AMTrainer`` with the exact coupling and forward order, for data beyond memory.

    The iterates are those of the full batch up to rounding, since the blocks W and b depend on the samples by sums only
    and codes are updated sample by sample. Only inputs, targets and the blocks z are kept, where X lies: X in the main
    memory (pinned, if you like) and a model on a GPU work together. There is no balancing, and no refit of the readout.

    Args:
        model: As for ``AMTrainer``, with linear layers only; its weights are written in place.
        chunk_size: Samples at a time, >= 1.
        loss: Of the outputs; cross-entropy if None.
        rho: Weight of the links, > 0.
        mu: Weight of ``mu/2 ||W||^2``, >= 0, against a loss summed over samples.
        inertia: Three numbers.
        penalties: Penalties of weights, by the name of a layer or of its weight.

    Raises:
        ValueError: If a number is out of range.

    References:
        Yan, Xu, Wang & Peng, TIAM, arXiv:2503.08489, for the three inertias; chunks are ours.
    """

    def __init__(
        self,
        model: nn.Sequential,
        *,
        chunk_size: int,
        loss: OutputLoss | None = None,
        rho: float = 0.1,
        mu: float = 0.0,
        inertia: tuple[float, float, float] = (0.633, 0.633, 0.5),
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"{ME}: chunk_size must be >= 1, got {chunk_size}")
        if not 0 < rho < float("inf"):
            raise ValueError(f"{ME}: rho must be > 0 and finite, got {rho}")
        if not 0 <= mu < float("inf"):
            raise ValueError(f"{ME}: mu must be >= 0 and finite, got {mu}")
        self.model = model
        self.chunk_size = chunk_size
        self.loss = CrossEntropy() if loss is None else loss
        self.rho, self.mu = rho, mu
        self.inertia = Inertia(*inertia)
        check_stability(ME, self.inertia)
        links, self._activations = links_of(model)
        check_linear(ME, "training in chunks", links)
        self._links = [link for link in links if isinstance(link, LinearLink)]
        self._penalties = penalties_of(ME, model, links, penalties)
        self._layers: list[Weights] = []
        self._chunks: list[Chunk] = []
        #: The objective after the last sweep.
        self.objective = float("nan")
        #: Sweeps that were repeated without inertia.
        self.restarts = 0

    @torch.no_grad()
    def start(self, X: Tensor, y: Tensor) -> Self:
        """Take the samples and initialize the blocks by a forward pass from the model's weights.

        Args:
            X: Inputs, ``(N, ...)``; on another device than the model, if it is too large for that.
            y: Targets, on the device of X.

        Returns:
            The trainer.

        Raises:
            MemoryError: If the codes do not fit where X lies.
        """
        place = self._links[0].weight
        check_samples(ME, X[:1].to(place.device), y[:1].to(place.device), self._links)
        sizes = output_sizes(ME, X[:1].to(place), self._links, self._activations)
        self.loss.check(y, sizes[-1][0], len(X))
        # Block z now, before, and while a sweep may still be taken back.
        needed = 3 * len(X) * sum(prod(size) for size in sizes) * X.element_size()
        free = free_bytes(X.device)
        if free is not None and needed > free:
            raise MemoryError(
                f"{ME}: the codes of {len(X)} samples need about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are "
                "free; keep X in a larger memory, or train on mini-batches"
            )
        self._chunks = [
            Chunk(*part, []) for part in zip(X.split(self.chunk_size), y.split(self.chunk_size), strict=True)
        ]
        self._layers = []
        for index, link in enumerate(self._links):
            bias = None if link.bias is None else Iterate(link.bias.clone())
            zero = link.weight.new_zeros(())
            self._layers.append(Weights(Iterate(link.weight.clone()), bias, zero, zero))
            sums = Sums(link.weight)
            for chunk in self._chunks:
                a = self._input(chunk, index)
                z = link.bias_add(link.forward(a))
                z = z if index == len(self._activations) else self._activations[index].project(z)
                sums.add(a, z)
                chunk.codes.append(Iterate(z.to(chunk.x)))
            curvature = link.gram_curvature(sums.aa, 50 if index == 0 else 4).to(link.weight)
            self._layers[-1].weight_curvature = (curvature * MARGIN).clamp(min=FLOOR)
        self.objective = self._value()
        return self

    @torch.no_grad()
    def sweep(self) -> float:
        """Move every block once; a sweep that raised the objective is repeated without inertia from the same bits.

        Returns:
            The objective.

        Raises:
            RuntimeError: If ``start`` was not called.
            FloatingPointError: If the objective is not finite even without inertia.
        """
        if not self._chunks:
            raise RuntimeError(f"{ME}: there are no samples yet; call start(X, y) first")
        saved = [copy(layer) for layer in self._layers], [list(chunk.codes) for chunk in self._chunks]
        probes = [link.probes for link in self._links]
        slack = 1e-12 if self._links[0].weight.dtype == torch.float64 else 1e-6
        value = self._sweep(self.inertia)
        if not value <= self.objective + slack * abs(self.objective):
            self._layers = [layer.rest() for layer in saved[0]]
            for chunk, codes in zip(self._chunks, saved[1], strict=True):
                chunk.codes = [z.rest() for z in codes]
            for link, probe in zip(self._links, probes, strict=True):
                link.probes = probe
            self.restarts += 1
            value = self._sweep(PLAIN)
        if not isfinite(value):
            self._layers = saved[0]
            for chunk, codes in zip(self._chunks, saved[1], strict=True):
                chunk.codes = codes
            self._write()
            raise FloatingPointError(f"{ME}: the objective is {value}; scale the inputs to about unit size")
        self.objective = value
        return value

    def fit(self, X: Tensor, y: Tensor, sweeps: int) -> nn.Sequential:
        """Start, sweep, and hand the model back.

        Args:
            X: Inputs.
            y: Targets.
            sweeps: How many.
        """
        self.start(X, y)
        for _ in range(sweeps):
            self.sweep()
        return self.model

    def _input(self, chunk: Chunk, index: int) -> Tensor:
        """What a layer reads: the samples, or the activation of the codes before; on the device of the weights."""
        if index == 0:
            return chunk.x.to(self._links[0].weight.device, non_blocking=True)
        return self._activations[index - 1].forward(self._code(chunk, index - 1))

    def _code(self, chunk: Chunk, index: int) -> Tensor:
        return chunk.codes[index].now.to(self._links[0].weight.device, non_blocking=True)

    def _write(self) -> None:
        for link, layer in zip(self._links, self._layers, strict=True):
            link.weight.copy_(layer.weight.now)
            if link.bias is not None and layer.bias is not None:
                link.bias.copy_(layer.bias.now)

    def _sweep(self, inertia: Inertia) -> float:
        self._write()
        total = 0.0
        sums: Sums | None = None
        last = len(self._links) - 1
        for index in range(last + 1):
            if sums is None:
                sums = Sums(self._links[index].weight)
                for chunk in self._chunks:
                    sums.add(self._input(chunk, index), self._code(chunk, index))
            self._weights(index, sums, inertia)
            if index < last:
                sums, term = self._hidden(index, inertia)
            else:
                term = self._outputs(inertia)
            total += term
        return total + self._weight_terms()

    def _weights(self, index: int, sums: Sums, inertia: Inertia) -> None:
        link, layer, penalty = self._links[index], self._layers[index], self._penalties[index]
        now, rho, mu = layer.weight.now, self.rho, self.mu
        ahead = layer.weight.ahead(inertia.p2)
        pull = torch.mm(ahead.to(sums.aa), sums.aa) - sums.za
        if layer.bias is not None:
            pull += layer.bias.now.to(pull)[:, None] * sums.a
        gradient = pull.to(now).mul_(rho).add_(ahead, alpha=mu)
        base = layer.weight.ahead(inertia.p1)
        penalized = not isinstance(penalty, Zero)
        curvature = layer.weight_curvature
        if index > 0:
            curvature = carried(link.gram_curvature(sums.aa).to(now), curvature)

        def step(curvature: Tensor) -> tuple[Tensor]:
            theta = (curvature * rho + mu).clamp(min=FLOOR)
            point = base - gradient / theta
            return (penalty.prox(point, sums.count / theta) if penalized else inertia.relaxed(point, now),)

        def length(change: Tensor) -> Tensor:
            """The norm of ``change a``, which is all that a test needs."""
            wide = change.to(sums.aa)
            return (torch.mm(wide, sums.aa) * wide).sum().clamp(min=0).sqrt().to(change)

        (point,), _, curvature = majorized((now,), curvature, step, length)
        layer.weight_curvature = curvature
        layer.weight = layer.weight.move(point)
        link.weight.copy_(point)
        if layer.bias is not None and link.bias is not None:
            mean = (torch.mv(point.to(sums.aa), sums.a) - sums.z).div_(sums.count).to(now) + layer.bias.now
            shifted = layer.bias.shifted(layer.bias.now - mean, inertia.shift)
            layer.bias = layer.bias.move(inertia.relaxed(shifted, layer.bias.now))
            link.bias.copy_(layer.bias.now)

    def _hidden(self, index: int, inertia: Inertia) -> tuple[Sums, float]:
        """Move the codes of a hidden layer: the sums of the next layer, and the term of the link in the objective.

        Raises:
            FloatingPointError: If no curvature within 30 doublings will do.
        """
        layer = self._layers[index + 1]
        curvature = carried(self._links[index + 1].input_curvature(), layer.input_curvature)
        for _ in range(DOUBLINGS + 1):
            moved = self._pass(index, curvature, inertia)
            if moved.image <= curvature * moved.change:
                layer.input_curvature = curvature
                for chunk, point in zip(self._chunks, moved.codes, strict=True):
                    chunk.codes[index] = chunk.codes[index].move(point)
                return moved.sums, float(moved.square) * self.rho / 2
            curvature = 2 * curvature
        raise FloatingPointError(
            f"{ME}: no step size fits a block, though its curvature was doubled {DOUBLINGS} times; "
            "scale the inputs to about unit size"
        )

    def _pass(self, index: int, curvature: Tensor, inertia: Inertia) -> "Pass":
        """Where the codes of a hidden layer go with a curvature of the layer that reads them; moves nothing."""
        link, following, activation = self._links[index], self._links[index + 1], self._activations[index]
        sums, codes = Sums(following.weight), []
        square = change = image = torch.zeros((), dtype=torch.float64, device=following.weight.device)
        tau = curvature * self.rho
        for chunk in self._chunks:
            z = _on(chunk.codes[index], link.weight)
            a = Iterate(activation.forward(z.now), None if z.before is None else activation.forward(z.before))
            target = link.bias_add(link.forward(self._input(chunk, index)))
            after = self._code(chunk, index + 1)
            residual = following.bias_add(following.forward(a.ahead(inertia.p2))) - after
            wanted = a.ahead(inertia.p1) - following.adjoint(residual).mul_(self.rho).div_(tau)
            point = activation.solve(z.shifted(target, inertia.shift), wanted, self.rho, tau, z.now)
            point = activation.project(inertia.relaxed(point, z.now))
            code = activation.forward(point)
            image = image + sum_of_squares(following.forward(code - a.now))
            change = change + sum_of_squares(code - a.now)
            square = square + sum_of_squares(target - point)
            sums.add(code, after)
            codes.append(point.to(chunk.x.device))
        return Pass(codes, sums, image, change, square)

    def _outputs(self, inertia: Inertia) -> float:
        index = len(self._links) - 1
        link, value = self._links[index], 0.0
        for chunk in self._chunks:
            z = _on(chunk.codes[index], link.weight)
            y = chunk.y.to(link.weight.device)
            target = link.bias_add(link.forward(self._input(chunk, index)))
            point = self.loss.prox(z.shifted(target, inertia.shift), y, self.rho, z.now)
            point = inertia.relaxed(point, z.now)
            value += float(self.loss.value(point, y)) + float(sum_of_squares(target - point)) * self.rho / 2
            chunk.codes[index] = chunk.codes[index].move(point.to(chunk.x.device))
        return value

    def _weight_terms(self) -> float:
        value = 0.0
        count = sum(len(chunk.x) for chunk in self._chunks)
        for layer, penalty in zip(self._layers, self._penalties, strict=True):
            value += float(sum_of_squares(layer.weight.now)) * self.mu / 2
            value += float(penalty.value(layer.weight.now)) * count
        return value

    def _value(self) -> float:
        """The objective at the start, from scratch."""
        value = self._weight_terms()
        for chunk in self._chunks:
            for index, link in enumerate(self._links):
                target = link.bias_add(link.forward(self._input(chunk, index)))
                value += float(sum_of_squares(target - self._code(chunk, index))) * self.rho / 2
            y = chunk.y.to(self._links[0].weight.device)
            value += float(self.loss.value(self._code(chunk, len(self._links) - 1), y))
        return value


def _on(z: Iterate, like: Tensor) -> Iterate:
    """A block on the device of the weights."""
    before = None if z.before is None else z.before.to(like.device, non_blocking=True)
    return Iterate(z.now.to(like.device, non_blocking=True), before)
