"""The trainer: an ordinary model in, the same model trained out, block by block."""

import time
from collections.abc import Mapping
from math import inf
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from openwork.altmin.couplings import Coupling, Exact
from openwork.altmin.curvature import MARGIN
from openwork.altmin.homotopy import SignHomotopy, hardened, signs
from openwork.altmin.inertia import Inertia, InertiaSchedule, Iterate, check_stability
from openwork.altmin.losses import CrossEntropy, OutputLoss
from openwork.altmin.measurement import Measurement, measure
from openwork.altmin.models import links_of
from openwork.altmin.orders import Order, forward
from openwork.altmin.penalized import penalties_of
from openwork.altmin.progress import Progress
from openwork.altmin.readout import refit_readout
from openwork.altmin.removal import remove_dead
from openwork.altmin.rho import FixedRho, RhoPolicy
from openwork.altmin.safeguard import Safeguard, guarded_sweep
from openwork.altmin.samples import check_memory, check_samples, output_sizes
from openwork.altmin.saving import check_saved, load_layer, saved_layer
from openwork.altmin.schedules import Schedules
from openwork.altmin.state import FLOOR, Layer, Problem
from openwork.altmin.sweep import Blocks
from openwork.altmin.weight_block import MajorizedWeights, WeightSolver
from openwork.files import State
from openwork.penalties import Penalty

__all__ = ["AMTrainer", "ForwardGap"]

# ``mu="auto"`` per sample.
MU_PER_SAMPLE = 4e-4
ME = "AMTrainer"


class ForwardGap(NamedTuple):
    """The pair of losses that shows whether the objective still stands for the network; means over samples.

    Args:
        forward: Of the network on its training samples.
        surrogate: Of the block z at the output.
    """

    forward: float
    surrogate: float


