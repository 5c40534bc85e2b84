"""What the optimizers for loss + penalty share."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from openwork.kernels import Found, Scalar
from openwork.optim.base import ReadOut, StructuredOptimizer
from openwork.optim.batches import Batch
from openwork.optim.fused import FusedStep
from openwork.optim.groups import Group, Params, count_, named
from openwork.penalties import KeptPlace, Penalty, Sharded, Solution, Target, Zero
from openwork.sharding import Division, full, is_distributed, local, shares, sharing
from openwork.structure import Structure


@dataclass(frozen=True)
class ProximalReadOut(ReadOut):
    """What the last step found, and how well it was solved.

    Args:
        residual: Norm of the subproblem's subgradient over the penalty's weight, in units of the loss gradient; the
            theory asks that it go to zero (Huang & Lee 2024, condition (7)).
        steps_unchanged: Steps since the structure last changed, which shows identification.
    """

    residual: float
    steps_unchanged: int


class ProximalOptimizer(StructuredOptimizer):
    """Base of the optimizers for ``loss + penalty``.

    Every parameter group has its own ``"penalty"``, which is configuration; ``"penalty_scale"`` multiplies it.
    """

    counters = (*StructuredOptimizer.counters, "unchanged", "residual")
    configuration = (*StructuredOptimizer.configuration, "penalty")
    #: The kind of penalty the algorithm can use.
    needs: ClassVar[type[Penalty]] = Penalty

    def __init__(self, params: Params, *, penalty: Penalty | None, **options: Any) -> None:
        super().__init__(params, penalty=Zero() if penalty is None else penalty, **options)

    # -- what an algorithm adds -------------------------------------------------------------------------------------

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> list[Solution]:
        """Update the weights and state of one batch; ``gate`` multiplies everything away where it is 0."""
        raise NotImplementedError

    def _points(self, group: Group, batch: Batch) -> list[Tensor] | None:
        """The exactly structured weights of one batch; None if the weights are that."""
        return None

    def _fused(self, group: Group, step: FusedStep, found: Found, gate: Scalar) -> Scalar:
        """Take a step by a fused kernel, and give the sum of squared residuals; ``gate`` as in ``_update``."""
        raise NotImplementedError

    def _fused_points(self, group: Group, step: FusedStep, found: Found) -> list[Tensor] | None:
        """What ``_points`` gives, by the kernel that takes the steps, so that it has the same zeros."""
        return None

    def _penalty_weight(self, group: Group) -> Scalar:
        """Weight of the penalty in the last subproblem."""
        raise NotImplementedError

    # -- options ----------------------------------------------------------------------------------------------------

    @override
    def _check(self, group: Group) -> None:
        super()._check(group)
        me, penalty = type(self).__name__, group["penalty"]
        if not isinstance(penalty, Penalty):
            raise TypeError(f"{me}: penalty must be an openwork penalty such as GroupLasso(1e-3), got {penalty!r}")
        if not isinstance(penalty, self.needs):
            raise TypeError(
                f"{me} needs a penalty that solves under a diagonal metric, and {type(penalty).__name__} has only a "
                f"Euclidean prox; wrap it as ProximalGradient({type(penalty).__name__}(...))"
            )
        penalized = not isinstance(penalty, Zero)
        for name, param in named(group):
            if not penalized:
                continue
            if not (param.is_floating_point() and param.requires_grad):
                what = "frozen" if param.is_floating_point() else f"of type {param.dtype}"
                raise ValueError(f"{me}: {name} is {what} and cannot be penalized; leave it out of the penalty's group")
            try:
                penalty.check(param)
            except ValueError as error:
                raise ValueError(f"{me}: {name}: {error}") from None
        self._sharded(group, group["params"])
        if penalized and group["weight_decay"]:
            warnings.warn(
                f"{me}: weight_decay={group['weight_decay']} beside {penalty!r} biases the zeros; set one of them to 0",
                stacklevel=6,
            )

    @override
    def _penalty(self, group: Group, params: list[Tensor] | None = None) -> Penalty:
        penalty: Penalty = group["penalty"]
        sharded = self._sharded(group, group["params"] if params is None else params)
        if sharded is None:
            return penalty
        return replace(penalty, penalty=sharded) if isinstance(penalty, Target) else sharded

    def _sharded(self, group: Group, params: list[Tensor]) -> Sharded | None:
        """The penalty of the parts that are here; None if this process has all of these parameters.

        Raises:
            ValueError: If a group of the penalty spans meshes, or the step is to be compiled.
        """
        penalty: Penalty = group["penalty"]
        if isinstance(penalty, Zero):
            return None
        divisions = tuple(map(self._division, params))
        if not any(divisions):
            return None
        # Where everything is takes a while to find out, and an optimizer asks at every step.
        known: dict[int, Sharded] = self.__dict__.setdefault("_shards", {})
        inside = penalty.penalty if isinstance(penalty, Target) else penalty
        found = known.get(id(params[0]))
        if found is None or found.penalty is not inside or found.divisions != divisions:
            if group["compile"]:
                raise ValueError(
                    f"{type(self).__name__}: compile=True does not go with a penalty on parameters that are divided "
                    "among processes; leave it out"
                )
            try:
                found = Sharded(inside, divisions, tuple(tuple(p.shape) for p in params))
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}: {error}") from None
            known[id(params[0])] = found
        return found

    # -- one step ---------------------------------------------------------------------------------------------------

    @override
    def _step_group(self, group: Group, gate: Scalar) -> None:
        params = self._moving(group)
        if (step := self._fused_step(group, params)) is not None:
            self._step_fused(group, step, [self.state[p] for p in params], gate)
            return
        kept: dict[Tensor, list[Tensor]] = {}
        squares: dict[Tensor, Tensor] = {}
        for batch in self._begin(group, gate):
            for owner, solution in zip(batch.owners, self._update(group, batch, gate), strict=True):
                if not isinstance(batch.penalty, Zero):
                    kept.setdefault(owner, []).append(solution.kept)
                    own = solution.residual.square().sum()
                    squares[owner] = squares[owner] + own if owner in squares else own
        self._end(group)
        self._record(group, kept, squares, gate)

    def _step_fused(self, group: Group, step: FusedStep, states: list[dict[str, Any]], gate: Scalar) -> None:
        self._count(group, gate)
        if not step.plan.kept[-1]:
            self._fused(group, step, Found(step["weight"][0].new_empty(0, dtype=torch.bool), {}), gate)
            step.written()
            count_(group, "unchanged", group["unchanged"] + gate)
            return
        pieces, fresh = step.kept(states)
        found = Found(pieces.joined(), step.roots(states))
        squares = self._fused(group, step, found, gate)
        step.written()
        changed = pieces.update_(found.kept, wait=not isinstance(gate, Tensor))
        self._tell(group, gate if fresh else changed, squares, gate)

    @override
    def _moving(self, group: Group) -> list[Tensor]:
        """Parameters that take part in a step: those with a gradient, and all that share groups with them."""
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        return group["params"] if params and group["penalty"].joins else params

    def _record(
        self, group: Group, kept: dict[Tensor, list[Tensor]], squares: dict[Tensor, Tensor], gate: Scalar
    ) -> None:
        if not kept:
            count_(group, "unchanged", group["unchanged"] + gate)
            return
        places = self._kept_places(group, self._moving(group))
        changed = self._present(group, kept, gate)
        for param, pieces in kept.items():
            new, state = pieces[0] if len(pieces) == 1 else torch.cat(pieces), self.state[param]
            old = local(state["kept"]) if "kept" in state else None
            if old is None or old.shape != new.shape:
                state["kept"] = _placed(new.clone(), *places.get(param, (None, None)))
                changed = changed + 1.0
            elif isinstance(gate, Tensor):
                changed = changed + (old != new).any() * gate
                old.copy_(torch.where(gate > 0, new, old))
            elif not torch.equal(old, new):
                old.copy_(new)
                changed = 1.0
        here = [own for param, own in squares.items() if param not in places]
        for ranks in sharing(how for how, _ in places.values()):
            # These processes have groups of their own; all others are the same in every one.
            apart = torch.stack([squares[p] for p, (how, _) in places.items() if p in squares and how.ranks == ranks])
            changes = torch.as_tensor(changed, dtype=torch.float64, device=apart.device)
            both = ranks.sum_(torch.stack([changes, apart.sum().double()]))
            changed = both[0] if isinstance(gate, Tensor) else float(both[0])
            here.append(both[1])
        self._tell(group, changed, torch.stack(here).sum().double(), gate)

    def _present(self, group: Group, params: Iterable[Tensor], gate: Scalar) -> Scalar:
        """Whether parameters are new, which keep what their weights have if nobody can see that a step is not taken."""
        fresh = [p for p in params if "kept" not in self.state[p]] if isinstance(gate, Tensor) else []
        if not fresh:
            return 0.0
        present = dict(zip(group["params"], self._kept(group), strict=True))
        for param in fresh:
            self.state[param]["kept"] = self._loaded(param, "kept", present[param].clone())
        return gate

    def _tell(self, group: Group, changed: Scalar, squares: Scalar, gate: Scalar) -> None:
        """Write down whether the structure changed in a step, and how well that was solved."""
        unchanged = group["unchanged"] + gate
        reset = torch.where(changed > 0, 0.0, unchanged) if isinstance(changed, Tensor) else unchanged * (not changed)
        count_(group, "unchanged", reset)
        residual = _relative(squares**0.5, self._penalty_weight(group))
        waits = not isinstance(gate, Tensor)
        count_(group, "residual", float(residual) if waits else torch.where(gate > 0, residual, group["residual"]))

    def _kept_places(self, group: Group, params: list[Tensor]) -> dict[Tensor, tuple[Division, KeptPlace]]:
        """Where the ``kept`` of parameters is, of which each process has a part of its own."""
        sharded = self._sharded(group, params)
        if sharded is None:
            return {}
        rows = zip(params, sharded.divisions, sharded.kept, strict=True)
        return {param: (how, place) for param, how, place in rows if how is not None and place is not None}

    @override
    def _loaded(self, param: Tensor, name: str, saved: Tensor) -> Tensor:
        if name != "kept":
            return super()._loaded(param, name, saved)
        group = next(group for group in self.param_groups if any(p is param for p in group["params"]))
        places = self._kept_places(group, group["params"])
        if param not in places:
            return full(saved)
        how, place = places[param]
        if not is_distributed(saved) or all(p.is_replicate() for p in saved.placements):  # pyright: ignore
            start, stop = shares(place.shape[place.dim], how.ranks.number)[how.ranks.here]
            saved = _placed(local(saved).narrow(place.dim, start, stop - start), how, place)
        return saved

    # -- structure --------------------------------------------------------------------------------------------------

    @override
    def structures(self) -> dict[Tensor, Structure]:
        """Structure of every penalized parameter, from the last solve where there was one."""
        found: dict[Tensor, Structure] = {}
        for group in self.param_groups:
            if not isinstance(group["penalty"], Zero):
                found |= zip(group["params"], group["penalty"].read_list(self._kept(group)), strict=True)
        return found

    def _kept(self, group: Group) -> list[Tensor]:
        """What every parameter keeps, from the last solve where there was one."""
        params: list[Tensor] = group["params"]
        saved: dict[Tensor, Tensor] = {
            p: full(self.state[p]["kept"]) for p in params if "kept" in self.state.get(p, {})
        }
        if len(saved) == len(params):
            return [saved[p] for p in params]
        penalty: Penalty = group["penalty"]
        present = penalty.kept_list([full(p.detach()) for p in params])
        return [saved.get(p, now) for p, now in zip(params, present, strict=True)]

    @override
    def read_out(self) -> ProximalReadOut:
        """Numbers of the last step; waits for a device."""
        groups = [group for group in self.param_groups if not isinstance(group["penalty"], Zero)]
        kept = [k for group in groups for k in group["penalty"].distinct(self._kept(group))]
        return ProximalReadOut(
            alive=sum(int(k.sum()) for k in kept),
            total=sum(k.numel() for k in kept),
            residual=max((float(group["residual"]) for group in groups), default=0.0),
            steps_unchanged=int(min((float(group["unchanged"]) for group in groups), default=0)),
            skipped=self.skipped,
        )

    @override
    @torch.no_grad()
    def _structured_points(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        """Penalized parameters that are not exactly structured themselves, with their structured weights."""
        for group in self.param_groups:
            if not group["step"] > 0 or isinstance(group["penalty"], Zero):
                continue
            params = [p for p in group["params"] if p in self.state]
            if params and group["penalty"].joins:
                params = group["params"]
            if self._fused_step(group, params, grads=False) is not None:
                yield from self._points_of_fused(group, [params] if group["penalty"].joins else [[p] for p in params])
                continue
            for batch in self._batches(group, params, grads=False):
                points = self._points(group, batch)
                if points is None:
                    return
                yield batch, points

    def _points_of_fused(self, group: Group, parts: list[list[Tensor]]) -> Iterator[tuple[Batch, list[Tensor]]]:
        for params in parts:
            if (step := self._fused_step(group, params, grads=False)) is None:
                return
            # A read-out must not move where the next step's solver starts.
            roots = {tensor: root.clone() for tensor, root in step.roots([self.state[p] for p in params]).items()}
            kept = step["weight"][0].new_empty(step.plan.kept[-1], dtype=torch.bool)
            if (points := self._fused_points(group, step, Found(kept, roots))) is None:
                return
            yield Batch(group["penalty"], params, {name: step[name] for name in ("param", "weight")}), points


def _placed(kept: Tensor, how: Division | None, place: KeptPlace | None) -> Tensor:
    """What is kept, as a tensor that says where its parts are if processes have different ones."""
    return kept if how is None or place is None else how.wrap(kept, place.shape, place.dim)


def _relative(norm: Scalar, weight: Scalar) -> Scalar:
    """``norm / weight``, and 0 for a penalty without weight."""
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, norm / weight, 0.0)
    return norm / weight if weight else 0.0
