"""Where training begins: blocks in one piece or in chunks, as far as memory allows."""

from collections.abc import Sequence

from torch import Tensor

from openwork.altmin.blocks import Blocks
from openwork.altmin.chunks import ChunkedBlocks
from openwork.altmin.couplings import Coupling
from openwork.altmin.losses import OutputLoss
from openwork.altmin.network import Network
from openwork.altmin.orders import Visit
from openwork.altmin.samples import check_memory, check_memory_of_chunks, output_sizes
from openwork.altmin.sweep import WholeBlocks
from openwork.altmin.weight_block import WeightSolver


def start_blocks(
    place: str,
    network: Network,
    samples: tuple[Tensor, Tensor],
    loss: OutputLoss,
    mu: float,
    coupling: Coupling,
    weights: WeightSolver,
    visits: Sequence[Visit],
    multiplier: bool,
    chunk_size: int | None,
) -> Blocks:
    """Initialize every block by a forward pass from the model's weights.

    Args:
        place: For the message.
        network: The model.
        samples: Inputs and targets, checked.
        loss: Of the outputs.
        mu: Weight of ``mu/2 ||W||^2``.
        coupling: Between codes and activations.
        weights: How weights are updated.
        visits: Blocks of a sweep, in order.
        multiplier: Whether the link of the output has one.
        chunk_size: Samples at a time; None for all.

    Raises:
        MemoryError: If the blocks do not fit into memory.
    """
    parts = network, samples, loss, mu, coupling, weights
    x, sizes = samples[0], output_sizes(place, samples[0], network)
    if chunk_size is None:
        check_memory(place, x, sizes)
        return WholeBlocks.start(*parts, visits, multiplier)
    check_memory_of_chunks(place, x, sizes)
    return ChunkedBlocks.start(*parts, chunk_size)
