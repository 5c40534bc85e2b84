"""A model whose weights are sketched while it trains."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer
from typing_extensions import override

from openwork.forward_pass import check_module
from openwork.sketches.families import Entries, Families, ScaleSide, Units, joined
from openwork.sketches.key import Key
from openwork.sketches.sketch import DiagonalSketch, Draw, Sketch
from openwork.sketches.slicing import Slicer
from openwork.sketches.submodel import Submodel
from openwork.wiring import Coupling, Selection, inspect, parameter_names, selected

Granularity = Literal["tensor", "model", "units"]
Shift = Literal["init", "zero"] | Mapping[str, Tensor]
Mode = Literal["mask", "slice"]


class SketchedModule(nn.Module):
    """``f(v + S (x - v))`` in place of ``f(x)``: what trains under it survives being pruned as S prunes.

    In training mode every forward pass uses the draw of ``key`` at the present step, which the optimizer's steps count
    once ``follow(optimizer)`` was called; inside ``with draw(key)`` it uses that of another key. In evaluation mode it
    is the dense model. Gradients are those of the estimator, ``Sᵀ`` times the gradient at the sketched weights.

    Args:
        module: Any module; its parameters are x, and stay its parameters.
        sketch: A law for everything that is sketched.
        shift: v: ``"init"`` is the present weights, a pre-trained model perhaps; ``"zero"``; or tensors by the names of
            the parameters, where those that are missing are 0.
        granularity: ``"tensor"`` draws among the entries of each tensor, ``"model"`` among all entries together,
            ``"units"`` among the units of each coupling, such as neurons, channels and heads.
        example_inputs: With which the couplings are found; needed for ``"units"`` without ``groups``.
        groups: The couplings whose units are sketched, if not all that can be removed.
        include: Names of parameters or modules to sketch, with wildcards, or module types; all if left out.
        exclude: Not these.
        scaled: Whether what is kept is multiplied by 1 / p. If not, weights count as in the smaller network, and the
            dense model is ``v + p (x - v)``.
        side: Which slices of a unit are multiplied.
        key: Seed and backend of the draws, whose worker is this process; ``Key(0)`` if left out.
        mode: ``"mask"`` multiplies weights; ``"slice"`` runs a network without the units that are dropped, with the
            same loss and gradients, in a fraction of the time: for ``"units"`` around zero, with ``example_inputs``.

    Raises:
        TypeError: If ``module`` is no module.
        ValueError: If nothing is left to sketch, or an argument does not fit.

    References:
        Demidovich, Malinovsky, Shulgin & Richtárik, MAST (ICLR 2025), arXiv:2311.16086, equation 1.
    """

    def __init__(
        self,
        module: nn.Module,
        sketch: Sketch,
        *,
        shift: Shift = "init",
        granularity: Granularity = "tensor",
        example_inputs: object = None,
        groups: Sequence[Coupling] | None = None,
        include: Selection | None = None,
        exclude: Selection | None = None,
        scaled: bool = True,
        side: ScaleSide = "outgoing",
        key: Key | None = None,
        mode: Mode = "mask",
    ) -> None:
        super().__init__()
        check_module("SketchedModule", module)
        self.module = module
        self.scaled = scaled
        self.key = Key(0) if key is None else key
        names = _chosen(module, include, exclude)
        self.families: Families = _families(module, sketch, names, granularity, example_inputs, groups, side)
        # Positions stand for names, since those of buffers may have no dots.
        self._shifted = tuple(dict.fromkeys(name for family in self.families for name in family.parameters))
        for position, name in enumerate(self._shifted):
            self.register_buffer(f"shift{position}", _shift(name, module.get_parameter(name), shift))
        self._drawn: Mapping[str, tuple[Draw, ...]] | None = None
        self._slicer: Slicer | None = None
        self._slicing: Key | None = None
        if mode == "slice":
            self._slicer = Slicer(module, self.families, self.shifts, example_inputs, scaled=scaled)
            # A network that cannot be sliced is known at once, and not in the first step.
            self._slicer.draw(self.key)

    @property
    def shifts(self) -> dict[str, Tensor | None]:
        """The shift v of every sketched parameter, by name; None stands for zeros."""
        return {name: cast("Tensor | None", getattr(self, f"shift{at}")) for at, name in enumerate(self._shifted)}

    def sample(self, key: Key) -> dict[str, tuple[Draw, ...]]:
        """Draw S.

        Args:
            key: What names the draw.

        Returns:
            Maps of each sketched parameter, one after the other; parameters that stay as they are, are not there.
        """
        device = next(self.module.parameters()).device
        return joined([family.sample(key, device) for family in self.families])

    def weights(self, drawn: Mapping[str, tuple[Draw, ...]]) -> dict[str, Tensor]:
        """``y = v + S (x - v)`` of every parameter that a draw changes; differentiable in x.

        Args:
            drawn: What ``sample`` gave.
        """
        shifts = self.shifts
        found: dict[str, Tensor] = {}
        for name, maps in drawn.items():
            x, v = self.module.get_parameter(name), shifts[name]
            moved = x if v is None else x - v
            for one in maps:
                moved = one.apply(moved)
            found[name] = moved if v is None else v + moved
        return found

    @contextmanager
    def draw(self, key: Key) -> Generator["SketchedModule"]:
        """Forward passes inside use the draw of a key, whatever the mode.

        Args:
            key: What names the draw.
        """
        before, self._drawn = self._drawn, self.sample(key) if self._slicer is None else {}
        outer, self._slicing = self._slicing, key
        try:
            yield self
        finally:
            self._drawn, self._slicing = before, outer

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of the module with sketched weights; with its own in evaluation mode."""
        if self._slicer is not None and (self.training or self._slicing is not None):
            return self._slicer.run(self._slicing or self.key, args, kwargs)
        drawn = self.sample(self.key) if self._drawn is None and self.training else self._drawn
        weights = {} if drawn is None else self.weights(drawn)
        return functional_call(self.module, weights, args, kwargs) if weights else self.module(*args, **kwargs)

    def advance(self) -> None:
        """Go on to the draw of the next step."""
        self.key = self.key.at(step=self.key.step + 1)

    def follow(self, optimizer: Optimizer) -> None:
        """Let the steps of an optimizer count the draws.

        Args:
            optimizer: Over the module's parameters.
        """
        optimizer.register_step_post_hook(lambda *_: self.advance())

    def submodel(self, key: Key) -> Submodel:
        """The network that a draw leaves, with parameters of its own to train.

        Args:
            key: What names the draw.

        Raises:
            ValueError: If the mode is not ``"slice"``.
        """
        if self._slicer is None:
            raise ValueError("SketchedModule: only units that can be sliced leave a submodel; take mode='slice'")
        return Submodel(self._slicer, key)

    @torch.no_grad()
    def recenter_(self) -> None:
        """Move the shift to the present weights.

        Raises:
            ValueError: If units are sliced off, which needs a shift of zero.
        """
        if self._slicer is not None:
            raise ValueError("SketchedModule: units are sliced off around zero alone; recenter with mode='mask'")
        for position, name in enumerate(self._shifted):
            setattr(self, f"shift{position}", self.module.get_parameter(name).detach().clone())


