"""The trainer: an ordinary model in, the same model trained out, block by block."""

import time
from collections.abc import Mapping
from math import isfinite
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from openwork.altmin.balancing import balance
from openwork.altmin.couplings import Coupling, Exact
from openwork.altmin.inertia import Inertia, InertiaSchedule, Iterate, check_stability
from openwork.altmin.losses import CrossEntropy, OutputLoss
from openwork.altmin.measurement import Measurement, escaped, measure, warn_of_escape
from openwork.altmin.models import links_of
from openwork.altmin.orders import Order, forward
from openwork.altmin.penalized import penalties_of
from openwork.altmin.readout import refit_readout
from openwork.altmin.rho import FixedRho, RhoPolicy
from openwork.altmin.samples import check_memory, check_samples, output_sizes
from openwork.altmin.saving import check_saved, load_layer, saved_layer
from openwork.altmin.state import Layer, Problem
from openwork.altmin.sweep import PLAIN, Blocks
from openwork.altmin.weight_block import MajorizedWeights, WeightSolver
from openwork.files import State
from openwork.penalties import Penalty

__all__ = ["AMTrainer", "ForwardGap"]

# Sweeps between two computations of the residuals from scratch.
REFRESH = 20
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
    mean over samples. F never rises from one sweep to the next (``safeguard="sweep"``, while nothing is rescheduled), but
    says nothing about the network by itself: look at ``forward_gap()``.

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
        safeguard: Literal["sweep", "block", "none"] = "sweep",
        order: Order = forward,
        penalties: Mapping[str, Penalty] | None = None,
        w_solver: WeightSolver | None = None,
        readout: bool = True,
        balance: int = 10,
        multiplier: bool = False,
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
        self.rho = FixedRho(rho) if isinstance(rho, (int, float)) else rho
        self.mu = mu
        self.inertia: InertiaSchedule = Inertia(*inertia) if isinstance(inertia, tuple) else inertia
        check_stability(ME, self.inertia)
        self.safeguard = safeguard
        self.order = order
        self.w_solver = MajorizedWeights() if w_solver is None else w_solver
        self.readout = readout
        self.balance = balance
        self.multiplier = multiplier
        self._links, self._activations = links_of(model)
        self.w_solver.check(ME, self._links)
        self.coupling.check(ME, self._links)
        self._penalties = penalties_of(ME, model, self._links, penalties)
        self._blocks: Blocks | None = None
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
        mu = MU_PER_SAMPLE * x.shape[0] if isinstance(self.mu, str) else self.mu
        problem = Problem(x, y, self.loss, self._first_layers(x, mu))
        visits = self.order(len(self._links))
        self._blocks = Blocks(problem, self.coupling, self.w_solver, visits)
        self._held = validation
        self._rho = self.rho.start
        self._relate()
        self._sweeps = self._clock = self._restarts = 0
        self._objective: float | None = None
        self._costs: list[float] = []
        self._best: tuple[float, list[Tensor]] | None = None
        self._warned = False
        self._norms = measure(self._blocks).weight_norm
        self._series: dict[str, list[State]] = {name: [] for name in SERIES}

    def _first_layers(self, x: Tensor, mu: float) -> list[Layer]:
        layers: list[Layer] = []
        a = x
        for index, (link, penalty) in enumerate(zip(self._links, self._penalties, strict=True)):
            activation = self._activations[index] if index < len(self._activations) else None
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
                weight_curvature=(curvature * 1.02).clamp(min=1e-12),
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
        blocks = self._started()
        for layer in blocks.problem.layers:
            layer.write_back()
        measured = self._guarded(blocks)
        self._objective = measured.objective
        self._sweeps += 1
        self._record(measured)
        self._reschedule(blocks, measured)
        return measured

    def _guarded(self, blocks: Blocks) -> Measurement:
        inertia = self.inertia.at(self._clock)
        before = self._objective if self._objective is not None else float(blocks.objective())
        saved = blocks.snapshot()
        slack = 1e-12 if blocks.problem.x.dtype == torch.float64 else 1e-6
        if self.safeguard == "block":
            self._restarts += blocks.guarded_sweep(inertia, slack)
        else:
            blocks.sweep(inertia)
        measured = measure(blocks)
        raised = not measured.objective <= before + slack * abs(before)
        if self.safeguard == "sweep" and raised and not inertia.none:
            measured = self._repeat(blocks, saved)
        else:
            self._clock += 1
        if not isfinite(measured.objective):
            self._scale_rho(blocks, 10.0, saved)
            measured = self._repeat(blocks, saved)
        if not isfinite(measured.objective):
            blocks.restore(saved)
            raise FloatingPointError(
                f"{ME}: the objective is {measured.objective} after sweep {self._sweeps + 1}, even without inertia and "
                "with rho ten times as large; scale the inputs to about unit size, or take a larger mu"
            )
        return measured

    def _repeat(self, blocks: Blocks, saved: list[Layer]) -> Measurement:
        """Go back and sweep without inertia."""
        blocks.restore(saved)
        blocks.problem.forget()
        blocks.sweep(PLAIN)
        self._restarts += 1
        self._clock = 0
        return measure(blocks)

    def _reschedule(self, blocks: Blocks, measured: Measurement) -> None:
        problem = blocks.problem
        output = problem.layers[-1]
        if output.dual is not None:
            output.dual = output.dual - output.residual
            self._objective = None
        if self.coupling.tighten(problem):
            self._objective = None
        if self.balance and self._sweeps % self.balance == 0:
            balance(problem)
            self.coupling.settle(problem)
            self._relate()
            self._objective = None
        if self.rho.period and self._sweeps % self.rho.period == 0:
            self._costs.append(self._forward_loss(problem.x, problem.y))
            factor = self.rho.factor(self._rho, self._costs, measured.surrogate_loss)
            if factor != 1:
                self._costs.clear()
                self._scale_rho(blocks, factor, problem.layers)
                problem.forget()
        if self._sweeps % REFRESH == 0:
            problem.recompute()
            self._objective = None

    def _scale_rho(self, blocks: Blocks, factor: float, layers: list[Layer]) -> None:
        """Multiply rho and all that is weighed against it."""
        self._rho *= factor
        self._objective = None
        for layer in layers:
            layer.rho, layer.mu = layer.rho * factor, layer.mu * factor
            layer.penalty_weight *= factor
            layer.dual = None if layer.dual is None else layer.dual / factor

    def _relate(self) -> None:
        """Set the rho of every layer; a rule that asks for the size of its outputs waits for a device."""
        for layer in self._started().problem.layers:
            if type(self.rho).of_layer is RhoPolicy.of_layer:
                layer.rho = self._rho
            else:
                layer.rho = self.rho.of_layer(self._rho, float((layer.residual + layer.z.now).square().mean()))

    def _record(self, measured: Measurement) -> None:
        for name in MEASURED:
            self._series[name].append(getattr(measured, name))
        self._series["rho"].append(self._rho)
        self._series["restarts"].append(self._restarts)
        escapee = None if self._warned else escaped(self._norms, measured.weight_norm)
        if escapee is not None:
            self._warned = True
            warn_of_escape(escapee)

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
            The model, in evaluation of nothing but itself: an ordinary module.

        Raises:
            ValueError: If ``sweeps`` is negative, or see ``start``.
        """
        if sweeps < 0:
            raise ValueError(f"{ME}.fit: sweeps must be >= 0, got {sweeps}")
        begun = self._blocks is not None and self._blocks.problem.x is X and self._blocks.problem.y is y
        if not begun:
            self.start(X, y, validation)
        elif validation is not None:
            self._held = validation
        began = time.monotonic()
        if self._best is None:
            self.evaluate()
        for _ in range(sweeps):
            self.sweep()
            self.evaluate()
            if (seconds is not None and time.monotonic() - began > seconds) or self._settled(tolerance):
                break
        return self.finish()

    def _settled(self, tolerance: float) -> bool:
        objectives = cast("list[float]", self._series["objective"])
        losses = cast("list[float]", self._series["forward_loss"])
        if tolerance == 0 or len(objectives) <= 10 or len(losses) <= 10:
            return False
        slow = objectives[-11] - objectives[-1] < tolerance * abs(objectives[-1])
        return slow and min(losses[-10:]) >= min(losses[:-10])

    @torch.no_grad()
    def evaluate(self) -> float:
        """Forward loss of the network on the validation samples, a mean; the weights are kept if it is the best so far.

        Without validation samples the training samples take their place.
        """
        problem = self._started().problem
        x, y = (problem.x, problem.y) if self._held is None else self._held
        outputs = self.model(x)
        loss = float(self.loss.value(outputs, y)) / x.shape[0]
        self._series["forward_loss"].append(loss)
        if not y.is_floating_point() and outputs.ndim == 2 and y.ndim == 1:
            self._series["forward_accuracy"].append(float((outputs.argmax(1) == y).double().mean()))
        if isfinite(loss) and (self._best is None or loss < self._best[0]):
            self._best = (loss, [tensor.clone() for tensor in self._parameters()])
        return loss

    @torch.no_grad()
    def finish(self) -> nn.Sequential:
        """Put the best weights into the model and refit the last layer; the blocks stay, so that sweeps can go on.

        Returns:
            The model. Penalized weights have the exact zeros of the proximal point that they are.
        """
        problem = self._started().problem
        if self._best is not None:
            self._write(self._best[1])
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
            x = activation.forward(link.bias_add(link.forward(x)))
        return x

    def _forward_loss(self, x: Tensor, y: Tensor) -> float:
        return float(self.loss.value(self.model(x), y)) / x.shape[0]

    @torch.no_grad()
    def forward_gap(self) -> ForwardGap:
        """Loss of the network with the model's present weights, and of the block z, on the training samples."""
        problem = self._started().problem
        return ForwardGap(self._forward_loss(problem.x, problem.y), float(problem.surrogate_loss()) / problem.size)

    def report(self) -> dict[str, list[State]]:
        """Series with one entry per sweep: those of ``Measurement``, ``rho`` and the number of ``restarts`` so far.

        ``forward_loss`` and ``forward_accuracy`` have one entry per ``evaluate``.
        """
        self._started()
        return {name: list(values) for name, values in self._series.items()}

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, State]:
        """All blocks, histories, counters and series; references, so save or copy them at once."""
        problem = self._started().problem
        return {
            "layers": [saved_layer(layer) for layer in problem.layers],
            "model": list(self._parameters()),
            "best": None if self._best is None else {"loss": self._best[0], "weights": list(self._best[1])},
            "series": {name: list(values) for name, values in self._series.items()},
            **{name: getattr(self, f"_{name}") for name in COUNTERS},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit; ``start`` has to come first, with the same samples.

        Args:
            state: From a trainer of the same model with the same configuration.

        Raises:
            ValueError: If it is the state of another model or of other samples; nothing has changed then.
        """
        layers = self._started().problem.layers
        saved = cast("list[Mapping[str, object]]", state["layers"])
        if len(saved) != len(layers):
            raise ValueError(f"{ME}: the model has {len(layers)} weight layers, the state to load {len(saved)}")
        for index, (layer, one) in enumerate(zip(layers, saved, strict=True)):
            check_saved(ME, index, layer, one)
        for layer, one in zip(layers, saved, strict=True):
            load_layer(layer, one)
        self._write(cast("list[Tensor]", state["model"]))
        best = cast("Mapping[str, object] | None", state["best"])
        if best is None:
            self._best = None
        else:
            weights = cast("list[Tensor]", best["weights"])
            own = self._parameters()
            self._best = (
                cast("float", best["loss"]),
                [w.to(p.device, copy=True) for w, p in zip(weights, own, strict=True)],
            )
        self._series = {
            name: list(values) for name, values in cast("Mapping[str, list[State]]", state["series"]).items()
        }
        for name in COUNTERS:
            setattr(self, f"_{name}", state[name])
        self._costs = list(self._costs)

    def _started(self) -> Blocks:
        if self._blocks is None:
            raise RuntimeError(f"{ME}: there are no samples yet; call start(X, y) or fit(X, y, sweeps) first")
        return self._blocks


MEASURED = tuple(Measurement.__dataclass_fields__)
SERIES = (*MEASURED, "rho", "restarts", "forward_loss", "forward_accuracy")
COUNTERS = ("rho", "sweeps", "clock", "restarts", "objective", "costs", "warned", "norms")
