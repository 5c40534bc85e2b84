"""The trainer: an ordinary model in, the same model trained out, block by block."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from openwork.altmin.blocks import Blocks
from openwork.altmin.chunks import check_chunks
from openwork.altmin.couplings import Coupling, Exact
from openwork.altmin.entrywise import Compiled, eager
from openwork.altmin.homotopy import SignHomotopy, harden, hardened, signs
from openwork.altmin.inertia import InertiaSchedule, check_stability
from openwork.altmin.losses import CrossEntropy, OutputLoss
from openwork.altmin.measurement import ForwardGap, Measurement, measure
from openwork.altmin.minibatch import MiniBatch, MiniBatches, check_batches
from openwork.altmin.models import check_folded, fold, read_model
from openwork.altmin.network import Network
from openwork.altmin.options import check_kinds, check_numbers, inertia_of, policy_of
from openwork.altmin.orders import Order, forward, visits_of
from openwork.altmin.penalized import penalties_of, structures_of
from openwork.altmin.progress import Progress
from openwork.altmin.readout import refit
from openwork.altmin.rho import RhoPolicy
from openwork.altmin.safeguard import Safeguard, guarded_sweep
from openwork.altmin.samples import check_samples, check_validation, checksum
from openwork.altmin.schedules import Schedules
from openwork.altmin.starting import start_blocks
from openwork.altmin.weight_block import ExactWeights, MajorizedWeights, WeightSolver
from openwork.files import State
from openwork.penalties import Penalty
from openwork.structure import Structure

__all__ = ["AMTrainer"]

# ``mu="auto"`` per sample.
MU_PER_SAMPLE = 4e-4
ME = "AMTrainer"


class AMTrainer:
    """Trains a network without backpropagation, by alternating minimization with three inertial steps.

    The network ``z_l = W_l a_{l-1} + b_l``, ``a_l = h_l(z_l)`` becomes an objective in which every block of variables
    (a weight, a bias, the z or the a of one layer) is minimized in turn::

        F = R(z_L; y) + sum_l rho/2 ||W_l a_{l-1} + b_l - z_l||^2 + mu/2 ||W_l||^2 + N f_l(W_l) + coupling

    R and the links are sums over the N samples, and penalties f, as everywhere in this library, are weighed against a
    mean over samples. F never rises from one sweep to the next (``safeguard="sweep"``, while nothing is rescheduled),
    but says nothing about the network by itself: look at ``forward_gap()``.

    A sweep costs three products per layer (two for the first one) and two per hidden layer, each of the size of a
    forward pass through the layer; with ``MajorizedWeights``, as in the paper, one less. Nothing waits for a device
    inside it, and no graph is made.

    Args:
        model: ``nn.Sequential`` of linear or convolutional layers, elementwise activations and what ``links_of`` takes.
            Its weights are the start, and are written in place, whether they require gradients or not.
        loss: Of the outputs.
        coupling: Between the codes of a layer and its activation.
        rho: Weight of the links, or a rule for it.
        mu: Weight of ``mu/2 ||W||^2``, >= 0, against a loss summed over samples; ``"auto"`` for 4e-4 per sample.
        inertia: Three numbers, or a schedule.
        safeguard: ``"sweep"`` repeats a sweep that raised F without inertia, from the same bits; ``"block"`` repeats
            single blocks, as mDLAM does, which costs an evaluation of F and a wait per block; ``"none"`` repeats none.
        order: Of the blocks in a sweep.
        penalties: Penalties of weights, by the name of a layer or of its weight. Zeros are exact after every sweep.
        w_solver: How weights are updated. None solves for them, which takes a fraction of the sweeps; but for networks
            with penalties or sign layers, where cautious steps train better, it is ``MajorizedWeights``.
        readout: Whether ``finish`` refits the last layer on the true features.
        balance: Sweeps between two balancings of positively homogeneous layers (ReLU and the like); 0 for never.
        multiplier: Whether the link of the output has a Lagrange multiplier.
        homotopy: How sign layers begin as ramps; None for signs from the start. The best weights are only looked for
            after it.
        compile: Whether the steps of the codes are compiled by ``torch.compile``, which takes seconds at the first
            sweep. Those of smooth activations are not: it does not help them.
        chunk_size: Samples at a time, for data that does not fit where the model is; None for all at once. The iterates
            are those of the full batch up to rounding, with the exact coupling and the forward order, for linear
            layers, all of them ``fresh``. Only X, y and the blocks z, now and before, are kept, where X lies.
        minibatch: Numbers of ``partial_fit``; those of ``MiniBatch()`` if None.

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
        compile: bool = False,
        chunk_size: int | None = None,
        minibatch: MiniBatch | None = None,
    ) -> None:
        check_kinds(ME, loss, coupling, w_solver, homotopy, minibatch)
        check_numbers(ME, mu, balance, safeguard)
        self.model = model
        self.loss = CrossEntropy() if loss is None else loss
        fresh = chunk_size is not None
        self.coupling = Exact(fresh=fresh) if coupling is None else coupling
        self.mu = mu
        self.inertia = inertia_of(ME, inertia)
        check_stability(ME, self.inertia)
        self.safeguard: Safeguard = safeguard
        self.order = order
        self.readout = readout
        self._schedules = Schedules(policy_of(ME, rho), balance, homotopy)
        self.multiplier = multiplier
        self.chunk_size = chunk_size
        read = read_model(model)
        links, activations = read.links, read.activations
        found, entrywise = penalties_of(ME, model, links, penalties), Compiled() if compile else eager
        majorized = penalties or signs(activations)
        default = MajorizedWeights(fresh=fresh) if majorized else ExactWeights()
        self.w_solver = default if w_solver is None else w_solver
        self._network = Network(model, links, activations, found, chunk_size, entrywise)
        self._visits = visits_of(ME, order, len(links))
        self.coupling.check(ME, links)
        if chunk_size is not None:
            check_chunks(
                ME, chunk_size, links, self.coupling, self.w_solver, self._visits, self.safeguard, self.multiplier
            )
        self._blocks: Blocks | None = None
        self._progress: Progress | None = None
        self._held: tuple[Tensor, Tensor] | None = None
        self._checksum = 0
        numbers = MiniBatch() if minibatch is None else minibatch
        self._batches = MiniBatches(replace(self._network, rows=None), self.loss, self._schedules.rho.start, numbers)
        # Only now is nothing refused any more.
        fold(read)

    # -- start ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, X: Tensor, y: Tensor, validation: tuple[Tensor, Tensor] | None = None) -> None:
        """Take the samples and initialize every block by a forward pass from the model's weights.

        They are kept, not copied, and must not change while sweeps follow.

        Args:
            X: Inputs, ``(N, ...)``.
            y: Targets, ``(N,)`` or as the loss takes them.
            validation: Inputs and targets to choose the weights by; the training samples if None.

        Raises:
            TypeError: If something is of the wrong type.
            ValueError: If samples or targets do not fit the model.
            MemoryError: If the blocks do not fit into memory.
        """
        network = self._network
        check_folded(self.model)
        x, y = check_samples(ME, X, y, network, self.loss)
        validation = check_validation(ME, validation, network, self.loss)
        if self._schedules.homotopy is not None:
            self._schedules.homotopy.apply(network.activations, 0)
        for link in network.links:  # the same start as of a new trainer
            link.probes = None, None
        mu = MU_PER_SAMPLE * len(x) if isinstance(self.mu, str) else self.mu
        parts = network, (x, y), self.loss, mu, self.coupling, self.w_solver
        blocks = start_blocks(ME, *parts, self._visits, self.multiplier, self.chunk_size)
        self._schedules.relate(blocks, self._schedules.rho.start)
        self._progress = Progress(self._schedules.rho.start, measure(blocks).weight_norm)
        self._blocks, self._held = blocks, validation
        self._checksum = checksum(x, y, *(validation or ()))

    # -- sweeps -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sweep(self) -> Measurement:
        """Move every block once, then the schedules.

        Returns:
            What the sweep is watched by.

        Raises:
            RuntimeError: If ``start`` was not called.
            FloatingPointError: If the objective is not finite even without inertia and with ``rho`` ten times as large,
                or if no step size fits a block; the blocks are then as before the sweep.
        """
        blocks, progress = self._started()
        for layer in blocks.problem.layers:
            layer.write_back()
        if self._schedules.homotopy is not None:
            self._schedules.homotopy.apply(self._network.activations, progress.sweeps)
        if blocks.select():
            progress.objective = None
        before = float(blocks.objective()) if progress.objective is None else progress.objective
        outcome = guarded_sweep(blocks, self.inertia.at(progress.clock), self.safeguard, before)
        progress.rho *= outcome.growth
        progress.restarts += outcome.repeats
        progress.clock = 0 if outcome.restarted else progress.clock + 1
        progress.record(outcome.measured, self._schedules.remedy)
        self._schedules.advance(
            blocks,
            progress,
            outcome.measured.surrogate_loss,
            lambda: self._network.loss(self.loss, blocks.problem.x, blocks.problem.y),
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
        removed = blocks.remove_dead(self.model)
        if removed:
            progress.clock, progress.objective = 0, None
            progress.best_score, progress.best_sweep, progress.best_weights = None, None, []
            self._batches.steps = [None for _ in self._batches.steps]
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

        Goes on where it was, whatever the model's weights are now, if the last call had the very same tensors, with the
        same numbers in them, those of the validation included if there are any in this call; starts anew from the
        model's weights otherwise.

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
        if not isinstance(sweeps, int) or sweeps < 0:
            raise ValueError(f"{ME}.fit: sweeps must be a number >= 0, got {sweeps!r}")
        if self._blocks is None or not self._knows(X, y, validation):
            self.start(X, y, validation)
        _, progress = self._started()
        began = time.monotonic()
        if progress.best_score is None:
            self.evaluate()
        for _ in range(sweeps):
            self.sweep()
            self.evaluate()
            if (seconds is not None and time.monotonic() - began > seconds) or progress.settled(tolerance):
                break
        return self.finish()

    def _knows(self, x: Tensor, y: Tensor, validation: tuple[Tensor, Tensor] | None) -> bool:
        """Whether these tensors are those of the last start, unchanged, or no others for the validation are given."""
        problem, held = self._started()[0].problem, self._held or ()
        same = validation is None or [id(a) for a in held] == [id(a) for a in validation]
        return same and problem.x is x and problem.y is y and checksum(x, y, *held) == self._checksum

    @torch.no_grad()
    def evaluate(self) -> float:
        """Forward loss of the network on the validation samples, a mean.

        The weights are kept if it is the best so far, penalties included: sparse weights would lose against dense ones
        otherwise. Without validation samples the training samples take their place.
        """
        blocks, progress = self._started()
        x, y = (blocks.problem.x, blocks.problem.y) if self._held is None else self._held
        with hardened(self._network.activations):
            loss, accuracy = self._network.score(self.loss, x, y)
        homotopy = self._schedules.homotopy
        ready = homotopy is None or progress.sweeps >= homotopy.sweeps
        weights = self._network.parameters() if ready else None
        progress.record_forward(loss, accuracy, self._network.penalty(), weights)
        return loss

    @torch.no_grad()
    def finish(self) -> nn.Sequential:
        """Put the best weights into the model and refit the last layer; the blocks stay, so that sweeps can go on.

        Returns:
            The model, its ramps made signs. Penalized weights have the exact zeros of the proximal point that they are.
        """
        blocks, progress = self._started()
        if progress.best_weights:
            self._network.write(progress.best_weights)
        harden(self._network.activations)
        if self.readout:
            refit(self._network, blocks.problem, self._held)
        return self.model

    @torch.no_grad()
    def forward_gap(self) -> ForwardGap:
        """Loss of the network with the model's present weights, and of the block z, on the training samples."""
        blocks = self._started()[0]
        problem = blocks.problem
        forward_loss = self._network.loss(self.loss, problem.x, problem.y)
        return ForwardGap(forward_loss, float(blocks.surrogate_loss()) / problem.size)

    def report(self) -> dict[str, list[State]]:
        """Series with one entry per sweep: those of ``Measurement``, ``rho`` and the number of ``restarts`` so far.

        ``forward_loss`` and ``forward_accuracy`` have one entry per ``evaluate``.
        """
        return {name: list(values) for name, values in self._started()[1].series.items()}

    @property
    def chosen_sweep(self) -> int | None:
        """The sweep whose weights ``finish`` hands over; None for the last one, without any ``evaluate``."""
        return self._started()[1].best_sweep

    def structures(self) -> dict[str, Structure]:
        """What the penalties have left of each weight that has one, by the name of the parameter."""
        return structures_of(self.model, self._network.links, self._network.penalties)

    # -- mini-batches -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def partial_fit(self, X: Tensor, y: Tensor) -> Self:
        """Train on one mini-batch; a later ``fit`` starts anew from the model's weights.

        A batch starts with a forward pass. A few passes from the outputs to the inputs move the codes ``(z, h(z))``
        towards what the loss and the next layer want; then every layer takes a damped ridge step towards its codes,
        ``[dW, db] = (R A'/B) (A A'/B + damping I)^{-1}`` with ``A = [a; 1]`` and the residual R over B samples. A
        penalized weight takes a proximal step instead, by the largest eigenvalue of ``A A'/B + damping I``.

        This is ours: TIAM is a full-batch method, and no objective falls from batch to batch. It is slower than Adam.
        Of the options it uses ``loss``, ``rho``, ``penalties`` and ``minibatch``.

        Args:
            X: Inputs, ``(B, ...)``, on the device of the model.
            y: Targets.

        Returns:
            The trainer.

        Raises:
            TypeError: If the model has other than linear layers, or see ``start``.
            ValueError: If an option does not go with mini-batches, or see ``start``.

        References:
            Choromanska et al., Beyond backprop: online alternating minimization with auxiliary variables,
            arXiv:1806.09077: codes by batch, from the output to the input. The joint block and the ridge step are ours.
        """
        place, schedules = f"{ME}.partial_fit", self._schedules
        check_batches(place, self._network.links, schedules.rho, self.coupling, self.multiplier, schedules.homotopy)
        x, y = check_samples(place, X, y, self._batches.network, self.loss)
        self._batches.train(x, y)
        self._blocks = self._progress = None
        return self

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, State]:
        """All blocks, histories, counters and series; references, so save or copy them at once.

        Before ``start``, and after ``partial_fit``, there are only the weights and the steps of mini-batches.
        """
        progress = self._progress
        return {
            "layers": None if self._blocks is None else self._blocks.saved(),
            "progress": None if progress is None else progress.saved(),
            "model": list(self._network.parameters()),
            "minibatch": self._batches.saved(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Go on where ``state_dict`` was taken, bit for bit.

        If that was after ``start``, ``start`` has to come first here as well, with the same samples.

        Args:
            state: From a trainer of the same model with the same configuration.

        Raises:
            ValueError: If it is the state of another model or of other samples; nothing has changed then.
        """
        weights = cast("list[Tensor]", state["model"])
        expected, found = ([tuple(w.shape) for w in ws] for ws in (self._network.parameters(), weights))
        saved = cast("list[Mapping[str, object]] | None", state["layers"])
        if saved is not None:
            self._started()[0].check_saved(ME, saved)
        elif expected != found:
            raise ValueError(f"{ME}: the model has weights of shapes {expected}, the state to load {found}")
        self._batches.load(cast("Mapping[str, list[Tensor | None]]", state["minibatch"]))
        if saved is None:
            self._blocks = self._progress = None
        else:
            blocks, progress = self._started()
            blocks.load(saved)
            progress.load(cast("Mapping[str, object]", state["progress"]))
            if self._schedules.homotopy is not None:
                self._schedules.homotopy.apply(self._network.activations, progress.sweeps)
        self._network.write(weights)

    def _started(self) -> tuple[Blocks, Progress]:
        if self._blocks is None or self._progress is None:
            raise RuntimeError(f"{ME}: there are no samples yet; call start(X, y) or fit(X, y, sweeps) first")
        return self._blocks, self._progress
