"""Changes of a batch of images that leave its labels true."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class CropFlip:
    """Shift each image at random and mirror it with probability one half.

    The image is padded with zeros on every side, which is the mean colour once pixels are standardized, and cut back
    to its size anywhere: the usual augmentation of CIFAR. A ``Transform`` for ``Batches``.

    Args:
        padding: Pixels on every side, at least 0.

    Raises:
        ValueError: If ``padding`` is negative.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"CropFlip: padding must be at least 0, got {self.padding}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Changed images, a new tensor.

        Args:
            images: ``(N, C, H, W)`` on any device.
            generator: On the CPU, so that every device sees the same changes.
        """
        count, channels, height, width = images.shape
        shifts = torch.randint(2 * self.padding + 1, (2, count, 1), generator=generator)
        mirrored = torch.rand((count, 1), generator=generator) < 0.5
        rows = shifts[0] + torch.arange(height)
        columns = shifts[1] + torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width))
        # Flat places in the padded image, so that one gather does what a loop over images would.
        places = rows.unsqueeze(2) * (width + 2 * self.padding) + columns.unsqueeze(1)
        places = places.reshape(count, 1, -1).to(images.device).expand(-1, channels, -1)
        return pad(images, [self.padding] * 4).flatten(2).gather(2, places).reshape(images.shape)
