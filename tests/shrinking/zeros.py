"""Models with exact zeros in them."""

import torch
from torch import Tensor, nn

from openwork.wiring import Side, Wiring


@torch.no_grad()
def zero_units(model: nn.Module, wiring: Wiring, side: Side, *, seed: int = 0) -> None:
    """Zero one side of half of the units of every coupling, at random; where it has none, the other side."""
    generator = torch.Generator().manual_seed(seed)
    for coupling in wiring.removable:
        other: Side = "producers" if side == "consumers" else "consumers"
        here = side if coupling.side(side) else other
        gone = torch.zeros(coupling.width, dtype=torch.float64)
        gone[torch.randperm(coupling.width, generator=generator)[: coupling.width // 2]] = 1
        for name, mask in coupling.spread(gone, here).items():
            model.get_parameter(name)[mask.bool()] = 0


@torch.no_grad()
def randomize(model: nn.Module) -> nn.Module:
    """Random weights and statistics everywhere, in evaluation mode."""
    for parameter in model.parameters():
        parameter.normal_(std=0.5)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.get_buffer("running_mean").normal_()
            module.get_buffer("running_var").uniform_(0.5, 2)
    return model.eval()


def double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
