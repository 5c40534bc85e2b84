"""The shell that all optimizers share: options, state, safety, exactly structured weights."""

import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

from openwork.kernels import Descent, Method, Scalar, capturing
from openwork.optim.arithmetic import finite
from openwork.optim.batches import CPU_ENTRIES, DEVICE_ENTRIES, Batch, batches
from openwork.optim.fused import FusedStep, all_finite, fused_step, obstacle, warn_once
from openwork.optim.groups import Group, Params, beside, check_range, count_, named
from openwork.optim.plans import Planned
from openwork.penalties import Penalty, Zero
from openwork.sharding import Division, Ranks, division, full, is_distributed, like, local, sharing
from openwork.structure import Structure


@dataclass(frozen=True)
class ReadOut:
    """What the last step found, without a second pass over the weights.

    Args:
        alive: Number of groups (or singular values) that are not zero, over all weights with a penalty.
        total: Number of groups (or singular values).
        skipped: Steps not taken because a gradient was not finite.
    """

    alive: int
    total: int
    skipped: int


class StructuredOptimizer(Optimizer):
    """Base of the optimizers that make structure: exact zeros, in the weights or in points that they lead to.

    State is in float32 at least; float16 and bfloat16 weights get a float32 master. A step in which a gradient is not
    finite leaves weights, state and counters untouched and is counted. ``"penalty_scale"`` is a number that multiplies
    the strength of a parameter group and may be scheduled like ``"lr"``.

    Configuration is not part of ``state_dict()``, which therefore loads with ``weights_only=True``.

    Parameters may be DTensors, as ``fully_shard`` makes them; their state is divided as they are. Then all processes
    must call every method that reads structure, as they must ``step()``.
    """

    #: State tensors that start at zero, and those that start as a copy of the weight.
    sums: ClassVar[tuple[str, ...]] = ()
    anchors: ClassVar[tuple[str, ...]] = ()
    #: Numbers that a step changes; on a device they live there, so that nobody waits.
    counters: ClassVar[tuple[str, ...]] = ("step", "skipped")
    #: Options that are configuration: they come from whoever builds the optimizer, and never from a checkpoint.
    configuration: ClassVar[tuple[str, ...]] = ("fused",)
    #: Whether ``weight_decay`` acts on the weights beside the gradient instead of in it.
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Params,
        *,
        lr: Scalar,
        weight_decay: float,
        maximize: bool,
        foreach: bool | None,
        capturable: bool | None,
        compile: bool,
        fused: bool = False,
        **options: object,
    ) -> None:
        defaults = {
            "lr": lr,
            "penalty_scale": 1.0,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "compile": compile,
            "fused": fused,
            **dict.fromkeys(self.counters, 0.0),
            **options,
        }
        super().__init__(params, defaults)  # pyright: ignore[reportArgumentType]

    # -- what an algorithm adds -------------------------------------------------------------------------------------

    def _advance(self, group: Group, gate: Scalar) -> None:
        """Advance the group's counters by one step, or by none where ``gate`` is 0."""
        count_(group, "step", group["step"] + gate)

    def _update(self, group: Group, batch: Batch, gate: Scalar) -> object:
        """Update the weights and state of one batch; ``gate`` multiplies everything away where it is 0."""
        raise NotImplementedError

    def _structured_points(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Parameters that are not exactly structured themselves, with their structured weights."""
        raise NotImplementedError

    def structures(self) -> dict[Tensor, Structure]:
        """Structure of every parameter that has one."""
        raise NotImplementedError

    def read_out(self) -> ReadOut:
        """Numbers of the last step; waits for a device."""
        raise NotImplementedError

    def _penalty(self, group: Group, params: list[Tensor] | None = None) -> Penalty:
        """The penalty that says where parameters of the group, or the parts of them that are here, may be cut."""
        return Zero()

    def _sums(self, group: Group) -> tuple[str, ...]:
        """Names of this group's state tensors that start at zero."""
        return self.sums

    def _method(self, group: Group) -> Method | None:
        """The fused kernel that takes this group's steps; None if there is none."""
        return None

    def averaging_now(self, group: Group) -> Scalar:
        """Fraction by which the last step of this group moved towards its prox point; 1 if the weights are that."""
        return 1.0

    def restart(self) -> None:
        """Begin a new stage at the present weights; nothing to do for methods without an anchor."""

    # -- options ----------------------------------------------------------------------------------------------------

    @override
    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with options of their own.

        Args:
            param_group: As for any torch optimizer.

        Raises:
            ValueError: If an option is out of range, or does not fit a parameter.
            TypeError: If an option is of a kind this optimizer cannot use, or a parameter is complex.
        """
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except Exception:
            self.param_groups.pop()
            raise
        self._say_if_not_fused(self.param_groups[-1])

    def _check(self, group: Group) -> None:
        me = type(self).__name__
        check_range(me, group, "lr")
        check_range(me, group, "weight_decay")
        check_range(me, group, "penalty_scale")
        for name, param in named(group):
            if param.is_complex():
                raise TypeError(f"{me}: {name} is complex ({param.dtype}); use view_as_real or leave it out")

    def _say_if_not_fused(self, group: Group) -> None:
        if group["fused"] and (why := obstacle(group, self._method(group), group.get("penalty", Zero()))):
            warn_once(f"{type(self).__name__}: there is no fused step {why}; steps are taken in plain torch")

    # -- one step ---------------------------------------------------------------------------------------------------

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step.

        Args:
            closure: Evaluates the loss and its gradients again; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            ValueError: If a gradient is sparse; nothing has changed then.
            RuntimeError: If the first step of a parameter is captured in a graph; nothing has changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = self._gradients()
        if not grads:
            return loss
        if capturing(grads[0].device):
            self._check_captured()
        if _on_device(self.param_groups[0], grads[0]):
            # Nobody waits for the answer here: a bad step is multiplied away where it happens.
            gate: Scalar = finite(grads).double()
            for ranks in self._ranks():
                ranks.min_(gate)
        elif self._agreed(self._all_finite(grads), grads[0].device):
            gate = 1.0
        else:
            for group in self.param_groups:
                group["skipped"] += 1
            return loss
        for group in self.param_groups:
            self._step_group(group, beside(group, gate))
        return loss

    def _check_captured(self) -> None:
        """Refuse a step that makes state in a capture: its memory would be the graph's, and empty until a replay.

        Raises:
            RuntimeError: If there is a parameter without state.
        """
        for group in self.param_groups:
            for param in self._moving(group) if self._named_state(group) else ():
                if not self.state.get(param):
                    name = next(name for name, p in named(group) if p is param)
                    raise RuntimeError(
                        f"{type(self).__name__}: the first step of {name} was captured, which would begin anew at "
                        "every replay; take one step outside of the capture first"
                    )

    def _all_finite(self, grads: list[Tensor]) -> bool:
        known = all_finite(grads) if any(group.get("fused") for group in self.param_groups) else None
        return _all_finite(grads) if known is None else known

    def _gradients(self) -> list[Tensor]:
        grads: list[Tensor] = []
        for group in self.param_groups:
            for i, param in enumerate(group["params"]):
                grad = param.grad
                if grad is None:
                    continue
                if grad.layout != torch.strided:
                    name = named(group)[i][0]
                    raise ValueError(
                        f"{type(self).__name__}: the gradient of {name} is sparse; make its layer dense (sparse=False)"
                    )
                if param.numel():
                    grads.append(local(grad))
        return grads

    def _division(self, param: Tensor) -> Division | None:
        """How a parameter is divided among processes; None if this one has all of it."""
        if not is_distributed(param):
            return None
        known: WeakTensorKeyDictionary = self.__dict__.setdefault("_divisions", WeakTensorKeyDictionary())
        if param not in known:
            name = next(name for group in self.param_groups for name, p in named(group) if p is param)
            known[param] = division(param, f"{type(self).__name__}: {name}")
        return known[param]

    def _ranks(self) -> list[Ranks]:
        """All that share parameters with this process, the fewest first and otherwise in the order of parameters."""
        params: list[Tensor] = [p for group in self.param_groups for p in group["params"] if is_distributed(p)]
        return sharing(map(self._division, params))

    def _agreed(self, here: bool, device: torch.device) -> bool:
        """Whether it is true in all processes that share parameters: what one skips, all skip."""
        for ranks in self._ranks():
            here = bool(ranks.min_(torch.tensor(float(here), device=device)))
        return here

    def _step_group(self, group: Group, gate: Scalar) -> None:
        for batch in self._begin(group, gate):
            self._update(group, batch, gate)
        self._end(group)

    def _begin(self, group: Group, gate: Scalar) -> Iterator[Batch]:
        """Advance the counters, then give the batches of a step, their gradients ready."""
        self._count(group, gate)
        for batch in self._batches(group, self._moving(group)):
            batch.tensors["grad"] = self._ready(group, batch, gate)
            yield batch

    def _count(self, group: Group, gate: Scalar) -> None:
        if isinstance(gate, Tensor):
            for key in self.counters:
                group[key] = torch.as_tensor(group[key], dtype=torch.float64, device=gate.device)
            group["skipped"] += 1 - gate
        self._advance(group, gate)

    def _end(self, group: Group) -> None:
        """Give weights in half precision the numbers of their masters."""
        for param in self._moving(group):
            if "master" in self.state[param]:
                param.copy_(self.state[param]["master"])

    def _moving(self, group: Group) -> list[Tensor]:
        """Parameters that take part in a step."""
        return [p for p in group["params"] if p.grad is not None]

    def _batches(self, group: Group, params: list[Tensor], *, grads: bool = True) -> Iterator[Batch]:
        if not params:
            return iter(())
        if group["foreach"] is False:
            limit = 0
        elif group["compile"]:
            limit = None
        else:
            limit = CPU_ENTRIES if params[0].device.type == "cpu" else DEVICE_ENTRIES
        return batches(((p, self._tensors(group, p, grads)) for p in params), self._penalty(group, params), limit)

    def _tensors(self, group: Group, param: Tensor, grads: bool) -> dict[str, Tensor]:
        state = self._state(group, param)
        tensors = {name: state[name] for name in self._named_state(group)}
        tensors["param"], tensors["weight"] = param, state.get("master", param)
        if grads:
            # Only a group that has entries in several parameters comes here without a gradient.
            grad = torch.zeros_like(param) if param.grad is None else param.grad
            tensors["grad"] = like(grad, param) if self._division(param) else grad
        return {name: local(tensor) for name, tensor in tensors.items()}

    def _named_state(self, group: Group) -> tuple[str, ...]:
        """Names of all state tensors of a parameter that are shaped like it."""
        return (*self.anchors, *self._sums(group))

    def _state(self, group: Group, param: Tensor) -> dict[str, Tensor]:
        state = self.state[param]
        fresh, half = not state, param.dtype in (torch.float16, torch.bfloat16)
        if not fresh and not half:
            return state
        weight = param.detach()
        # What was loaded from a run in single precision has no master yet.
        if half and "master" not in state:
            state["master"] = weight = weight.float()
        if fresh:
            state.update({name: weight.clone(memory_format=torch.preserve_format) for name in self.anchors})
            state.update({name: torch.zeros_like(weight) for name in self._sums(group)})
        return state

    def _fused_step(self, group: Group, params: list[Tensor], *, grads: bool = True) -> FusedStep | None:
        """The fused step of parameters, if their group asks for it and it can be taken now."""
        # Of divided parameters the kernels know nothing.
        if not group.get("fused") or not params or any(map(is_distributed, params)):
            return None
        states, names = [self._state(group, param) for param in params], self._named_state(group)
        columns: dict[str, list[Tensor]] = {name: [state[name] for state in states] for name in names}
        columns["param"] = params
        columns["weight"] = [state.get("master", param) for state, param in zip(states, params, strict=True)]
        if grads:
            # Only a group that has entries in several parameters comes here without a gradient.
            columns["grad"] = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
        # Plans are neither copied nor saved with the optimizer. Loading replaces groups, but not their parameters.
        plans: MutableMapping[Tensor, list[Planned]] = self.__dict__.setdefault("_plans", WeakTensorKeyDictionary())
        known = plans.setdefault(group["params"][0], [])
        # A read-out must not replace what steps need.
        known = known if grads else [*known]
        return fused_step(group, self._method(group), self._penalty(group, params), columns, known)

    def _descent(self, group: Group, gate: Scalar) -> Descent:
        """How gradients enter a fused step, as ``_ready`` says."""
        decay = 0.0 if self.decoupled else group["weight_decay"]
        return Descent(-1.0 if group["maximize"] else 1.0, decay, gate)

    def init_state(self) -> None:
        """Make the state of every parameter now instead of at its first step."""
        for group in self.param_groups:
            for param in group["params"]:
                self._state(group, param)

    def _ready(self, group: Group, batch: Batch, gate: Scalar) -> list[Tensor]:
        """Gradients to descend along, in the state's precision; zero where the gate is closed."""
        weights = batch["weight"]
        grads = [grad.to(weight.dtype) for grad, weight in zip(batch["grad"], weights, strict=True)]
        if isinstance(gate, Tensor):
            grads = [torch.where(gate > 0, grad, 0.0) for grad in grads]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if group["weight_decay"] and not self.decoupled:
            grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
        return grads

    def _scalars(self, group: Group, **scalars: Scalar) -> dict[str, Scalar]:
        """Numbers for the algorithm; tensors when it is compiled, since each new number would compile it again."""
        if not group["compile"]:
            return scalars
        return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in scalars.items()}

    # -- structure --------------------------------------------------------------------------------------------------

    @contextmanager
    def structured(self) -> Iterator[None]:
        """Hold the exactly structured weights inside the ``with``; restore the weights bit for bit after.

        Parameters without structure stay as they are. Inside, there is one backup copy of the others. Before the first
        step of a stage the weights are left as they are, since there is no prox point yet. ``fully_shard`` keeps
        weights that an evaluation has collected: call ``model.reshard()`` first inside, and after the ``with``.
        """
        backups: dict[Tensor, Tensor] = {}
        try:
            with torch.no_grad():
                for batch, points in self._structured_points():
                    for owner, piece, point in zip(batch.owners, batch["param"], points, strict=True):
                        if owner not in backups:
                            backups[owner] = owner.detach().clone(memory_format=torch.preserve_format)
                        piece.copy_(point)
            yield
        finally:
            with torch.no_grad():
                for param, backup in backups.items():
                    param.copy_(backup)

    @torch.no_grad()
    def settle_(self) -> None:
        """Make the exactly structured weights the model's weights, for good.

        Warns:
            UserWarning: If ``averaging`` has not grown to 1, when they may predict far worse than the weights.
        """
        for group in self.param_groups:
            averaging = float(self.averaging_now(group))
            if group["step"] > 0 and averaging < 1:
                warnings.warn(
                    f"{type(self).__name__}.settle_(): averaging is {averaging:.3g}, not 1, so the structured weights "
                    "may predict far worse than the weights; train a longer last stage (see Stages)",
                    stacklevel=2,
                )
                break
        for batch, points in self._structured_points():
            for name in ("param", "weight"):
                torch._foreach_copy_(batch[name], points)

    @property
    def skipped(self) -> int:
        """Steps not taken because a gradient was not finite; waits for a device."""
        return int(max(float(group["skipped"]) for group in self.param_groups))

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        """Everything a later run needs to go on bit for bit, except the configuration."""
        saved = super().state_dict()
        saved["param_groups"] = [
            {key: value for key, value in group.items() if key not in self.configuration}
            for group in saved["param_groups"]
        ]
        return saved

    @override
    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, with this optimizer's configuration.

        Args:
            state_dict: From the same kind of optimizer over the same parameters.

        Raises:
            ValueError: If groups or shapes do not match; nothing has changed then.
        """
        groups = state_dict["param_groups"]
        ids = [i for group in groups for i in group["params"]]
        owned = [(group, p) for group in self.param_groups for p in group["params"]]
        for i, (group, param) in zip(ids, owned, strict=False):
            saved = state_dict["state"].get(i)
            for name in self._named_state(group) if saved else ():
                if name not in saved or saved[name].shape != param.shape:
                    what = f"shape {tuple(saved[name].shape)}" if name in saved else "nothing"
                    raise ValueError(
                        f"{type(self).__name__}: the state to load has {what} as {name!r} for a parameter of shape "
                        f"{tuple(param.shape)}; load it into the model and optimizer it was saved from"
                    )
                if (
                    is_distributed(saved[name])
                    and is_distributed(param)
                    and saved[name].device_mesh != param.device_mesh
                ):
                    raise ValueError(
                        f"{type(self).__name__}: the state to load is divided on a mesh of shape "
                        f"{tuple(saved[name].device_mesh.shape)}, and the parameters are on one of shape "
                        f"{tuple(param.device_mesh.shape)}; load it with torch.distributed.checkpoint, which divides "
                        "it anew"
                    )
        own = [{key: group[key] for key in self.configuration} for group in self.param_groups]
        merged = [{**group, **options} for group, options in zip(groups, own, strict=False)]
        super().load_state_dict({**state_dict, "param_groups": [*merged, *groups[len(merged) :]]})
        # torch casts floating state to the parameter's precision, which would throw away the float32 state.
        for i, (_, param) in zip(ids, owned, strict=True):
            for name, saved in state_dict["state"].get(i, {}).items():
                self.state[param][name] = self._loaded(param, name, saved.detach()).to(param.device, copy=True)

    def _loaded(self, param: Tensor, name: str, saved: Tensor) -> Tensor:
        """A state tensor as this optimizer holds it, divided as the parameter is."""
        return like(saved, param) if saved.shape == param.shape else full(saved)


def _all_finite(tensors: list[Tensor]) -> bool:
    # A finite sum has finite terms, and is several times faster to find; the rest is looked at again.
    suspects = [x for x in tensors if not isfinite(x.sum())]
    return all(bool(x.isfinite().all()) for x in suspects)


def _on_device(group: Group, tensor: Tensor) -> bool:
    return tensor.device.type != "cpu" if group["capturable"] is None else group["capturable"]
