"""Published methods as settings of the one engine, as faithful as their papers and released code allow."""

from collections.abc import Mapping

from torch import nn

from openwork.altmin.couplings import Band, QuadraticPenalty
from openwork.altmin.inertia import Inertia, InertiaSchedule, Nesterov
from openwork.altmin.losses import OutputLoss
from openwork.altmin.orders import backward_forward, output_to_input
from openwork.altmin.rho import FixedRho, RhoPolicy, RisingCostRho
from openwork.altmin.trainer import AMTrainer
from openwork.altmin.weight_block import ExactWeights, MajorizedWeights
from openwork.penalties import Penalty

__all__ = ["bcd", "dladmm", "mdlam", "tiam"]


def tiam(
    model: nn.Sequential,
    *,
    loss: OutputLoss | None = None,
    inertia: tuple[float, float, float] | InertiaSchedule = (0.633, 0.633, 0.5),
    band: Band | None = None,
    rho: float = 1e-3,
    mu: float = 0.05,
    penalties: Mapping[str, Penalty] | None = None,
) -> AMTrainer:
    """The triple-inertial accelerated alternating method of the paper.

    ==================  ==================================  =========================================================
    part                here                                from
    ==================  ==================================  =========================================================
    block step          three inertias                      paper
    W before b          b sees the new W                    paper
    sub-problems        quadratic model, backtracking       paper
    order               forward: W, b, z, a                 paper for W and b, else mDLAM
    coupling            band, eps 100, halved, floor 1e-3   mDLAM, whose code the authors thank; not found in the paper
    rho, mu             1e-3, 0.05                          mDLAM's code; not found in the paper
    inertia values      0.95 / (1 + p3) twice, and 0.5      ours: stable and fast; not found in the paper
    safeguard           per sweep                           ours; a test per block rejects every third step
    initial z           forward values                      ours
    ==================  ==================================  =========================================================

    Without balancing and refit. ``AMTrainer`` with its own defaults trains better networks.

    Args:
        model: As for ``AMTrainer``.
        loss: Of the outputs.
        inertia: Three numbers, or a schedule.
        band: Coupling.
        rho: Weight of the links, > 0.
        mu: Weight of ``mu/2 ||W||^2``, >= 0.
        penalties: Penalties of weights by name.

    References:
        Yan, Xu, Wang & Peng, arXiv:2503.08489.
    """
    return AMTrainer(
        model,
        loss=loss,
        coupling=Band(100.0, 0.5, 1e-3, fresh=True) if band is None else band,
        rho=rho,
        mu=mu,
        inertia=inertia,
        penalties=penalties,
        w_solver=MajorizedWeights(fresh=True),
        readout=False,
        balance=0,
    )


def mdlam(
    model: nn.Sequential,
    *,
    loss: OutputLoss | None = None,
    inertia: tuple[float, float, float] | InertiaSchedule | None = None,
    band: Band | None = None,
    rho: float = 1e-3,
    mu: float = 0.05,
    penalties: Mapping[str, Penalty] | None = None,
) -> AMTrainer:
    """Monotonous deep learning alternating minimization, with the acceleration that its paper describes.

    ==================  ==================================  =========================================================
    part                here                                from
    ==================  ==================================  =========================================================
    inertia             Nesterov's weights                  paper; the released code overwrites the history, so that
                                                            none acts: ``inertia=(0, 0, 0)`` is that code
    order               forward: W, b, z, a                 code
    coupling            band, eps 100, halved, floor 1e-3   code
    rho, mu             1e-3, 0.05                          code, which adds the L2 term twice in places; once here
    safeguard           a block that raised F again,        paper; the code compares with states in which other
                        without inertia                     blocks are swapped
    line search         doubling, carried over              code, which starts at 1 and gives up after 10 doublings
    loss                solved to high accuracy             ours; the code's step is too long at small rho
    initial z           forward values                      ours; the code puts +1 and -1 at the output
    ==================  ==================================  =========================================================

    Args:
        model: As for ``AMTrainer``.
        loss: Of the outputs.
        inertia: None for Nesterov's weights.
        band: Coupling.
        rho: Weight of the links, > 0.
        mu: Weight of ``mu/2 ||W||^2``, >= 0.
        penalties: Penalties of weights by name.

    References:
        Wang, Li & Zhao, mDLAM, arXiv:1811.04187 (version 4).
    """
    return AMTrainer(
        model,
        loss=loss,
        coupling=Band(100.0, 0.5, 1e-3, fresh=True) if band is None else band,
        rho=rho,
        mu=mu,
        inertia=Nesterov() if inertia is None else inertia,
        safeguard="block",
        penalties=penalties,
        w_solver=MajorizedWeights(fresh=True),
        readout=False,
        balance=0,
    )


