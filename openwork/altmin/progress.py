"""Where a run is: what changes from sweep to sweep besides the blocks, and the series that a report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any

from torch import Tensor

from openwork.altmin.measurement import Measurement, escaped, warn_of_escape
from openwork.files import State

MEASURED = tuple(Measurement.__dataclass_fields__)
SERIES = (*MEASURED, "rho", "restarts", "forward_loss", "forward_accuracy")


@dataclass(eq=False)
class Progress:
    """Counters, series and the best weights so far.

    Args:
        rho: The present one, before rules for single layers.
        norms: Of all weights at the start.
        sweeps: Done.
        clock: Sweeps since the start or the last restart.
        restarts: Sweeps, or blocks, that were done again without inertia.
        objective: After the last sweep; None if something was rescheduled since.
        costs: Forward losses of the training samples since the last change of ``rho``.
        warned: Whether the user was warned of layers that escape.
        best_score: The smallest forward loss, penalties included.
        best_weights: Weights and biases that had it.
        best_sweep: Sweeps before it.
        series: One entry per sweep or per evaluation.
    """

    rho: float
    norms: list[float]
    sweeps: int = 0
    clock: int = 0
    restarts: int = 0
    objective: float | None = None
    costs: list[float] = field(default_factory=list)
    warned: bool = False
    best_score: float | None = None
    best_weights: list[Tensor] = field(default_factory=list)
    best_sweep: int | None = None
    series: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in SERIES})

    def record(self, measured: Measurement, remedy: str) -> None:
        """Count a sweep.

        Args:
            measured: After it.
            remedy: What the user is told to take if layers escape.
        """
        self.sweeps += 1
        self.objective = measured.objective
        for name in MEASURED:
            self.series[name].append(getattr(measured, name))
        self.series["rho"].append(self.rho)
        self.series["restarts"].append(self.restarts)
        pair = None if self.warned else escaped(self.norms, measured.weight_norm)
        if pair is not None:
            self.warned = True
            warn_of_escape(*pair, remedy)

    def record_forward(
        self, loss: float, accuracy: float | None, penalty: float, weights: Sequence[Tensor] | None
    ) -> None:
        """Note how good the network is, and keep its weights if it never was better.

        Args:
            loss: Mean over samples.
            accuracy: Fraction of samples; None where there is none.
            penalty: Of the present weights.
            weights: Present weights and biases; None if they are not to be kept.
        """
        self.series["forward_loss"].append(loss)
        if accuracy is not None:
            self.series["forward_accuracy"].append(accuracy)
        score = loss + penalty
        if weights is not None and isfinite(score) and (self.best_score is None or score < self.best_score):
            self.best_score, self.best_sweep = score, self.sweeps
            self.best_weights = [weight.clone() for weight in weights]

    def settled(self, tolerance: float) -> bool:
        """Whether 10 sweeps lowered neither the objective by this fraction nor the forward loss.

        Args:
            tolerance: 0 for never.
        """
        objectives, losses = self.series["objective"], self.series["forward_loss"]
        if tolerance == 0 or min(len(objectives), len(losses)) <= 10:
            return False
        slow = objectives[-11] - objectives[-1] < tolerance * abs(objectives[-1])
        return slow and min(losses[-10:]) >= min(losses[:-10])

    def saved(self) -> dict[str, State]:
        """Everything under its name; tensors are references."""
        state: dict[str, State] = {f.name: getattr(self, f.name) for f in fields(self)}
        state["series"] = {name: list(values) for name, values in self.series.items()}
        state["best_weights"], state["costs"] = list(self.best_weights), list(self.costs)
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on where ``saved`` was called.

        Args:
            state: From there.
        """
        for f in fields(self):
            setattr(self, f.name, state[f.name])
        like = self.best_weights
        self.best_weights = [weight.detach().clone() for weight in like]
        self.costs = list(self.costs)
        self.series = {name: list(values) for name, values in self.series.items()}
