"""What changes between two sweeps: multiplier, band, balance, rho, and residuals from scratch."""

from collections.abc import Callable
from dataclasses import dataclass

from openwork.altmin.blocks import Blocks
from openwork.altmin.homotopy import SignHomotopy
from openwork.altmin.progress import Progress
from openwork.altmin.rho import RhoPolicy

# Sweeps between two computations of the residuals from scratch.
REFRESH = 20
# Sweeps between two balancings that are advised where these are farther apart.
OFTEN = 10


@dataclass(frozen=True)
class Schedules:
    """Rules that change the objective between two sweeps, after which it is not compared with the last one.

    Args:
        rho: Weight of the links.
        balance: Sweeps between two balancings; 0 for never.
        homotopy: Of sign layers; None for none.
    """

    rho: RhoPolicy
    balance: int
    homotopy: SignHomotopy | None = None

    @property
    def remedy(self) -> str:
        """What keeps scales from moving between layers, in words."""
        mild = "a smaller penalty" if 0 < self.balance <= OFTEN else f"balance={OFTEN}, a smaller penalty"
        return f"{mild}, or a larger mu"

    def relate(self, blocks: Blocks, rho: float) -> None:
        """Set the ``rho`` of every layer.

        Args:
            blocks: Of the problem.
            rho: The present one.
        """
        for index, layer in enumerate(blocks.problem.layers):
            layer.rho = self.rho.of_layer(rho, lambda here=index: blocks.mean_square(here))

    def advance(self, blocks: Blocks, progress: Progress, surrogate: float, forward: Callable[[], float]) -> None:
        """Apply what is due after a sweep.

        Args:
            blocks: Of the problem.
            progress: Counts the sweeps.
            surrogate: Loss of the block z at the output, a mean over samples.
            forward: Computes the same of the network.
        """
        problem = blocks.problem
        output = problem.layers[-1]
        changed = blocks.coupling.tighten(problem)
        if output.dual is not None:
            output.dual = output.dual - output.residual
            changed = True
        activations = [layer.activation for layer in problem.layers if layer.activation is not None]
        if self.homotopy is not None and self.homotopy.apply(activations, progress.sweeps):
            blocks.project()
            changed = True
        if self.balance and progress.sweeps % self.balance == 0:
            blocks.balance()
            self.relate(blocks, progress.rho)
            changed = True
        if self.rho.period and progress.sweeps % self.rho.period == 0:
            progress.costs.append(forward())
            growth = self.rho.growth_now(progress.rho, progress.costs, surrogate)
            if growth != 1:
                progress.costs.clear()
                progress.rho *= growth
                blocks.weigh(growth)
                blocks.forget()
                changed = True
        if progress.sweeps % REFRESH == 0:
            blocks.recompute()
            changed = True
        if changed:
            progress.objective = None
