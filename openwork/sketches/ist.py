"""Independent subnetwork training: every worker takes several steps on a submodel of its own, then they are merged."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from typing_extensions import override

from openwork.sketches.key import Key
from openwork.sketches.module import SketchedModule
from openwork.sketches.packing import Kept, add_, by_type, kept, packed, put_, scale, zeros
from openwork.sketches.replicas import Replicated


class LocalModel(Protocol):
    """A model of one draw that trains on its own for a while."""

    @property
    def module(self) -> nn.Module:
        """What is trained; its parameters are its own."""
        ...

    def write_back_(self) -> None:
        """Write what was learned into the whole model."""
        ...


class MaskedModel(nn.Module):
    """The whole network with the weights of one draw, of which only the kept ones learn.

    Its parameters are the kept entries of each tensor, one after the other, so that an optimizer has state for them
    alone; everything else stays ``v``. It computes as much as the whole network does.

    Args:
        sketched: The model, with a diagonal sketch.
        key: What names the draw.
    """

    def __init__(self, sketched: SketchedModule, key: Key) -> None:
        super().__init__()
        # Not registered: neither its parameters nor its buffers are this module's.
        self._whole = (sketched,)
        drawn = sketched.sample(key)
        weights = sketched.weights(drawn)
        self._kept: Kept = kept(sketched, key)
        # Unscaled, y and x are the same numbers.
        self._scales = {name: scale(draws, name) for name, draws in drawn.items()} if sketched.scaled else {}
        self._start = {name: weights.get(name, sketched.module.get_parameter(name)).detach() for name in self._kept}
        self.values = nn.ParameterList([packed({name: y}, self._kept).clone() for name, y in self._start.items()])

    @property
    def module(self) -> nn.Module:
        """Itself."""
        return self

    def _weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for (name, y), values in zip(self._start.items(), self.values, strict=True):
            at = self._kept[name]
            full = values if at is None else y.flatten().index_put((at,), values)
            found[name] = full.view(y.shape)
        return found

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of the whole network with the weights of this draw."""
        return functional_call(self._whole[0].module, self._weights(), args, kwargs)

    @torch.no_grad()
    def write_back_(self) -> None:
        """Write the kept weights into the whole model, in its own units: ``x = v + S⁻¹ (y - v)``."""
        sketched = self._whole[0]
        shifts = sketched.shifts
        for name, y in self._weights().items():
            x = y
            if name in self._scales:
                v, s = shifts[name], self._scales[name]
                s = torch.where(s == 0, 1, s).to(y.dtype)
                x = y / s if v is None else v + (y - v) / s
            parameter = sketched.module.get_parameter(name)
            put_({name: parameter}, self._kept, packed({name: x}, self._kept))


class ISTTrainer(Replicated):
    """Independent subnetwork training: rounds of local steps on submodels, with one merge after each.

    In a round every worker draws its submodel with the key of its rank, takes ``local_steps`` steps on it, and sends
    what it kept: under Perm-K ``(n - 1) (d / n) s`` bytes a round. A weight that one worker had becomes that worker's;
    one that several had, such as the output's biases, their mean in the order of ranks; one that nobody had stays.
    Running statistics of normalizations stay each worker's own: recalibrate them before the whole model is used.
    Traffic and checkpoints count rounds as steps.

    One local step of plain SGD on all of the data is one step of `PermKAggregator` with the same lr in units of the
    submodel's weights (scaled draws: n times the lr).

    Args:
        sketched: The model, built alike on all workers, with a diagonal sketch.
        optimizer: Makes the optimizer of a submodel's parameters; its state lasts for a round.
        local_steps: tau, steps in a round, >= 1.
        submodel: Makes the model that a draw trains: `MaskedModel`, or ``SketchedModule.submodel``, which is a smaller
            network.
        group: Of torch.distributed; all processes if left out.

    Raises:
        ValueError: If ``local_steps`` is less than 1, a Perm-K sketch is for another number of workers, or keys differ
            in more than the worker.

    References:
        Yuan et al., Distributed learning of deep neural networks using independent subnet training (VLDB 2022),
        arXiv:1910.02120.
    """

    def __init__(
        self,
        sketched: SketchedModule,
        optimizer: Callable[[list[nn.Parameter]], Optimizer],
        *,
        local_steps: int,
        submodel: Callable[[SketchedModule, Key], LocalModel] = MaskedModel,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        if local_steps < 1:
            raise ValueError(f"ISTTrainer: local_steps must be at least 1, got {local_steps}")
        super().__init__(sketched, group=group)
        self.optimizer = optimizer
        self.local_steps = local_steps
        self.submodel = submodel

    def round(self, loss: Callable[[nn.Module], Tensor]) -> float:
        """Local steps, merge, and on to the next draw.

        Args:
            loss: Of the submodel on this worker's next batch; called ``local_steps`` times.

        Returns:
            This worker's mean loss.

        Raises:
            LostWorker: If another worker is gone; weights are those before the round.
        """
        sketched = self.replica.sketched
        local = self.submodel(sketched, sketched.now)
        optimizer = self.optimizer(list(local.module.parameters()))
        total = 0.0
        for _ in range(self.local_steps):
            optimizer.zero_grad()
            value = loss(local.module)
            value.backward()
            optimizer.step()
            total += value.item()
        parameters = self.replica.parameters
        before = {name: p.detach().clone() for name, p in parameters.items()}
        try:
            local.write_back_()
            after = self._merged()
        except BaseException:
            _overwrite(parameters, before)
            raise
        _overwrite(parameters, after)
        sketched.advance()
        self.traffic.step()
        return total / self.local_steps

    @torch.no_grad()
    def _merged(self) -> dict[str, Tensor]:
        replica = self.replica
        everyone = replica.kept(replica.sketched.now)
        found: dict[str, Tensor] = {}
        for some in by_type(replica.parameters):
            sums, counts = zeros(some), zeros(some)
            for entries, values in replica.gathered(some, everyone):
                add_(sums, entries, values)
                add_(counts, entries, torch.ones_like(values))
            for name, p in some.items():
                found[name] = torch.where(counts[name] > 0, sums[name] / counts[name].clamp_min(1), p)
        return found


@torch.no_grad()
def _overwrite(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, p in parameters.items():
        p.copy_(values[name])


__all__ = ["ISTTrainer", "LocalModel", "MaskedModel"]