def _chosen(module: nn.Module, include: Selection | None, exclude: Selection | None) -> list[str]:
    """First names of the parameters that may be sketched."""
    meant = selected(module, include, exclude, "SketchedModule")
    return [names[0] for p, names in parameter_names(module).items() if p.requires_grad and not meant.why_not(names)]


def _families(
    module: nn.Module,
    sketch: Sketch,
    names: Sequence[str],
    granularity: Granularity,
    example_inputs: object,
    groups: Sequence[Coupling] | None,
    side: ScaleSide,
) -> Families:
    shapes = {name: module.get_parameter(name).shape for name in names}
    if granularity == "tensor":
        found: Families = tuple(Entries(name, sketch, {name: shape}) for name, shape in shapes.items())
    elif granularity == "model":
        found = (Entries("model", sketch, shapes),)
    else:
        if not isinstance(sketch, DiagonalSketch):
            raise ValueError(f"SketchedModule: {type(sketch).__name__} mixes units; take a diagonal sketch")
        # Units that a mean runs over, as in a stream with root-mean-square norms, count even where nobody reads them.
        couplings = (
            groups
            if groups is not None
            else [c for c in inspect(module, example_inputs).removable if all(r.kind != "mean" for r in c.remarks)]
        )
        found = tuple(
            Units(c.name, sketch, c, side) for c in couplings if all(part.name in shapes for part in c.consumers)
        )
    if not found:
        raise ValueError(
            f"SketchedModule: nothing of {type(module).__name__} is left to sketch; loosen include, exclude"
        )
    return found


def _shift(name: str, parameter: Tensor, shift: Shift) -> Tensor | None:
    if isinstance(shift, Mapping):
        return shift[name].detach().clone() if name in shift else None
    return parameter.detach().clone() if shift == "init" else None


__all__ = ["Granularity", "Mode", "Shift", "SketchedModule"]
