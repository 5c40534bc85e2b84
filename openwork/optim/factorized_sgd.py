"""Deep weight factorization with the factors inside the optimizer."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary
from typing_extensions import override

from openwork.factorizations import (
    CollapseReport,
    Diagnostics,
    Factors,
    Initialization,
    Sampled,
    Split,
    diagnose,
    product,
)
from openwork.factorizations.budget import THRESHOLD
from openwork.factorizations.collapsing import reported
from openwork.factorizations.storage import check_storage
from openwork.kernels import Method, Scalar
from openwork.optim.base import ReadOut, StructuredOptimizer
from openwork.optim.batches import Batch
from openwork.optim.factor_steps import factorized_sgd, other_powers, tied_sgd
from openwork.optim.groups import Group, Params, algorithm, check_range, count_, named, rate
from openwork.partitions import Elements
from openwork.sharding import full, like, local
from openwork.structure import Structure, Support
from openwork.wiring import parameter_names


class FactorizedSGD(StructuredOptimizer):
    """SGD on the factors of weights, ``w = w_1 * ... * w_D``: sparse training for ``loss + lam * sum |w|^(2/D)``.

    Plain L2 on the factors has the minima of that penalty on their product: L1 at depth 2, not convex beyond, and with
    a gap around 0. The model keeps its weights as ordinary parameters; the factors live here. Each step gives them the
    gradients that they would have in the model, so that this is the same training as that of ``factorize``, at no cost
    in the forward pass and ``8 D`` bytes of state for a weight (``4 D`` without momentum).

    Weights approach 0 without reaching it. They are exactly zero inside ``structured()`` and after ``settle_()``,
    if the training was long enough: see ``openwork.factorizations.plan_budget``. Good learning rates are 1 to 10 times
    those of the dense network. Gradients are clipped as gradients of the weights, not of the factors.

    The factors start as ``init`` says, and so do the weights, at once. If something else writes weights later, call
    ``resplit()``: the next step refuses to go on without, except after a write through ``.data``, which nobody sees.

    Args:
        params: Parameters or groups. A group with ``"depth": 1`` is trained by plain SGD. Groups without a depth of
            their own leave tensors of fewer than two dimensions (biases, normalizations) and of one entry to plain SGD;
            ``openwork.factorizations.param_groups`` also knows embeddings.
        lr: Learning rate, > 0 (0 takes no steps).
        depth: Number of factors D, >= 2.
        lam: Strength, >= 0, against a loss averaged over samples.
        momentum: Fraction of the last step that the next keeps, in [0, 1).
        nesterov: Look ahead along the momentum, which must be above 0.
        init: Where the factors start: drawn anew with the deviation of the weight, or from the weight.
        tied: One number for all factors of a weight: the state of dense SGD. From a balanced start this is the same
            training, but then a weight of even depth never changes its sign.
        weight_decay: Of what is not factorized.
        threshold: Weights of smaller magnitude count as zero, >= 0.
        generator: Of the random numbers of ``init``; None for torch's own.
        maximize: Ascend instead.
        foreach: False updates one parameter at a time; otherwise many at once.
        capturable: Never wait for a device, so that the step can be captured; default on devices only.
        compile: Compile the step with ``torch.compile``.
        fused: Take the step by kernels, to rounding the same: on the CPU, which needs ``openwork[fused]``, or by Triton
            on CUDA. The first optimizer of a machine compiles them. What has no kernel is said once, and steps are
            taken in plain torch.

    Raises:
        ValueError: If an option is out of range, or two parameters share storage.
        TypeError: If a parameter is complex, or ``init`` is no initialization.

    References:
        Kolb, Weber, Bischl & Rügamer, Deep Weight Factorization (ICLR 2025), arXiv:2502.02496.
    """

    configuration = (*StructuredOptimizer.configuration, "lam", "init", "threshold")
    counters = (*StructuredOptimizer.counters, "budget")

    def __init__(
        self,
        params: Params,
        lr: Scalar = 0.1,
        depth: int = 3,
        lam: float = 0.0,
        momentum: float = 0.9,
        *,
        nesterov: bool = False,
        init: Initialization = Sampled(),  # noqa: B008 (frozen)
        tied: bool = False,
        weight_decay: float = 0.0,
        threshold: float = THRESHOLD,
        generator: torch.Generator | None = None,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool | None = None,
        compile: bool = False,
        fused: bool = False,
    ) -> None:
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 2:
            raise ValueError(
                f"FactorizedSGD: depth must be an integer of at least 2, got {depth}; for a dense network use "
                "torch.optim.SGD"
            )
        self._generator = generator
        # What the weights were when this optimizer last wrote them, so that it notices if something else does.
        self._versions = WeakTensorKeyDictionary()
        self._building = True
        super().__init__(
            params,
            lr=lr,
            depth=depth,
            lam=lam,
            momentum=momentum,
            nesterov=nesterov,
            init=init,
            tied=tied,
            weight_decay=weight_decay,
            threshold=threshold,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            compile=compile,
            fused=fused,
        )
        # Weights are written only when all groups are known to be fine.
        self._building = False
        for group in self.param_groups:
            self._start(group, group["init"], group["params"])

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # What torch neither copies nor saves.
        self._versions = WeakTensorKeyDictionary()
        self._building = False
        self.__dict__.setdefault("_generator", None)

    # -- options ----------------------------------------------------------------------------------------------------

    @override
    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with options of their own, and start their factors.

        Args:
            param_group: As for any torch optimizer, with an optional ``"depth"``; without one, tensors that should not
                be factorized become a group of depth 1.

        Raises:
            ValueError: If an option is out of range or has no meaning for a factorized group, or two parameters share
                storage; nothing has changed then.
            TypeError: If a parameter is complex, or ``init`` is no initialization.
        """
        depth, decay = param_group.get("depth"), param_group.get("weight_decay")
        if isinstance(depth, int) and depth > 1 and decay:
            raise ValueError(
                f"FactorizedSGD: a group of depth {depth} has weight_decay {decay}, which factorized weights do not "
                "have: lam is their penalty; leave weight_decay out of this group, or give it depth 1"
            )
        parts = _divide(param_group)
        before = len(self.param_groups)
        try:
            for part in parts:
                super().add_param_group(part)
            self._check_storage()
        except Exception:
            del self.param_groups[before:]
            raise
        for group in self.param_groups[before:] if not self._building else ():
            self._start(group, group["init"], group["params"])

    @override
    def _check(self, group: Group) -> None:
        if group["depth"] == 1:
            # Plain SGD has no kernel here; asked of all groups at once, it is meant for the others.
            group["fused"] = False
        super()._check(group)
        for name in ("lr", "lam", "threshold"):
            check_range("FactorizedSGD", group, name, below=True)
        check_range("FactorizedSGD", group, "momentum", high=1.0, below=True)
        depth = group["depth"]
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ValueError(
                f"FactorizedSGD: depth must be a positive integer, got {depth}; 1 leaves a group to plain SGD"
            )
        if group["nesterov"] and not group["momentum"]:
            raise ValueError("FactorizedSGD: nesterov needs a momentum above 0")
        if not isinstance(group["init"], Initialization):
            raise TypeError(f"FactorizedSGD: init must be an initialization such as Sampled(), got {group['init']!r}")
        if depth == 1:
            return
        if group["weight_decay"]:
            # Given to all groups at once, it is meant for the free ones.
            group["weight_decay"] = 0.0
        for name, param in named(group):
            if not (param.is_floating_point() and param.requires_grad):
                what = "frozen" if param.is_floating_point() else f"of type {param.dtype}"
                raise ValueError(f"FactorizedSGD: {name} is {what} and cannot be factorized; leave it out of the group")

    def _check_storage(self) -> None:
        check_storage("FactorizedSGD", {name: param for group in self.param_groups for name, param in named(group)})

    # -- factors ----------------------------------------------------------------------------------------------------

    @override
    def _sums(self, group: Group) -> tuple[str, ...]:
        if not group["momentum"]:
            return ()
        return tuple(f"momentum{i}" for i in range(_count(group)))

    def _names(self, group: Group) -> tuple[str, ...]:
        """Names of the factors in the state; none where the weight is trained itself."""
        if group["depth"] == 1:
            return ()
        return tuple(f"factor{i}" for i in range(_count(group)))

    @override
    def _named_state(self, group: Group) -> tuple[str, ...]:
        return (*self._names(group), *self._sums(group))

    @torch.no_grad()
    def _start(self, group: Group, init: Initialization, params: Sequence[Tensor]) -> None:
        """Give parameters factors, and the product of these."""
        for param in params if group["depth"] > 1 else ():
            # Of a divided weight every process draws all of the factors, and those of the first count.
            whole = init.factors(full(param.detach()), group["depth"], self._generator)
            factors = [like(factor, param) for factor in whole]
            weight = product(*factors)
            if group["tied"]:
                factors = [_root(weight, group["depth"])]
            self.state[param] = dict(zip(self._names(group), factors, strict=True))
            self._state(group, param)
            self._write(group, [param])

    @override
    def _state(self, group: Group, param: Tensor) -> dict[str, Tensor]:
        state = super()._state(group, param)
        # The first gradient makes the momentum, after the factors were there.
        for name in self._sums(group):
            if name not in state:
                state[name] = torch.zeros_like(state["factor0"] if group["depth"] > 1 else state.get("master", param))
        return state

    def _write(self, group: Group, params: Sequence[Tensor]) -> None:
        """Make weights the products of their factors."""
        names = self._names(group)
        for param in params:
            state = self.state[param]
            if group["tied"]:
                root = state["factor0"]
                weight = root * other_powers([root], group["depth"])[0]
            else:
                weight = product(*(state[name] for name in names))
            if "master" in state:
                state["master"].copy_(weight)
            param.copy_(weight)
            self._versions[param] = _version(param)

    @torch.no_grad()
    def resplit(self, init: Initialization | None = None, params: Sequence[Tensor] | None = None) -> None:
        """Find factors for weights that something else has written; their momentum starts anew.

        Args:
            init: How; default ``Split()``.
            params: Which; default all that are factorized.
        """
        wanted = None if params is None else set(params)
        for group in self.param_groups:
            chosen = [p for p in group["params"] if wanted is None or p in wanted]
            self._start(group, Split() if init is None else init, chosen)

    @torch.no_grad()
    def tie_(self, tolerance: float = 1e-6) -> None:
        """Go on with one number for all factors of a weight, which saves the memory of the others.

        Args:
            tolerance: Largest relative misalignment at which the factors count as balanced.

        Raises:
            ValueError: If the factors of a parameter are not balanced yet; nothing has changed then.
        """
        groups = [group for group in self.param_groups if group["depth"] > 1 and not group["tied"]]
        for group in groups:
            for name, param in named(group):
                factors = [full(self.state[param][key]).double() for key in self._names(group)]
                excess = sum(float(factor.square().sum()) for factor in factors) / len(factors)
                least = float(product(*factors).abs().pow(2 / len(factors)).sum())
                if excess - least > tolerance * least:
                    raise ValueError(
                        f"FactorizedSGD.tie_: the factors of {name} are not balanced (relative misalignment "
                        f"{(excess - least) / least if least else inf:.2g}, allowed {tolerance:g}); train longer, or "
                        "settle_() first"
                    )
        for group in groups:
            names, momenta = self._names(group), self._sums(group)
            group["tied"] = True
            for param in group["params"]:
                state = self.state[param]
                factors = [state[name] for name in names]
                weight = product(*factors)
                # The mean of their velocities away from 0.
                speeds = [factor.sign() * state[name] for factor, name in zip(factors, momenta, strict=False)]
                state["factor0"] = _root(weight, group["depth"])
                if momenta:
                    state["momentum0"] = sum(speeds) / len(speeds) * state["factor0"].sign()
                for name in (*names[1:], *momenta[1:]):
                    del state[name]
                self._write(group, [param])

    # -- one step ---------------------------------------------------------------------------------------------------

    @override
    def _advance(self, group: Group, gate: Scalar) -> None:
        super()._advance(group, gate)
        spent = 2 * group["lam"] * group["penalty_scale"] * rate(group) / (1 - group["momentum"])
        count_(group, "budget", group["budget"] + gate * spent)

    @override
    def _gradients(self) -> list[Tensor]:
        grads = super()._gradients()
        # This comes first in a step: nothing has moved yet.
        for group in self.param_groups if grads else ():
            for param in self._moving(group) if group["depth"] > 1 else ():
                if self._versions.get(param) != _version(param):
                    self._look_at(group, param)
        return grads

    @override
    def _step_group(self, group: Group, gate: Scalar) -> None:
        params = self._moving(group)
        step = self._fused_step(group, params)
        if step is None:
            super()._step_group(group, gate)
        else:
            self._count(group, gate)
            step.kernels.factorized_sgd(
                step["weight"],
                step["grad"],
                [step[name] for name in self._names(group)],
                [step[name] for name in self._sums(group)],
                plan=step.plan,
                descent=self._descent(group, gate),
                nesterov=group["nesterov"],
                **self._numbers(group, gate),
            )
            step.written()
        for param in params:
            self._versions[param] = _version(param)

    def _look_at(self, group: Group, param: Tensor) -> None:
        """Accept a weight that was written with what it was.

        Raises:
            ValueError: If it is something else now.
        """
        own = local(param.detach())
        held = own.clone()
        self._write(group, [param])
        if not self._agreed(torch.allclose(held, own, rtol=0, atol=0, equal_nan=True), own.device):
            own.copy_(held)
            del self._versions[param]
            name = next(name for name, p in named(group) if p is param)
            raise ValueError(
                f"FactorizedSGD: {name} was written by something else since the last step, and is not the product of "
                "its factors; call resplit() to go on from what it is now"
            )

    @override
    def _update(self, group: Group, batch: Batch, gate: Scalar) -> None:
        depth, names = group["depth"], self._names(group)
        scalars = self._scalars(group, gate=gate, **self._numbers(group, gate))
        momentums = [batch[name] for name in self._sums(group)]
        nesterov = group["nesterov"]
        if depth > 1 and group["tied"]:
            roots, moving = batch[names[0]], momentums[0] if momentums else []
            algorithm(group, tied_sgd)(
                batch["weight"], batch["grad"], roots, moving, depth=depth, nesterov=nesterov, **scalars
            )
        else:
            factors = [batch[name] for name in names] if names else [batch["weight"]]
            algorithm(group, factorized_sgd)(
                batch["weight"], batch["grad"], factors, momentums, nesterov=nesterov, **scalars
            )

    def _numbers(self, group: Group, gate: Scalar) -> dict[str, Scalar]:
        depth = group["depth"]
        return {
            "lr": gate * rate(group),
            "decay": 2 * group["lam"] * group["penalty_scale"] / depth if depth > 1 else 0.0,
            "momentum": 1 + gate * (group["momentum"] - 1) if isinstance(gate, Tensor) else group["momentum"],
        }

    @override
    def _method(self, group: Group) -> Method | None:
        by_depth: dict[int, Method] = {2: "factorized_sgd_2", 3: "factorized_sgd_3", 4: "factorized_sgd_4"}
        return None if group["tied"] else by_depth.get(group["depth"])

    # -- structure --------------------------------------------------------------------------------------------------

    @override
    @torch.no_grad()
    def settle_(self) -> None:
        """Make weights below the threshold exactly zero for good, and all their factors too."""
        self._zero_()

    def snap_(self, threshold: float = 1e-12) -> None:
        """Make weights below another threshold exactly zero for good, so that no factor becomes denormal.

        What is zero never comes back: this is for late in training, when the budget is above 25.

        Args:
            threshold: Weights of smaller magnitude become zero, >= 0.

        Raises:
            ValueError: If it is negative.
        """
        check_range("FactorizedSGD.snap_", {"threshold": threshold}, "threshold", below=True)
        self._zero_(threshold)

    def collapse_(self, model: nn.Module, example_inputs: object = None) -> CollapseReport:
        """Settle the weights, and say what became of them.

        Args:
            model: Whose weights these are.
            example_inputs: What ``model`` accepts, to measure how much its outputs change.

        Returns:
            The report of ``openwork.factorizations.collapse``.

        Raises:
            ValueError: If a weight is not in the model, none is factorized, or the model does not run; nothing has
                changed then.
        """
        names = parameter_names(model)
        factorized = [(group, name, param) for group in self.param_groups for name, param in named(group)]
        factorized = [entry for entry in factorized if entry[0]["depth"] > 1]
        if not factorized:
            raise ValueError("FactorizedSGD.collapse_: no parameter of this optimizer is factorized")
        if lost := next((name for _, name, param in factorized if param not in names), None):
            raise ValueError(
                f"FactorizedSGD.collapse_: {lost} is not in this {type(model).__name__}; pass the model that is trained"
            )
        weights = {names[cast("nn.Parameter", param)][0]: param for _, _, param in factorized}

        def zero_() -> dict[str, list[Tensor]]:
            self.settle_()
            return {name: [param] for name, param in weights.items()}

        return reported(
            "FactorizedSGD.collapse_",
            model,
            zero_,
            max(group["threshold"] for group, _, _ in factorized),
            {name: param.numel() for name, param in weights.items()},
            [(full(self._weight(param)).abs(), param.new_ones((), dtype=torch.double)) for param in weights.values()],
            example_inputs,
        )

    @torch.no_grad()
    def _zero_(self, threshold: float | None = None) -> None:
        for group, param, small in self._small(threshold):
            state = self.state[param]
            # A momentum that was 0 at the start and has grown since is there from the next step on.
            for tensor in (param, *(state[name] for name in (*self._named_state(group), "master") if name in state)):
                local(tensor).masked_fill_(small, 0.0)
            self._versions[param] = _version(param)

    def _weight(self, param: Tensor) -> Tensor:
        """A factorized parameter in the precision of its factors."""
        return self.state[param].get("master", param).detach()

    def _small(self, threshold: float | None = None) -> Iterator[tuple[Group, Tensor, Tensor]]:
        """Factorized parameters and where they are below a threshold; None for that of their group.

        Of a divided parameter, it is the part of this process.
        """
        for group in self.param_groups:
            for param in group["params"]:
                if group["depth"] > 1:
                    limit = group["threshold"] if threshold is None else threshold
                    yield group, param, local(self._weight(param)).abs() < limit

    @override
    def _structured_points(self) -> Iterator[tuple[Batch, list[Tensor]]]:
        for group in self.param_groups:
            if group["depth"] > 1:
                for batch in self._batches(group, group["params"], grads=False):
                    yield batch, [w.masked_fill(w.abs() < group["threshold"], 0.0) for w in batch["weight"]]

    @override
    def structures(self) -> dict[Tensor, Structure]:
        return {param: Support(Elements(), ~self._whole(param, small)) for _, param, small in self._small()}

    def _whole(self, param: Tensor, part: Tensor) -> Tensor:
        """The whole of what is known of the part of a parameter that is here."""
        how = self._division(param)
        return part if how is None else how.whole(part)

    @override
    def read_out(self) -> ReadOut:
        kept = [~self._whole(param, small) for _, param, small in self._small()]
        return ReadOut(alive=sum(int(k.sum()) for k in kept), total=sum(k.numel() for k in kept), skipped=self.skipped)

    @property
    def budget(self) -> float:
        """The collapse budget ``2 lam sum_t lr_t / (1 - momentum)`` spent so far; waits for a device."""
        return max((float(group["budget"]) for group in self.param_groups if group["depth"] > 1), default=0.0)

    def factors(self) -> dict[Tensor, list[Tensor]]:
        """The factors of every factorized parameter, in order; one number r for each weight if they are tied."""
        return {
            param: [self.state[param][name] for name in self._names(group)]
            for group in self.param_groups
            if group["depth"] > 1
            for param in group["params"]
        }

    def measured(self, names: Mapping[Tensor, str] | None = None) -> Iterator[Factors]:
        """The factors of every factorized parameter as diagnostics see them.

        Args:
            names: What to call the parameters; default as in the messages of this optimizer.

        Yields:
            One for each parameter.
        """
        for group in self.param_groups:
            for name, param in named(group) if group["depth"] > 1 else ():
                weight = full(self._weight(param))
                squares = [full(self.state[param][factor]).square() for factor in self._names(group)]
                called = name if names is None else names[param]
                lam = group["lam"] * group["penalty_scale"]
                yield Factors(called, squares, weight.abs(), lam, group["depth"], weight)

    def diagnostics(self) -> Diagnostics:
        """How far the training has come: balance of the factors, weights near zero; a few passes over the weights."""
        return Diagnostics({factors.name: diagnose(factors) for factors in self.measured()})

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; this also writes the weights, as products of the factors.

        Args:
            state_dict: From the same kind of optimizer over the same parameters.

        Raises:
            ValueError: If depths, groups or shapes do not match; nothing has changed then.
        """
        for own, saved in zip(self.param_groups, state_dict["param_groups"], strict=False):
            for name in ("depth", "tied"):
                if saved.get(name) != own[name] and (name == "depth" or own["depth"] > 1):
                    raise ValueError(
                        f"FactorizedSGD: the state to load has {name} {saved.get(name)}, and this optimizer has "
                        f"{own[name]}; build it as it was, or call resplit() on the loaded weights instead"
                    )
        saved = state_dict["state"]
        for group in state_dict["param_groups"]:
            if group["depth"] > 1 and (lost := [i for i in group["params"] if not saved.get(i)]):
                raise ValueError(
                    f"FactorizedSGD: the state to load has no factors for parameter {lost[0]}; take state_dict() from "
                    "this optimizer as it is"
                )
        super().load_state_dict(state_dict)
        with torch.no_grad():
            for group in self.param_groups:
                if group["depth"] > 1:
                    self._write(group, group["params"])


@torch.no_grad()
def _version(param: Tensor) -> int:
    """How often the entries of a parameter have been written, as far as torch knows."""
    own = local(param)
    # Writes to a DTensor and to the part of it that is here are counted apart.
    return param._version if own is param else param._version + own._version


def _divide(param_group: Group) -> list[Group]:
    """A group without a depth as one that is factorized and one that is not.

    Raises:
        ValueError: If a parameter has no shape yet.
    """
    params = param_group["params"]
    params = [params] if isinstance(params, Tensor) else list(params)
    tensors = [item[1] if isinstance(item, tuple) else item for item in params]
    for i, tensor in enumerate(tensors):
        if is_lazy(tensor):
            raise ValueError(f"FactorizedSGD: parameter {i} has no shape yet; call the model on one batch first")
    free = [not isinstance(t, Tensor) or t.ndim < 2 or t.numel() < 2 for t in tensors]
    if "depth" in param_group or not any(free):
        return [{**param_group, "params": params}]
    names = param_group.get("names")
    found: list[Group] = []
    for wanted in (False, True):
        chosen = [i for i, is_free in enumerate(free) if is_free == wanted]
        if chosen:
            part = {**param_group, "params": [params[i] for i in chosen]} | ({"depth": 1, "lam": 0.0} if wanted else {})
            found.append(part if names is None else {**part, "names": [names[i] for i in chosen]})
    return found


def _count(group: Group) -> int:
    """Tensors that are trained for each weight."""
    return 1 if group["tied"] else group["depth"]


def _root(weight: Tensor, depth: int) -> Tensor:
    """The size that all factors of a weight have, with the sign of the weight."""
    return (weight.abs().double() ** (1 / depth) * weight.sign()).to(weight.dtype)
