"""Options as a user hands them over: what is refused before a trainer exists."""

from math import inf
from numbers import Real

from openwork.altmin.couplings import Coupling
from openwork.altmin.homotopy import SignHomotopy
from openwork.altmin.inertia import Inertia, InertiaSchedule
from openwork.altmin.losses import OutputLoss
from openwork.altmin.minibatch import MiniBatch
from openwork.altmin.rho import FixedRho, RhoPolicy
from openwork.altmin.weight_block import WeightSolver


def check_kinds(
    place: str, loss: object, coupling: object, w_solver: object, homotopy: object, minibatch: object
) -> None:
    """Refuse options of the wrong type; None is a default.

    Args:
        place: For the message.
        loss: Of the outputs.
        coupling: Between codes and activations.
        w_solver: How weights are updated.
        homotopy: How sign layers begin.
        minibatch: Numbers of mini-batches.

    Raises:
        TypeError: If one is of the wrong type.
    """
    for name, value, kind, example in (
        ("loss", loss, OutputLoss, "Squared()"),
        ("coupling", coupling, Coupling, "Exact()"),
        ("w_solver", w_solver, WeightSolver, "ExactWeights()"),
        ("homotopy", homotopy, SignHomotopy, "SignHomotopy(20)"),
        ("minibatch", minibatch, MiniBatch, "MiniBatch()"),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{place}: {name} must be None or an object such as {example}, got {value!r}")


def check_numbers(place: str, mu: float | str, balance: int, safeguard: str) -> None:
    """Refuse options out of range.

    Args:
        place: For the message.
        mu: Weight of ``mu/2 ||W||^2``.
        balance: Sweeps between two balancings.
        safeguard: What is repeated.

    Raises:
        ValueError: If there is one.
    """
    if mu != "auto" and not (isinstance(mu, (int, float)) and 0 <= mu < inf):
        raise ValueError(f"{place}: mu must be finite and >= 0, or 'auto', got {mu!r}")
    if safeguard not in ("sweep", "block", "none"):
        raise ValueError(f"{place}: safeguard must be 'sweep', 'block' or 'none', got {safeguard!r}")
    if not isinstance(balance, int) or balance < 0:
        raise ValueError(f"{place}: balance must be a number of sweeps, or 0 for never, got {balance}")


def inertia_of(place: str, inertia: object) -> InertiaSchedule:
    """Three numbers as inertia, a schedule as it is.

    Args:
        place: For the message.
        inertia: As a user gives it.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(inertia, (tuple, list)) and len(inertia) == 3 and all(isinstance(p, Real) for p in inertia):
        return Inertia(*inertia)
    if isinstance(inertia, InertiaSchedule):
        return inertia
    raise TypeError(f"{place}: inertia must be three numbers (p1, p2, p3) or a schedule, got {inertia!r}")


def policy_of(place: str, rho: object) -> RhoPolicy:
    """A number as the fixed ``rho``, a rule as it is.

    Args:
        place: For the message.
        rho: As a user gives it.

    Raises:
        TypeError: If it is neither.
    """
    if isinstance(rho, (int, float)):
        return FixedRho(rho)
    if isinstance(rho, RhoPolicy):
        return rho
    raise TypeError(f"{place}: rho must be a number or a rule such as AdaptiveRho(), got {rho!r}")