class AMTrainer:
    """Trains a network without backpropagation, by alternating minimization with three inertial steps.

    The network ``z_l = W_l a_{l-1} + b_l``, ``a_l = h_l(z_l)`` becomes an objective in which every block of variables
    (a weight, a bias, the z or the a of one layer) is minimized in turn::

        F = R(z_L; y) + sum_l rho/2 ||W_l a_{l-1} + b_l - z_l||^2 + mu/2 ||W_l||^2 + N f_l(W_l) + coupling

    R and the links are sums over the N samples, and penalties f, as everywhere in this library, are weighed against a
    mean over samples. F never rises from one sweep to the next (``safeguard="sweep"``, while nothing is rescheduled),
    but says nothing about the network by itself: look at ``forward_gap()``.

    A sweep costs two products per layer and two per hidden layer, each of the size of a forward pass through the layer.
    Nothing waits for a device inside it, and no graph is made.

    Args:
        model: ``nn.Sequential`` of linear or convolutional layers, elementwise activations and what ``links_of`` takes.
            Its weights are the start, and are written in place.
        loss: Of the outputs.
        coupling: Between the codes of a layer and its activation.
        rho: Weight of the links, or a rule for it.
        mu: Weight of ``mu/2 ||W||^2``, >= 0, against a loss summed over samples; ``"auto"`` for 4e-4 per sample.
        inertia: Three numbers, or a schedule.
        safeguard: ``"sweep"`` repeats a sweep that raised F without inertia, from the same bits; ``"block"`` repeats
            single blocks, as mDLAM does, which costs an evaluation of F and a wait per block; ``"none"`` repeats none.
        order: Of the blocks in a sweep.
        penalties: Penalties of weights, by the name of a layer or of its weight. Zeros are exact after every sweep.
        w_solver: How weights are updated.
        readout: Whether ``finish`` refits the last layer on the true features.
        balance: Sweeps between two balancings of positively homogeneous layers (ReLU and the like); 0 for never.
        multiplier: Whether the link of the output has a Lagrange multiplier.
        homotopy: How sign layers begin as ramps; None for signs from the start. The best weights are only looked for
            after it.

    Raises:
        TypeError: If the model has parts that cannot be trained like this, or an argument is of the wrong type.
        ValueError: If a number is out of range.

    References:
        Yan, Xu, Wang & Peng, TIAM, arXiv:2503.08489. The exact coupling, the safeguard per sweep, balancing and the
        refit are ours; ``openwork.altmin.tiam`` is the paper's method.
    """

    def __init__(
        self,
        model: nn.Sequential,
        *,
        loss: OutputLoss | None = None,
        coupling: Coupling | None = None,
        rho: float | RhoPolicy = 0.1,
        mu: float | Literal["auto"] = "auto",
        inertia: tuple[float, float, float] | InertiaSchedule = (0.633, 0.633, 0.5),
        safeguard: Safeguard = "sweep",
        order: Order = forward,
        penalties: Mapping[str, Penalty] | None = None,
        w_solver: WeightSolver | None = None,
        readout: bool = True,
        balance: int = 10,
        multiplier: bool = False,
        homotopy: SignHomotopy | None = None,
    ) -> None:
        if (not isinstance(mu, str) and not 0 <= mu < float("inf")) or (isinstance(mu, str) and mu != "auto"):
            raise ValueError(f"{ME}: mu must be finite and >= 0, or 'auto', got {mu!r}")
        if safeguard not in ("sweep", "block", "none"):
            raise ValueError(f"{ME}: safeguard must be 'sweep', 'block' or 'none', got {safeguard!r}")
        if balance < 0:
            raise ValueError(f"{ME}: balance must be a number of sweeps, or 0 for never, got {balance}")
        if not callable(order):
            raise TypeError(f"{ME}: order must be a function such as openwork.altmin.forward, got {order!r}")
        self.model = model
        self.loss = CrossEntropy() if loss is None else loss
        self.coupling = Exact() if coupling is None else coupling
        self.mu = mu
        self.inertia: InertiaSchedule = Inertia(*inertia) if isinstance(inertia, tuple) else inertia
        check_stability(ME, self.inertia)
        self.safeguard: Safeguard = safeguard
        self.order = order
        self.w_solver = MajorizedWeights() if w_solver is None else w_solver
        self.readout = readout
        self._schedules = Schedules(FixedRho(rho) if isinstance(rho, (int, float)) else rho, balance, homotopy)
        self.multiplier = multiplier
        self._links, self._activations = links_of(model)
        self.w_solver.check(ME, self._links)
        self.coupling.check(ME, self._links)
        self._penalties = penalties_of(ME, model, self._links, penalties)
        self._blocks: Blocks | None = None
        self._progress: Progress | None = None
        self._held: tuple[Tensor, Tensor] | None = None

    # -- start ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, X: Tensor, y: Tensor, validation: tuple[Tensor, Tensor] | None = None) -> None:
        """Take the samples and initialize every block by a forward pass from the model's weights.

        Args:
            X: Inputs, ``(N, ...)``.
            y: Targets, ``(N,)`` or as the loss takes them.
            validation: Inputs and targets to choose the weights by; the training samples if None.

        Raises:
            TypeError: If something is of the wrong type.
            ValueError: If samples or targets do not fit the model.
            MemoryError: If the blocks do not fit into memory.
        """
        x, y = check_samples(ME, X, y, self._links)
        sizes = output_sizes(ME, x, self._links, self._activations)
        self.loss.check(y, sizes[-1][0], x.shape[0])
        if validation is not None:
            held_x, held_y = check_samples(f"{ME} (validation)", *validation, self._links)
            output_sizes(f"{ME} (validation)", held_x, self._links, self._activations)
            self.loss.check(held_y, sizes[-1][0], held_x.shape[0])
            validation = (held_x, held_y)
        check_memory(ME, x, sizes)
        if self._schedules.homotopy is not None:
            self._schedules.homotopy.apply(self._activations, 0)
        mu = MU_PER_SAMPLE * x.shape[0] if isinstance(self.mu, str) else self.mu
        problem = Problem(x, y, self.loss, self._first_layers(x, mu))
        self._schedules.relate(problem, self._schedules.rho.start)
        self._blocks = Blocks(problem, self.coupling, self.w_solver, self.order(len(self._links)))
        self._progress = Progress(self._schedules.rho.start, measure(self._blocks).weight_norm)
        self._held = validation

    def _first_layers(self, x: Tensor, mu: float) -> list[Layer]:
        layers: list[Layer] = []
        a = x
        for index, (link, penalty) in enumerate(zip(self._links, self._penalties, strict=True)):
            activation = self._activations[index] if index < len(self._activations) else None
            link.refresh(a)
            target = link.bias_add(link.forward(a))
            z = target if activation is None else activation.project(target)
            curvature = link.weight_curvature(a, 50 if index == 0 else 4)
            layer = Layer(
                link=link,
                activation=activation,
                weight=Iterate(link.weight.clone()),
                bias=None if link.bias is None else Iterate(link.bias.clone()),
                z=Iterate(z),
                a=None if activation is None else Iterate(activation.forward(z)),
                residual=target - z,
                weight_curvature=(curvature * MARGIN).clamp(min=FLOOR),
                input_curvature=torch.zeros_like(curvature),
                mu=mu,
                penalty=penalty,
                penalty_weight=float(x.shape[0]),
                dual=torch.zeros_like(z) if activation is None and self.multiplier else None,
            )
            layers.append(layer)
            if layer.a is not None:
                self.coupling.prepare(layer)
                a = layer.a.now
        return layers

    # -- sweeps -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sweep(self) -> Measurement:
        """Move every block once, then the schedules.

        Returns:
            What the sweep is watched by.

        Raises:
            RuntimeError: If ``start`` was not called.
            FloatingPointError: If the objective is not finite even without inertia and with ``rho`` ten times as large;
                the blocks are then as before the sweep.
        """
        blocks, progress = self._started()
        for layer in blocks.problem.layers:
            layer.write_back()
        if self._schedules.homotopy is not None:
            self._schedules.homotopy.apply(self._activations, progress.sweeps)
        if blocks.problem.select():
            progress.objective = None
        before = float(blocks.objective()) if progress.objective is None else progress.objective
        outcome = guarded_sweep(blocks, self.inertia.at(progress.clock), self.safeguard, before)
        progress.rho *= outcome.growth
        progress.restarts += outcome.repeats
        progress.clock = 0 if outcome.restarted else progress.clock + 1
        progress.record(outcome.measured)
        self._schedules.advance(
            blocks,
            progress,
            outcome.measured.surrogate_loss,
            lambda: self._forward_loss(blocks.problem.x, blocks.problem.y),
        )
        return outcome.measured

    @torch.no_grad()
    def remove_dead(self) -> int:
        """Take out of the network what a penalty of rows or columns has left without effect, to make sweeps cheaper.

        A hidden unit goes if nobody reads it, or if its row is zero, so that it is a constant, which moves into the
        next bias. The outputs of the network stay the same. Its linear layers become narrower in place, with new
        parameters, and states saved before no longer fit. Blocks go on without history. The objective loses the terms
        of these units, and codes of constant units no longer help where the network cannot. The best weights so far
        are forgotten.

        Returns:
            How many units went, 0 if nothing has changed.

        Raises:
            RuntimeError: If ``start`` was not called.
        """
        blocks, progress = self._started()
        for layer in blocks.problem.layers:
            layer.write_back()
        removed = remove_dead(self.model, blocks.problem)
        if removed:
            progress.clock, progress.objective = 0, None
            progress.best_loss, progress.best_weights = None, []
        return removed

    # -- the whole run ----------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Tensor,
        y: Tensor,
        sweeps: int,
        *,
        validation: tuple[Tensor, Tensor] | None = None,
        tolerance: float = 0.0,
        seconds: float | None = None,
    ) -> nn.Sequential:
        """Train, and hand the model back with the weights whose forward loss was best.

        Goes on where it was if the last call had the very same tensors; starts anew from the model's weights otherwise.

        Args:
            X: Inputs, ``(N, ...)``.
            y: Targets.
            sweeps: At most.
            validation: Inputs and targets to choose the weights by; the training samples if None.
            tolerance: Stops when over 10 sweeps F fell by less than this fraction and the forward loss did not improve;
                0 never does.
            seconds: Stops after the sweep in which they are over; None for no limit.

        Returns:
            The model, an ordinary module.

        Raises:
            ValueError: If ``sweeps`` is negative, or see ``start``.
        """
        if sweeps < 0:
            raise ValueError(f"{ME}.fit: sweeps must be >= 0, got {sweeps}")
        if self._blocks is None or self._blocks.problem.x is not X or self._blocks.problem.y is not y:
            self.start(X, y, validation)
        _, progress = self._started()
        began = time.monotonic()
        if progress.best_loss is None:
            self.evaluate()
        for _ in range(sweeps):
            self.sweep()
            self.evaluate()
            if (seconds is not None and time.monotonic() - began > seconds) or progress.settled(tolerance):
                break
        return self.finish()

    @torch.no_grad()
    def evaluate(self) -> float:
        """Forward loss of the network on the validation samples, a mean; the weights are kept if it is the best so far.

        Without validation samples the training samples take their place.
        """
        blocks, progress = self._started()
        x, y = (blocks.problem.x, blocks.problem.y) if self._held is None else self._held
        with hardened(self._activations):
            outputs = self.model(x)
        loss = float(self.loss.value(outputs, y)) / x.shape[0]
        labels = not y.is_floating_point() and y.ndim == 1 and outputs.ndim == 2
        accuracy = float((outputs.argmax(1) == y).double().mean()) if labels else None
        homotopy = self._schedules.homotopy
        ready = homotopy is None or progress.sweeps >= homotopy.sweeps
        progress.record_forward(loss, accuracy, self._parameters() if ready else None)
        return loss

    @torch.no_grad()
    def finish(self) -> nn.Sequential:
        """Put the best weights into the model and refit the last layer; the blocks stay, so that sweeps can go on.

        Returns:
            The model, its ramps made signs. Penalized weights have the exact zeros of the proximal point that they are.
        """
        blocks, progress = self._started()
        problem = blocks.problem
        if progress.best_weights:
            self._write(progress.best_weights)
        for steps in signs(self._activations):
            steps.slope = inf
        if self.readout:
            before = [tensor.clone() for tensor in self._parameters()]
            held = None if self._held is None else self._forward_loss(*self._held)
            output = problem.layers[-1]
            refit_readout(self._links[-1], self._features(problem.x), problem.y, self.loss, output.mu, output.penalized)
            if held is not None and self._held is not None and not self._forward_loss(*self._held) <= held:
                self._write(before)
        return self.model

    # -- the network ------------------------------------------------------------------------------------------------

    def _parameters(self) -> list[Tensor]:
        return [tensor for link in self._links for tensor in (link.weight, link.bias) if tensor is not None]

    def _write(self, tensors: list[Tensor]) -> None:
        for own, tensor in zip(self._parameters(), tensors, strict=True):
            own.copy_(tensor)

    def _features(self, x: Tensor) -> Tensor:
        for link, activation in zip(self._links, self._activations, strict=False):
            link.refresh(x)
            x = activation.forward(link.bias_add(link.forward(x)))
        self._links[-1].refresh(x)
        return x

    def _forward_loss(self, x: Tensor, y: Tensor) -> float:
        return float(self.loss.value(self.model(x), y)) / x.shape[0]

    @torch.no_grad()
    def forward_gap(self) -> ForwardGap:
        """Loss of the network with the model's present weights, and of the block z, on the training samples."""
        problem = self._started()[0].problem
        return ForwardGap(self._forward_loss(problem.x, problem.y), float(problem.surrogate_loss()) / problem.size)

    def report(self) -> dict[str, list[State]]:
        """Series with one entry per sweep: those of ``Measurement``, ``rho`` and the number of ``restarts`` so far.

        ``forward_loss`` and ``forward_accuracy`` have one entry per ``evaluate``.
        """
        return {name: list(values) for name, values in self._started()[1].series.items()}

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, State]:
        """All blocks, histories, counters and series; references, so save or copy them at once."""
        blocks, progress = self._started()
        return {
            "layers": [saved_layer(layer) for layer in blocks.problem.layers],
            "model": list(self._parameters()),
            "progress": progress.saved(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit; ``start`` has to come first, with the same samples.

        Args:
            state: From a trainer of the same model with the same configuration.

        Raises:
            ValueError: If it is the state of another model or of other samples; nothing has changed then.
        """
        blocks, progress = self._started()
        layers = blocks.problem.layers
        saved = cast("list[Mapping[str, object]]", state["layers"])
        if len(saved) != len(layers):
            raise ValueError(f"{ME}: the model has {len(layers)} weight layers, the state to load {len(saved)}")
        for index, (layer, one) in enumerate(zip(layers, saved, strict=True)):
            check_saved(ME, index, layer, one)
        for layer, one in zip(layers, saved, strict=True):
            load_layer(layer, one)
        self._write(cast("list[Tensor]", state["model"]))
        progress.load(cast("Mapping[str, object]", state["progress"]))
        if self._schedules.homotopy is not None:
            self._schedules.homotopy.apply(self._activations, progress.sweeps)

    def _started(self) -> tuple[Blocks, Progress]:
        if self._blocks is None or self._progress is None:
            raise RuntimeError(f"{ME}: there are no samples yet; call start(X, y) or fit(X, y, sweeps) first")
        return self._blocks, self._progress
