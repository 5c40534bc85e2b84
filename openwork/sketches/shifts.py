"""What sketched weights fall back to where they are dropped."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from openwork.wiring import parameter_names

Shift = Literal["init", "zero"] | Mapping[str, Tensor]


def found_shifts(module: nn.Module, names: Sequence[str], shift: Shift) -> dict[str, Tensor | None]:
    """The shift of every parameter that is sketched; None stands for zeros.

    Args:
        module: That is sketched.
        names: First names of these parameters.
        shift: As in ``SketchedModule``.

    Raises:
        TypeError: If what a mapping has is no tensor.
        ValueError: If there is no such parameter, or it has another shape.
    """
    own = {name: module.get_parameter(name).detach() for name in names}
    if not isinstance(shift, Mapping):
        if shift not in ("init", "zero"):
            raise ValueError(f"SketchedModule: shift must be 'init', 'zero' or a mapping of tensors, got {shift!r}")
        return {name: x.clone() if shift == "init" else None for name, x in own.items()}
    aliases = {alias: tied[0] for tied in parameter_names(module).values() for alias in tied}
    buffers = {name for name, _ in module.named_buffers()}
    found: dict[str, Tensor | None] = dict.fromkeys(names)
    for alias, v in shift.items():
        if alias not in aliases and alias not in buffers:
            raise ValueError(f"SketchedModule: shift has {alias!r}, which {type(module).__name__} has not; remove it")
        name = aliases.get(alias, "")
        if name not in own:
            continue  # a whole state dict may be given
        if not isinstance(v, Tensor):
            raise TypeError(f"SketchedModule: shift[{alias!r}] must be a tensor, got {v!r}")
        if v.shape != own[name].shape:
            raise ValueError(
                f"SketchedModule: shift[{alias!r}] must have shape {tuple(own[name].shape)}, got {tuple(v.shape)}; "
                "pass the tensor of the same parameter"
            )
        found[name] = v.detach().to(own[name]).clone()
    return found


__all__ = ["Shift", "found_shifts"]
