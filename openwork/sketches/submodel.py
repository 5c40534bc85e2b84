"""A smaller network with parameters of its own, cut out of a larger one and written back after training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openwork.shrinking.cutting import with_tensors
from openwork.sketches.key import Key
from openwork.sketches.slicing import Sliced, Slicer, follow_modes_, named_tensors

BigState = dict[str, dict[str, Any]]


class Submodel:
    """What a draw over units leaves of a network, as an ordinary module: compact leaves.

    Its parameters y are copies of the slices that are kept, those that read units multiplied by 1 / p if the sketch is
    scaled. Train ``module`` with any optimizer for one or more steps, then ``write_back_``. What was dropped keeps its
    weights and its optimizer state ("lazy").

    With a scaled sketch, x is p y where y was multiplied, so that a step ``eta`` of SGD on y moves x there by
    ``p² eta`` times the sketched gradient ``Sᵀ g``; as one of n workers with ``PermK``, by ``eta / n`` times the mean
    of theirs. Steps of Adam shrink by p. Without a scale, y and x are the same numbers.

    Made by ``SketchedModule.submodel``.

    Args:
        slicer: Of the whole network.
        key: What names the draw.
        scaled: Whether what is kept is multiplied by its scale.
    """

    module: nn.Module
    key: Key

    def __init__(self, slicer: Slicer, key: Key, *, scaled: bool) -> None:
        self._slicer = slicer
        self._scaled = scaled
        self.key = key
        self._sliced = slicer.draw(key, scaled=scaled)
        self.module = self._made(self._sliced)

    def redraw_(self, key: Key) -> None:
        """Load the slices of another draw, of the same widths, into the same parameters; nothing is written back.

        Args:
            key: What names the draw.

        Raises:
            ValueError: If the draw keeps another number of units.
        """
        sliced = self._slicer.draw(key, scaled=self._scaled)
        if _shapes(sliced.skeleton) != _shapes(self._sliced.skeleton):
            raise ValueError(
                "Submodel: the draw keeps another number of units; make a new one with SketchedModule.submodel(key), "
                "or take a law that always keeps as many, such as RandK"
            )
        self._sliced, self.key = sliced, key
        self._load_(named_tensors(self.module))

    @torch.no_grad()
    def write_back_(self) -> None:
        """Write trained slices into the whole network, divided by their scale; buffers such as running means too."""
        whole = named_tensors(self._slicer.module)
        for name, leaf in named_tensors(self.module).items():
            # What is frozen has not changed, and would by rounding.
            if leaf.requires_grad or not isinstance(leaf, nn.Parameter):
                self._sliced.of(name).put_(whole[name], leaf)

    @torch.no_grad()
    def load_state(self, optimizer: Optimizer, state: BigState) -> None:
        """Give an optimizer the state of the units that are kept.

        Args:
            optimizer: Over the parameters of ``module``; the state that it has is dropped.
            state: Of the whole network, as ``save_state`` fills it; empty at the start.
        """
        for name, leaf in self.module.named_parameters():
            known, held = state.get(name, {}), optimizer.state.pop(leaf, {})
            shape, slices = self._slicer.module.get_parameter(name).shape, self._sliced.of(name).unscaled
            for key, value in known.items():
                if not isinstance(value, Tensor) or value.shape != shape:
                    optimizer.state[leaf][key] = _copied(value)
                    continue
                own = held.get(key)
                # Memory of the last draw will do.
                optimizer.state[leaf][key] = own if isinstance(own, Tensor) else value.new_empty(leaf.shape)
                slices.load_(optimizer.state[leaf][key], value)

    @torch.no_grad()
    def save_state(self, optimizer: Optimizer, state: BigState) -> None:
        """Put the optimizer's state of the units that are kept where ``load_state`` finds it again.

        Args:
            optimizer: Over the parameters of ``module``.
            state: Of the whole network: by name of the parameter and of the entry, shaped like the whole parameter,
                zero where nothing was written yet. What is not shaped like a parameter, such as the counter of steps,
                is that of the last one who wrote.
        """
        for name, leaf in self.module.named_parameters():
            shape = self._slicer.module.get_parameter(name).shape
            for key, value in optimizer.state.get(leaf, {}).items():
                entries = state.setdefault(name, {})
                if not isinstance(value, Tensor) or value.shape != leaf.shape:
                    entries[key] = _copied(value)
                    continue
                if key not in entries:
                    entries[key] = value.new_zeros(shape)
                self._sliced.of(name).unscaled.put_(entries[key], value)

    def _made(self, sliced: Sliced) -> nn.Module:
        whole = named_tensors(self._slicer.module)
        leaves: dict[str, Tensor] = {}
        for name, empty in named_tensors(sliced.skeleton).items():
            own = torch.empty_like(empty, device=whole[name].device)
            leaves[name] = nn.Parameter(own, empty.requires_grad) if isinstance(empty, nn.Parameter) else own
        self._load_(leaves)
        module = with_tensors(sliced.skeleton, leaves)
        follow_modes_(module, self._slicer.module)
        return module

    def _load_(self, leaves: Mapping[str, Tensor]) -> None:
        whole = named_tensors(self._slicer.module)
        for name, leaf in leaves.items():
            self._sliced.of(name).load_(leaf, whole[name])


def _shapes(module: nn.Module) -> list[torch.Size]:
    return [x.shape for x in named_tensors(module).values()]


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


__all__ = ["BigState", "Submodel"]
