"""A module whose output is known before it runs."""

from torch import Tensor, nn


class Constant(nn.Module):
    """One number per channel, whatever the input is.

    The output is shaped like the input, with ``len(values)`` channels, and every stride-th position of the dimensions
    after them. It takes no memory: all positions of a channel are one number, so nothing may be written into it.

    Args:
        values: The numbers, shape ``(channels,)``.
        dim: Dimension of the channels in the input and in the output.
        stride: How many positions of the input there are to one of the output, > 0; what is left over counts as one.

    Raises:
        ValueError: If ``values`` is no vector.
    """

    values: Tensor

    def __init__(self, values: Tensor, dim: int = -1, stride: int = 1) -> None:
        super().__init__()
        if values.ndim != 1:
            raise ValueError(
                f"Constant: values must have shape (channels,), got {tuple(values.shape)}; pass one number per channel"
            )
        self.register_buffer("values", values)
        self.dim = dim
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """The constant.

        Args:
            x: Any tensor that has dimension ``dim``; only its shape matters.

        Returns:
            A tensor of that shape, with as many channels as there are values.
        """
        dim = self.dim % x.dim()
        positions = [-(-size // self.stride) for size in x.shape[dim + 1 :]]
        return self.values.view(-1, *[1] * len(positions)).expand(*x.shape[:dim], -1, *positions)

    def extra_repr(self) -> str:
        """Number of channels and where they are."""
        return f"{len(self.values)}, dim={self.dim}" + (f", stride={self.stride}" if self.stride > 1 else "")


__all__ = ["Constant"]
