"""A model whose weights are sketched while it trains."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import reduce
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from openwork.forward_pass import check_module
from openwork.sketches.choosing import Granularity, Laws, choose_families
from openwork.sketches.families import Drawn, Families, ScaleSide, joined
from openwork.sketches.key import Key
from openwork.sketches.shards import check_whole
from openwork.sketches.shifts import Shift, found_shifts
from openwork.sketches.sketch import Diagonal, DiagonalSketch
from openwork.sketches.slicing import Slicer
from openwork.sketches.submodel import Submodel
from openwork.wiring import Coupling, Selection

Resample = Literal["step", "forward"]
Mode = Literal["mask", "slice"]


class SketchedModule(nn.Module):
    """``f(v + S (x - v))`` in place of ``f(x)``: what trains under it survives being pruned as S prunes.

    In training mode every forward pass uses the draw of ``now``, which the optimizer's steps count once
    ``follow(optimizer)`` was called; inside ``with draw(key)`` it uses that of another key. In evaluation mode it is
    the dense model. Gradients are those of the estimator, ``Sᵀ`` times the gradient at the sketched weights. The
    weights themselves are never written, so that nothing has to be put back when something fails inside a draw.

    A tensor that is used in several places has one draw and one shift. Of a parametrized tensor, what is behind the
    parametrization is sketched. Running statistics of batch normalizations are gathered under masks in training mode;
    recalibrate them for the model that is evaluated or exported.

    Args:
        module: Any module; its parameters are x, and stay its parameters.
        sketch: A law for everything that is sketched; or laws by names of parameters or modules, in which ``*``, ``?``
            and ``[...]`` are wildcards, or by module types: each parameter takes the first that matches, and is not
            sketched if none does. Units take the law of what reads them.
        shift: v: ``"init"`` is the present weights, a pre-trained model perhaps; ``"zero"``; or tensors by the names of
            the parameters, where those that are missing are 0.
        granularity: ``"tensor"`` draws among the entries of each tensor, ``"model"`` among all entries that have one
            law, ``"units"`` among the units of each coupling, such as neurons, channels and heads. Take ``RandK`` for
            units, which keeps at least one of each coupling; independent draws can drop a whole layer.
        example_inputs: With which the couplings are found; needed for ``"units"`` without ``groups``.
        groups: The couplings whose units are sketched, if not all that can be removed. Of those that are found, the
            ones with a slice that is not sketched are left out, and those whose mask would not be a smaller network,
            as where a normalization takes a mean over the units.
        include: Names of parameters or modules to sketch, with wildcards, or module types; all if left out.
        exclude: Not these.
        scaled: Whether what is kept is multiplied by 1 / p. If not, weights count as in the smaller network, and the
            dense model is ``v + p (x - v)``; under unequal shares of ``PermK``, with p of the first worker.
        side: Which slices of a unit are multiplied.
        resample: Whether steps or forward passes in training mode count the draws, the latter anew in each step.
        every: How many of these have the same draw, >= 1.
        key: Seed and backend of the draws, whose worker is this process; ``Key(0)`` if left out.
        mode: ``"mask"`` multiplies weights. ``"slice"`` runs a network without the units that are dropped, with the
            same loss and gradients in a fraction of the time: for ``"units"`` around zero, with ``example_inputs``.

    Raises:
        TypeError: If ``module`` is no module, ``sketch`` no law, or another argument of the wrong type.
        ValueError: If nothing is left to sketch, or an argument does not fit.

    References:
        Demidovich, Malinovsky, Shulgin & Richtárik, MAST (ICLR 2025), arXiv:2311.16086, equation 1.
    """

    def __init__(
        self,
        module: nn.Module,
        sketch: Laws,
        *,
        shift: Shift = "init",
        granularity: Granularity = "tensor",
        example_inputs: object = None,
        groups: Sequence[Coupling] | None = None,
        include: Selection | None = None,
        exclude: Selection | None = None,
        scaled: bool = True,
        side: ScaleSide = "outgoing",
        resample: Resample = "step",
        every: int = 1,
        key: Key | None = None,
        mode: Mode = "mask",
    ) -> None:
        super().__init__()
        check_module("SketchedModule", module)
        if resample not in ("step", "forward"):
            raise ValueError(f"SketchedModule: resample must be 'step' or 'forward', got {resample!r}")
        if mode not in ("mask", "slice"):
            raise ValueError(f"SketchedModule: mode must be 'mask' or 'slice', got {mode!r}")
        if every < 1:
            raise ValueError(f"SketchedModule: every must be at least 1, got {every}")
        if key is not None and not isinstance(key, Key):
            raise TypeError(f"SketchedModule: key must be a Key, got {key!r}; pass Key(seed)")
        self.module = module
        self.scaled = scaled
        self.resample: Resample = resample
        self.every = every
        self.key = Key(0) if key is None else key
        self.families: Families = choose_families(
            module,
            sketch,
            granularity=granularity,
            example_inputs=example_inputs,
            groups=groups,
            include=include,
            exclude=exclude,
            side=side,
        )
        # Positions stand for names, since those of buffers may have no dots.
        self._shifted = tuple(dict.fromkeys(name for family in self.families for name in family.parameters))
        shifts = found_shifts(module, self._shifted, shift)
        for position, name in enumerate(self._shifted):
            self.register_buffer(f"shift{position}", shifts[name])
        self._drawn: Drawn | None = None
        self._passes = 0
        self._counted = False
        self._seen: int | None = None
        self._check_laws()
        self._slicer: Slicer | None = None
        self._slicing: Key | None = None
        if mode == "slice":
            self._slicer = Slicer(module, self.families, self.shifts, example_inputs)
            # A network that cannot be sliced is known at once, and not at the first step.
            self._slicer.draw(self.key, scaled=scaled)

    def _check_laws(self) -> None:
        # Found out now, not at the first step: a law has no draw of a size, no mask, or no such worker.
        for family in self.families:
            if not self.scaled and not isinstance(family.law, DiagonalSketch):
                raise ValueError(
                    f"SketchedModule: {family.name!r} has no mask under {type(family.law).__name__}, which is not "
                    "diagonal; use scaled=True"
                )
            try:
                family.sample(self.key, self._device)
            except ValueError as error:
                raise ValueError(f"SketchedModule: {family.name!r}: {error}") from error

    # -- draws ------------------------------------------------------------------------------------------------------

    @property
    def shifts(self) -> dict[str, Tensor | None]:
        """The shift v of every sketched parameter, by name; None stands for zeros."""
        return {name: cast("Tensor | None", getattr(self, f"shift{at}")) for at, name in enumerate(self._shifted)}

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _parameter(self, name: str) -> Tensor:
        # Under torch.func.functional_call it is a tensor, which get_parameter refuses.
        path, _, own = name.rpartition(".")
        return cast("Tensor", getattr(self.module.get_submodule(path), own))

    @property
    def now(self) -> Key:
        """The key of the next forward pass in training mode."""
        if self.resample == "step":
            return self.key.at(step=self.key.step - self.key.step % self.every)
        return self.key.at(draw=self._passes // self.every)

    def sample(self, key: Key) -> Drawn:
        """Draw S, with its scales whether the module is scaled or not.

        Args:
            key: What names the draw.

        Returns:
            Maps of each sketched parameter, one after the other; parameters that stay as they are, are not there.
        """
        return joined([family.sample(key, self._device) for family in self.families])

    def weights(self, drawn: Drawn) -> dict[str, Tensor]:
        """``y = v + S (x - v)`` of every parameter that a draw changes; differentiable in x.

        Unscaled, it is x where S keeps it and v elsewhere.

        Args:
            drawn: What ``sample`` gave.

        Raises:
            ValueError: If a parameter is a shard of FSDP2's, as outside of a forward pass.
        """
        shifts = self.shifts
        found: dict[str, Tensor] = {}
        for name, maps in drawn.items():
            x, v = self._parameter(name), shifts[name]
            check_whole(name, x)
            if not self.scaled:
                kept = reduce(torch.logical_and, [cast("Diagonal", one).kept for one in maps])
                found[name] = torch.where(kept, x, 0.0 if v is None else v)
                continue
            moved = x if v is None else x - v
            for one in maps:
                moved = one.apply(moved)
            found[name] = moved if v is None else v + moved
        return found

    @contextmanager
    def draw(self, key: Key | Drawn) -> Generator["SketchedModule"]:
        """Forward passes inside use the draw of a key, whatever the mode.

        Args:
            key: What names the draw, or what ``sample`` gave.

        Raises:
            TypeError: If ``key`` is neither, or units are sliced off by what ``sample`` gave.
        """
        if not isinstance(key, (Key, Mapping)):
            raise TypeError(f"SketchedModule: draw takes a Key or what sample(key) gave, got {key!r}; pass Key(seed)")
        if self._slicer is not None and not isinstance(key, Key):
            raise TypeError("SketchedModule: units are sliced off by keys; pass a Key, or build it with mode='mask'")
        before = self._drawn, self._slicing
        if isinstance(key, Key) and self._slicer is not None:
            self._slicing = key
        else:
            self._drawn = self.sample(key) if isinstance(key, Key) else key
        try:
            yield self
        finally:
            self._drawn, self._slicing = before

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of the module with sketched weights; those of the dense model in evaluation mode.

        Warns:
            UserWarning: If the weights have changed while nothing counts the draws.
        """
        key = self._slicing
        if key is None and self._drawn is None and self.training:
            self._warn_of_standstill()
            key = self.now
            self._passes += 1
        if key is None:
            weights = self._dense() if self._drawn is None else self.weights(self._drawn)
        elif self._slicer is None:
            weights = self.weights(self.sample(key))
        else:
            return self._slicer.run(key, args, kwargs, scaled=self.scaled)
        return functional_call(self.module, weights, args, kwargs) if weights else self.module(*args, **kwargs)

    def _warn_of_standstill(self) -> None:
        if self._counted or self.resample == "forward":
            return
        parameter = self._parameter(self._shifted[0])
        if not isinstance(parameter, nn.Parameter):
            return  # in its place, from torch.func.functional_call
        version = parameter._version
        if self._seen is not None and version != self._seen:
            self._counted = True  # once is enough
            warnings.warn(
                "SketchedModule: the weights have changed and the draw has not, so all steps would train the same "
                "mask; call follow(optimizer) once, or advance() after each step",
                stacklevel=4,
            )
        self._seen = version

    def submodel(self, key: Key) -> Submodel:
        """The network that a draw leaves, with parameters of its own to train and write back.

        Args:
            key: What names the draw.

        Raises:
            ValueError: If the mode is not ``"slice"``.
        """
        if self._slicer is None:
            raise ValueError("SketchedModule: only units that are sliced off leave a submodel; take mode='slice'")
        return Submodel(self._slicer, key, scaled=self.scaled)

    def advance(self) -> None:
        """Go on to the next step."""
        self.key = self.key.at(step=self.key.step + 1)
        self._passes = 0
        self._counted = True

    def follow(self, optimizer: Optimizer) -> RemovableHandle:
        """Let the steps of an optimizer count the draws.

        Args:
            optimizer: Over the module's parameters.

        Returns:
            What ends it by its ``remove()``.
        """
        self._counted = True
        return optimizer.register_step_post_hook(lambda *_: self.advance())

    # -- the dense model --------------------------------------------------------------------------------------------

    def dense_weights(self) -> dict[str, Tensor]:
        """Sketched parameters as the dense model has them, by name: ``z = v + p (x - v)``, or x itself if scaled."""
        return {name: self.module.get_parameter(name).detach() for name in self._shifted} | {
            name: z.detach() for name, z in self._dense().items()
        }

    def _dense(self) -> dict[str, Tensor]:
        """Dense weights that differ from x; differentiable in x."""
        found: dict[str, Tensor] = {}
        for name, p in ({} if self.scaled else self._inclusion()).items():
            x, v = self._parameter(name), self.shifts[name]
            p = p.to(x.device, x.dtype)
            # Where p = 1 it is x to the bit, which v + (x - v) is not.
            found[name] = torch.where(p == 1, x, x * p if v is None else v + p * (x - v))
        return found

    def _inclusion(self) -> dict[str, Tensor]:
        """Probability that each entry is kept, where it is not 1 throughout; float64."""
        found: dict[str, Tensor] = {}
        for family in self.families:
            for name, p in family.inclusion().items():
                found[name] = found[name] * p if name in found else p
        return {name: p for name, p in found.items() if not bool((p == 1).all())}

    def dense(self) -> nn.Module:
        """A copy of the module with the weights of the dense model."""
        copy = deepcopy(self.module)
        with torch.no_grad():
            for name, z in self._dense().items():
                copy.get_parameter(name).copy_(z)
        return copy

    def _check_scales(self) -> None:
        for family in self.families:
            if isinstance(family.law, DiagonalSketch) and not family.law.one_scale(family.size):
                raise ValueError(
                    f"SketchedModule: {family.name!r} has other scales in other draws under "
                    f"{type(family.law).__name__}, so that no weights are the same in both units; convert under a law "
                    "with one scale, such as RandK or Bernoulli"
                )

    @torch.no_grad()
    def to_scaled_(self) -> Self:
        """Turn an unscaled module into the scaled one with the same sketched weights, ``x <- v + p (x - v)``.

        A plain SGD step of size ``lr`` before is one of ``p**2 lr`` after, one of Adam is ``p lr``.

        Raises:
            ValueError: If a law's scales differ between draws or workers; nothing has changed then.
        """
        self._check_scales()
        for name, z in self._dense().items():
            self.module.get_parameter(name).copy_(z)
        self.scaled = True
        return self

    @torch.no_grad()
    def to_unscaled_(self) -> Self:
        """Turn a scaled module into the unscaled one with the same sketched weights, ``x <- v + (x - v) / p``.

        Raises:
            TypeError: If a law is not diagonal; nothing has changed then.
            ValueError: If a law's scales differ between draws or workers; nothing has changed then.
        """
        self._check_scales()
        if self.scaled:
            for name, p in self._inclusion().items():
                x, v = self.module.get_parameter(name), self.shifts[name]
                p = p.to(x.device, x.dtype)
                x.copy_(torch.where(p == 1, x, x / p if v is None else v + (x - v) / p))
            self.scaled = False
        return self

    @torch.no_grad()
    def recenter_(self) -> None:
        """Move the shift to the dense weights, and where they are not scaled, the weights too; the dense model stays.

        The state of an optimizer stays as it is.

        Raises:
            ValueError: If units are sliced off, which they are around zero alone.
        """
        if self._slicer is not None:
            raise ValueError("SketchedModule: units are sliced off around zero alone; recenter with mode='mask'")
        moved = self._dense()
        for position, name in enumerate(self._shifted):
            x = self.module.get_parameter(name)
            if name in moved:
                x.copy_(moved[name])
            setattr(self, f"shift{position}", x.detach().clone())

    # -- checkpoints ------------------------------------------------------------------------------------------------

    @property
    def _workers(self) -> int | None:
        """Number of workers that share each draw; None if they do not."""
        laws = [family.law for family in self.families if isinstance(family.law, DiagonalSketch)]
        return max((law.complementary for law in laws if law.complementary > 1), default=None)

    @override
    def get_extra_state(self) -> dict[str, int | str | bool | None]:
        return {
            "seed": self.key.seed,
            "backend": self.key.backend,
            "torch": str(torch.__version__) if self.key.backend == "torch" else None,
            "step": self.key.step,
            "passes": self._passes,
            "scaled": self.scaled,
            "workers": self._workers,
            # Shifts are stored by their positions.
            "sketched": ", ".join(self._shifted),
        }

    @override
    def set_extra_state(self, state: Mapping[str, int | str | bool | None]) -> None:
        self.key = self.key.at(step=int(state["step"] or 0))
        self._passes = int(state["passes"] or 0)

    def _check_state(self, state: Mapping[str, int | str | bool | None]) -> None:
        own = self.get_extra_state()
        ways = {
            "seed": f"pass key=Key({state['seed']})",
            "backend": f"pass a key with backend={state['backend']!r}",
            "scaled": f"build it with scaled={state['scaled']} and convert it by to_scaled_() or to_unscaled_()",
            "workers": f"go on with {state['workers']} workers",
            "sketched": "build it with the same granularity, laws, include and exclude",
        }
        for name, way in ways.items():
            if state[name] != own[name]:
                raise ValueError(
                    f"SketchedModule: the state to load has {name}={state[name]!r} and this module {name}="
                    f"{own[name]!r}, so that it would train under other draws; {way}"
                )
        if state["torch"] != own["torch"]:
            warnings.warn(
                f"SketchedModule: the state to load was drawn by torch {state['torch']}, this is {own['torch']}; their "
                "random numbers may differ, those of Key(..., backend='hash') never do",
                stacklevel=2,
            )

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Checked first, so that nothing has changed when it does not fit.
        state = state_dict.get(f"{prefix}_extra_state")
        if state is not None:
            self._check_state(state)
            for position, name in enumerate(self._shifted):
                # Zeros are stored as nothing.
                there = f"{prefix}shift{position}" in state_dict
                own = getattr(self, f"shift{position}")
                blank = torch.empty_like(self.module.get_parameter(name).detach()) if own is None else own
                setattr(self, f"shift{position}", blank if there else None)
        self._seen = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


__all__ = ["Mode", "Resample", "SketchedModule"]