def dladmm(
    model: nn.Sequential,
    *,
    loss: OutputLoss | None = None,
    rho: float | RhoPolicy | None = None,
    mu: float = 0.0,
    penalties: Mapping[str, Penalty] | None = None,
) -> AMTrainer:
    """Deep learning ADMM, whose sweep goes from output to input and back.

    ==================  ==================================  =========================================================
    part                here                                from
    ==================  ==================================  =========================================================
    order               backward a, z, b, W, then forward   paper; W_1 moves twice in a row at the turn
                        W, b, z, a
    coupling            quadratic penalty, nu = rho         paper
    multiplier          one, at the output's link           paper and code
    sub-problems        quadratic model, backtracking       paper
    rho                 1e-6, times 10 (cap 0.1) after      code; a heuristic that the paper's proof does not cover
                        three rises of the training cost
    mu                  0                                   code
    safeguard           none                                paper: the augmented Lagrangian may rise
    initial z           forward values                      ours
    ==================  ==================================  =========================================================

    Args:
        model: As for ``AMTrainer``.
        loss: Of the outputs.
        rho: Weight of the links, or a rule; None for the released code's.
        mu: Weight of ``mu/2 ||W||^2``, >= 0.
        penalties: Penalties of weights by name.

    References:
        Wang, Yu, Chen & Zhao, ADMM for Efficient Deep Learning with Global Convergence, arXiv:1905.13611.
    """
    return AMTrainer(
        model,
        loss=loss,
        coupling=QuadraticPenalty(),
        rho=RisingCostRho() if rho is None else rho,
        mu=mu,
        inertia=Inertia(),
        safeguard="none",
        order=backward_forward,
        penalties=penalties,
        w_solver=MajorizedWeights(),
        readout=False,
        balance=0,
        multiplier=True,
    )


def bcd(
    model: nn.Sequential,
    *,
    loss: OutputLoss | None = None,
    rho: float = 1.0,
    gamma: float = 1.0,
    alpha: float = 5.0,
    mu: float = 0.0,
    penalties: Mapping[str, Penalty] | None = None,
) -> AMTrainer:
    """Block coordinate descent with three splittings and proximal terms.

    ==================  ==================================  =========================================================
    part                here                                from
    ==================  ==================================  =========================================================
    order               from output to input: a, z, W, b    code; the code computes b with the old W, here the new
    coupling            quadratic penalty gamma             paper
    proximal terms      alpha on W and on hidden z          paper
    sub-problems        exact, by a factorization           code forms inverses instead
    outputs             one block z, no proximal term       ours; the paper splits the outputs once more
    rho, gamma, alpha   1, 1, 5                             code, three hidden layers on MNIST
    loss                any                                 code: squared loss with one-hot targets, ``Squared()``
    ==================  ==================================  =========================================================

    Args:
        model: As for ``AMTrainer``; linear layers only.
        loss: Of the outputs.
        rho: Weight of the links, > 0.
        gamma: Weight of the activations' terms, > 0.
        alpha: Weight of the proximal terms, >= 0.
        mu: Weight of ``mu/2 ||W||^2``, >= 0.
        penalties: Penalties of weights by name; these weights take a majorized step.

    References:
        Zeng, Lau, Lin & Yao, Global Convergence of Block Coordinate Descent in Deep Learning, arXiv:1803.00225.
    """
    return AMTrainer(
        model,
        loss=loss,
        coupling=QuadraticPenalty(gamma, "exact", alpha),
        rho=FixedRho(rho),
        mu=mu,
        inertia=Inertia(),
        safeguard="none",
        order=output_to_input,
        penalties=penalties,
        w_solver=ExactWeights(alpha),
        readout=False,
        balance=0,
    )
