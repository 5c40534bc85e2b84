"""Samples as a user hands them over: what is refused before anything is changed."""

import os
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.forward_pass import first_line

# Codes, residuals, histories, products and what a block needs in between, in copies of all layers' outputs.
COPIES = 10
# Checked at a time.
ROWS = 1 << 14


def check_samples(place: str, x: object, y: object, network: Network, loss: OutputLoss) -> tuple[Tensor, Tensor]:
    """Refuse samples that cannot be trained on.

    Args:
        place: Where they came in, for the message.
        x: Inputs; on the device of the model, unless it reads them in parts.
        y: Targets, on the device of the inputs.
        network: The model.
        loss: Of its outputs.

    Returns:
        Both, as tensors.

    Raises:
        TypeError: If they are no tensors, or of another kind of numbers than the model.
        ValueError: If there are none, not as many of one as of the other, or a number is not finite.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise TypeError(f"{place}: X and y must be tensors, got {type(x).__name__} and {type(y).__name__}")
    if not x.layout == y.layout == torch.strided:
        raise TypeError(f"{place}: X and y must be dense, got {x.layout} and {y.layout}; use to_dense()")
    if x.ndim < 2 or x.shape[0] == 0:
        raise ValueError(f"{place}: X must hold at least one sample as a row, got a tensor of shape {tuple(x.shape)}")
    if y.ndim < 1 or y.shape[0] != x.shape[0]:
        raise ValueError(
            f"{place}: {x.shape[0]} samples have targets of shape {tuple(y.shape)}; give each sample one target"
        )
    weight = network.links[0].weight
    if x.dtype != weight.dtype or (x.device != weight.device and network.rows is None):
        raise TypeError(
            f"{place}: X is {x.dtype} on {x.device}, the model's weights {weight.dtype} on {weight.device}; "
            "bring both to one kind with X.to(...)"
        )
    if y.device != x.device:
        raise TypeError(f"{place}: y is on {y.device}, X on {x.device}; bring both to one device with y.to(...)")
    for name, tensor in (("X", x), ("y", y)):
        if not all(part.isfinite().all() for part in tensor.split(ROWS)):
            raise ValueError(f"{place}: {name} has entries that are NaN or infinite; remove or replace them")
    outputs = output_sizes(place, x, network)[-1]
    if len(outputs) != 1:
        raise ValueError(
            f"{place}: the model gives outputs of shape {tuple(outputs)} per sample, and losses read rows of numbers; "
            "end it with Flatten and a Linear layer"
        )
    loss.check(y, outputs[0], x.shape[0])
    return x, y


def check_validation(
    place: str, validation: tuple[object, object] | None, network: Network, loss: OutputLoss
) -> tuple[Tensor, Tensor] | None:
    """Refuse samples that weights cannot be chosen by; see ``check_samples``.

    Args:
        place: Where they came in, for the message.
        validation: Inputs and targets, or None.
        network: The model.
        loss: Of its outputs.

    Raises:
        TypeError: If it is no pair, or see there.
        ValueError: See there.
    """
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise TypeError(f"{place}: validation must be a pair (X, y) or None, got {type(validation).__name__}")
    x, y = validation
    return check_samples(f"{place} (validation)", x, y, network, loss)


def checksum(*tensors: Tensor) -> int:
    """A number that tells whether the numbers in tensors are still the same, at the cost of reading them once.

    Args:
        tensors: With one dimension or more.
    """
    found = 0
    for tensor in tensors:
        for part in tensor.detach().split(ROWS):
            found = crc32(part.cpu().contiguous().view(torch.uint8).numpy().tobytes(), found)
    return found


def output_sizes(place: str, x: Tensor, network: Network) -> list[torch.Size]:
    """Shapes of all layers' outputs for one sample.

    Args:
        place: For the message.
        x: Inputs.
        network: The model.

    Raises:
        ValueError: If the samples do not fit the first layer.
    """
    sizes: list[torch.Size] = []
    a = x[:1].to(network.device)
    for index, link in enumerate(network.links):
        try:
            z = link.bias_add(link.forward(a))
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{place}: layer {index + 1} does not take inputs of shape {tuple(a.shape[1:])} per sample: "
                f"{first_line(error)}; pass X in the shape that the model takes"
            ) from error
        sizes.append(z.shape[1:])
        a = network.activations[index].forward(z) if index < len(network.activations) else z
    return sizes


def _needed_and_free(
    x: Tensor, sizes: Sequence[torch.Size], copies: int, available: int | None
) -> tuple[int, int | None]:
    """Bytes of so many copies of all layers' outputs, and those that are free where the samples are, if known."""
    free = free_bytes(x.device) if available is None else available
    return copies * x.shape[0] * sum(prod(size) for size in sizes) * x.element_size(), free


def check_memory(place: str, x: Tensor, sizes: Sequence[torch.Size], available: int | None = None) -> None:
    """Refuse samples whose blocks do not fit into memory.

    Args:
        place: For the message.
        x: Inputs.
        sizes: Shapes of all layers' outputs for one sample.
        available: Bytes that are free; None to ask the system.

    Raises:
        MemoryError: If more is needed than there is.
    """
    # Where chunks would not fit either, they are not offered.
    check_memory_of_chunks(place, x, sizes, available)
    needed, free = _needed_and_free(x, sizes, COPIES, available)
    if free is not None and needed > free:
        raise MemoryError(
            f"{place}: the blocks of {x.shape[0]} samples need about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are "
            f"free; pass chunk_size={max(1, int(x.shape[0] * free / needed))} or less"
        )


def check_memory_of_chunks(place: str, x: Tensor, sizes: Sequence[torch.Size], available: int | None = None) -> None:
    """Refuse samples whose blocks z do not fit where the samples are.

    Args:
        place: For the message.
        x: Inputs.
        sizes: Shapes of all layers' outputs for one sample.
        available: Bytes that are free; None to ask the system.

    Raises:
        MemoryError: If more is needed than there is.
    """
    # Now, before, and while a sweep may still be taken back.
    needed, free = _needed_and_free(x, sizes, 3, available)
    if free is not None and needed > free:
        raise MemoryError(
            f"{place}: the blocks z of {x.shape[0]} samples need about {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB "
            "are free; keep X where there is more memory, or train on mini-batches by partial_fit"
        )


def free_bytes(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where nobody knows."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if device.type == "cpu" and meminfo.exists():
        # Files that the system caches give way, so that free pages alone are too few.
        found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    if device.type != "cpu" or not hasattr(os, "sysconf") or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
