"""Blocks whose samples are visited in chunks: the iterates of the full batch, with little more than z in memory."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor
from typing_extensions import override

from openwork.altmin.balancing import balance, each, times
from openwork.altmin.blocks import Blocks, Snapshot
from openwork.altmin.code_steps import joint_step
from openwork.altmin.couplings import Coupling, Exact
from openwork.altmin.curvature import DOUBLINGS, carried, too_steep
from openwork.altmin.fronts import Selection
from openwork.altmin.inertia import Inertia, Iterate
from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.altmin.orders import Visit, forward
from openwork.altmin.safeguard import Safeguard
from openwork.altmin.saving import check_layers, load_layer, saved_layer
from openwork.altmin.state import Layer, Problem, sum_of_squares
from openwork.altmin.sums import Sums
from openwork.altmin.sweep import output_point
from openwork.altmin.weight_block import MajorizedWeights, WeightSolver, bias_step_by_sums, check_linear, gram_curvature
from openwork.files import State


class Known(NamedTuple):
    """Numbers of one state.

    Args:
        squares: Of all residuals, ``||R||^2``.
        loss: Of the block z at the output, a sum over samples.
    """

    squares: list[Tensor]
    loss: Tensor


class Pass(NamedTuple):
    """A pass over all samples that proposes codes for a hidden layer.

    Args:
        codes: Block z, chunk by chunk.
        own: Sums for the layer itself, if it is the first.
        following: Sums for the layer that reads the codes.
        square: ``||R||^2`` with the residual R of the layer.
        steep: Whether the curvature is too small for this step.
    """

    codes: list[Iterate]
    own: Sums | None
    following: Sums
    square: Tensor
    steep: bool


class ChunkedBlocks(Blocks):
    """The blocks of linear layers, exactly coupled, in forward order, whose samples are visited in chunks.

    Blocks W and b depend on the samples by sums only, and codes are updated sample by sample. Only inputs, targets and
    the blocks z, now and before, are kept, where X lies; the layers of the problem hold blocks of no samples, and
    everything else is computed chunk by chunk where the weights are. ``x x'`` of the first layer is formed once.

    Args:
        problem: Layers and data.
        coupling: The exact one.
        weights: How weights are updated.
        codes: Block z of every layer, chunk by chunk.
        first: Sums for the first layer.
        chunk_size: Samples at a time.
    """

    def __init__(
        self,
        problem: Problem,
        coupling: Coupling,
        weights: WeightSolver,
        codes: list[list[Iterate]],
        first: Sums,
        chunk_size: int,
    ) -> None:
        super().__init__(problem, coupling, weights)
        self.codes = codes
        self._x, self._y = problem.x.split(chunk_size), problem.y.split(chunk_size)
        self._device = first.aa.device
        self._inputs = first
        self._first: Sums | None = first
        self._known: Known | None = None

    @classmethod
    def start(
        cls,
        network: Network,
        samples: tuple[Tensor, Tensor],
        loss: OutputLoss,
        mu: float,
        coupling: Coupling,
        weights: WeightSolver,
        chunk_size: int,
    ) -> Self:
        """Initialize every block by a forward pass from the model's weights.

        Args:
            network: The model.
            samples: Inputs and targets.
            loss: Of the outputs.
            mu: Weight of ``mu/2 ||W||^2``.
            coupling: The exact one.
            weights: How weights are updated.
            chunk_size: Samples at a time.
        """
        x, y = samples
        layers: list[Layer] = []
        codes: list[list[Iterate]] = []
        firsts: list[Sums] = []
        for index, link in enumerate(network.links):
            sums, own, like = Sums(link.weight), [], link.weight
            for number, part in enumerate(x.split(chunk_size)):
                a = part.to(network.device, non_blocking=True)
                if index > 0:
                    a = network.activations[index - 1].forward(codes[-1][number].now.to(network.device))
                target = link.bias_add(link.forward(a))
                z = target if index == len(network.activations) else network.activations[index].project(target)
                sums.add(link.reading(a), target - z)
                own.append(Iterate(z.to(x.device)))
                like = z.new_empty((0, *z.shape[1:]))
            codes.append(own)
            firsts.append(sums)
            curvature = gram_curvature(link, sums, 50 if index == 0 else 4)
            layers.append(network.layer(index, like, like, curvature, mu, len(x)))
        return cls(Problem(x, y, loss, layers), coupling, weights, codes, firsts[0], chunk_size)

    # -- a sweep ----------------------------------------------------------------------------------------------------

    @override
    def sweep(self, inertia: Inertia) -> None:
        if self._first is None:
            self._survey()
        sums, squares = self._first, []
        self._known = self._first = None
        layers = self.problem.layers
        loss = None
        for index, layer in enumerate(layers):
            if sums is not None:
                self.weights.step_by_sums(layer, sums, inertia, constant=index == 0)
                bias_step_by_sums(layer, sums, inertia)
            if index + 1 < len(layers):
                sums, square = self._hidden(index, inertia)
            else:
                square, loss = self._outputs(inertia)
            squares.append(square)
        if loss is not None:
            self._known = Known(squares, loss)

    def _hidden(self, index: int, inertia: Inertia) -> tuple[Sums, Tensor]:
        """Move the codes of a hidden layer: sums for the layer that reads them, and the square of the residual.

        Raises:
            FloatingPointError: If no curvature within 30 doublings will do.
        """
        following = self.problem.layers[index + 1]
        curvature = carried(following.link.input_curvature(), following.input_curvature)
        for _ in range(DOUBLINGS + 1):
            moved = self._pass(index, curvature, inertia)
            if not moved.steep:
                following.input_curvature, self.codes[index] = curvature, moved.codes
                self._first = moved.own or self._first
                return moved.following, moved.square
            curvature = 2 * curvature
        raise FloatingPointError(too_steep(curvature))

    def _pass(self, index: int, curvature: Tensor, inertia: Inertia) -> Pass:
        """Where the codes of a hidden layer go with a curvature of the layer that reads them; moves nothing."""
        layer, following = self.problem.layers[index : index + 2]
        link, activation = following.link, layer.hidden[0]
        own = Sums(layer.weight.now, self._inputs) if index == 0 else None
        sums = Sums(following.weight.now)
        numbers = (layer.rho, curvature, following.rho, inertia.p1, inertia.shift, inertia.p3)
        codes: list[Iterate] = []
        square = change = image = torch.zeros((), dtype=torch.float64, device=self._device)
        for number, kept in enumerate(self.codes[index]):
            z = self._here(kept, history=not inertia.p1 == inertia.p2 == 0)
            a = each(z, activation.forward)
            read = self._input(number, index)
            target, after = _target(layer, read), self._here(self.codes[index + 1][number]).now
            pull = link.adjoint(_target(following, a.ahead(inertia.p2)).sub_(after))
            code, point, _ = layer.entrywise(
                joint_step, activation, numbers, (target - z.now, z.now, z.before, a.now, a.before, pull)
            )
            # As from scratch, to the last bit, so that a survey after loading gives the same sums.
            residual = target.sub_(point)
            moved = code - a.now
            image, change = image + sum_of_squares(link.forward(moved)), change + sum_of_squares(moved)
            square = square + sum_of_squares(residual)
            if own is not None:
                own.add(layer.link.reading(read), residual)
            sums.add(link.reading(code), _target(following, code).sub_(after))
            codes.append(kept.move(point.to(kept.now.device)))
        return Pass(codes, own, sums, square, bool(image > curvature * change))

    def _outputs(self, inertia: Inertia) -> tuple[Tensor, Tensor]:
        """Move the block z of the output layer: the square of the residual, and the loss."""
        problem, index = self.problem, len(self.problem.layers) - 1
        layer = problem.layers[index]
        own = Sums(layer.weight.now, self._inputs) if index == 0 else None
        square = loss = torch.zeros((), dtype=torch.float64, device=self._device)
        codes: list[Iterate] = []
        for number, kept in enumerate(self.codes[index]):
            z, y = self._here(kept, history=inertia.shift != 0), self._y[number].to(self._device)
            read = self._input(number, index)
            target = _target(layer, read)
            point = output_point(problem.loss, y, z, target, layer.rho, inertia)
            residual = target - point
            square, loss = square + sum_of_squares(residual), loss + problem.loss.value(point, y)
            if own is not None:
                own.add(layer.link.reading(read), residual)
            codes.append(kept.move(point.to(kept.now.device)))
        self.codes[index], self._first = codes, own or self._first
        return square, loss

    def _survey(self) -> Known:
        """Numbers of the present state and the sums for the first layer, from scratch."""
        problem = self.problem
        first = Sums(problem.layers[0].weight.now, self._inputs)
        squares = [torch.zeros((), dtype=torch.float64, device=self._device) for _ in problem.layers]
        loss = squares[0]
        for number, y in enumerate(self._y):
            for index, layer in enumerate(problem.layers):
                read, z = self._input(number, index), self._here(self.codes[index][number]).now
                residual = _target(layer, read).sub_(z)
                squares[index] = squares[index] + sum_of_squares(residual)
                if index == 0:
                    first.add(layer.link.reading(read), residual)
                if layer.activation is None:
                    loss = loss + problem.loss.value(z, y.to(self._device))
        self._first, self._known = first, Known(squares, loss)
        return self._known

    def _input(self, number: int, index: int) -> Tensor:
        """What a layer reads of a chunk: the samples, or the activation of the codes before."""
        if index == 0:
            return self._x[number].to(self._device, non_blocking=True)
        return self.problem.layers[index - 1].hidden[0].forward(self._here(self.codes[index - 1][number]).now)

    def _here(self, kept: Iterate, *, history: bool = False) -> Iterate:
        """A chunk of a block on the device of the weights, its history only if asked for."""
        kept = kept if history else kept.rest()
        return each(kept, lambda z: z.to(self._device, non_blocking=True))

    # -- numbers ----------------------------------------------------------------------------------------------------

    @override
    def squares(self) -> list[Tensor]:
        return (self._known or self._survey()).squares

    @override
    def surrogate_loss(self) -> Tensor:
        return (self._known or self._survey()).loss

    @override
    def mean_square(self, index: int) -> float:
        layer = self.problem.layers[index]
        total = sum(float(_target(layer, self._input(number, index)).square_().sum()) for number in range(len(self._x)))
        return total / (self.problem.size * layer.z.now.shape[1])

    # -- changes between sweeps -------------------------------------------------------------------------------------

    @override
    def forget(self) -> None:
        self.problem.forget()
        self.codes = [[z.rest() for z in codes] for codes in self.codes]

    @override
    def balance(self) -> None:
        for index, scale in enumerate(balance(self.problem)):
            if scale is not None:
                here = scale.to(self.problem.x.device)
                self.codes[index] = [each(z, lambda z, s=here: times(z, s)) for z in self.codes[index]]
        self._known = self._first = None

    @override
    def project(self) -> None:
        for index, layer in enumerate(self.problem.layers[:-1]):
            activation = layer.hidden[0]
            self.codes[index] = [Iterate(activation.project(z.now)) for z in self.codes[index]]
        self.forget()
        self._known = self._first = None

    @override
    def recompute(self) -> None:
        """Nothing: every sweep computes its residuals from scratch."""

    # -- back to an earlier state -----------------------------------------------------------------------------------

    @override
    def snapshot(self) -> list[Snapshot]:
        return [one._replace(codes=tuple(z)) for one, z in zip(super().snapshot(), self.codes, strict=True)]

    @override
    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        super().restore(snapshots)
        self.codes = [list(one.codes) for one in snapshots]
        self._known = self._first = None

    @override
    def saved(self) -> list[dict[str, State]]:
        return [
            {**saved_layer(layer), "codes": [z.now for z in codes], "codes_before": [z.before for z in codes]}
            for layer, codes in zip(self.problem.layers, self.codes, strict=True)
        ]

    @override
    def check_saved(self, place: str, state: Sequence[Mapping[str, object]]) -> None:
        check_layers(place, self.problem.layers, state)
        sizes = [len(x) for x in self._x]
        for one in state:
            found = one.get("codes")
            other = [len(z) for z in found] if isinstance(found, Sequence) else []
            if other != sizes:
                raise ValueError(
                    f"{place}: the samples are in chunks of {sizes[0]}, {len(sizes)} in all, the state to load has "
                    f"{len(other)} chunks of {other[0] if other else 0}; load it with the same samples and chunk_size"
                )

    @override
    def load(self, state: Sequence[Mapping[str, object]]) -> None:
        place = self.problem.x.device
        for index, (layer, one) in enumerate(zip(self.problem.layers, state, strict=True)):
            load_layer(layer, one)
            now, before = one["codes"], one["codes_before"]
            if isinstance(now, Sequence) and isinstance(before, Sequence):
                pairs = [[None if z is None else z.to(place, copy=True) for z in both] for both in (now, before)]
                self.codes[index] = [Iterate(*pair) for pair in zip(*pairs, strict=True)]
        self._known = self._first = None


def _target(layer: Layer, read: Tensor) -> Tensor:
    """``W a + b``, a new tensor."""
    return layer.link.bias_add(layer.link.forward(read))


def check_chunks(
    place: str,
    chunk_size: int,
    links: Sequence[Link],
    coupling: Coupling,
    solver: WeightSolver,
    visits: Sequence[Visit],
    safeguard: Safeguard,
    multiplier: bool,
) -> None:
    """Refuse what chunks cannot do.

    Args:
        place: For the message.
        chunk_size: Samples at a time.
        links: Of the model.
        coupling: Between codes and activations.
        solver: Of the weights.
        visits: The order of a sweep.
        safeguard: What is repeated.
        multiplier: Whether the link of the output has one.

    Raises:
        TypeError: If the model has other layers.
        ValueError: If an option does not go with chunks.
    """
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"{place}: chunk_size must be a number of samples >= 1, got {chunk_size!r}")
    check_linear(place, "chunk_size", links)
    if any(isinstance(front, Selection) for link in links for front in link.fronts):
        raise TypeError(f"{place}: chunk_size does not go with max-pooling, whose selection is kept; leave it out")
    for name, asked, possible, instead in (
        ("coupling", coupling, coupling == Exact(fresh=True), "Exact(fresh=True)"),
        ("w_solver", solver, solver != MajorizedWeights(fresh=False), "MajorizedWeights(fresh=True)"),
        ("order", "another one", list(visits) == forward(len(links)), "forward"),
        ("safeguard", repr(safeguard), safeguard != "block", "'sweep'"),
        ("multiplier", multiplier, not multiplier, "False"),
    ):
        if not possible:
            raise ValueError(f"{place}: chunk_size needs {name}={instead}, got {asked}; change it, or leave it out")
