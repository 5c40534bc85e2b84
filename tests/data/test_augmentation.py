import pytest
import torch

from openwork.data import Batches, CropFlip, Split
from openwork.data.generators import generator


def images(count: int = 64) -> torch.Tensor:
    return torch.rand((count, 3, 6, 5), generator=torch.Generator().manual_seed(0)) + 1


def candidates(image: torch.Tensor, padding: int) -> list[torch.Tensor]:
    """Every shift of an image, plain and mirrored, by loops."""
    channels, height, width = image.shape
    found = []
    for mirrored in (image, image.flip(2)):
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding)
        padded[:, padding : padding + height, padding : padding + width] = mirrored
        found += [
            padded[:, i : i + height, j : j + width] for i in range(2 * padding + 1) for j in range(2 * padding + 1)
        ]
    return found


def test_every_image_is_a_shift_of_itself_plain_or_mirrored():
    originals = images()
    changed = CropFlip(padding=2)(originals, generator(0))
    for before, after in zip(originals, changed, strict=True):
        assert any(torch.equal(after, candidate) for candidate in candidates(before, padding=2))


def test_every_shift_occurs_and_half_are_mirrored():
    image = images(1)
    changed = CropFlip(padding=1)(image.expand(4000, -1, -1, -1), generator(0))
    counts = [int((changed == c).flatten(1).all(dim=1).sum()) for c in candidates(image[0], padding=1)]
    assert sum(counts) == 4000
    assert min(counts) > 4000 / 18 * 0.7
    assert sum(counts[:9]) == pytest.approx(2000, abs=130)  # four standard deviations of a fair coin


def test_is_a_function_of_the_generator_and_spares_its_input():
    originals = images()
    before = originals.clone()
    assert torch.equal(CropFlip()(originals, generator(1)), CropFlip()(originals, generator(1)))
    assert not torch.equal(CropFlip()(originals, generator(1)), CropFlip()(originals, generator(2)))
    assert torch.equal(originals, before)


def test_serves_as_the_transform_of_batches():
    batches = Batches(Split(images(), torch.arange(64)), 16, transform=CropFlip(padding=1))
    one, two = (torch.cat([inputs for inputs, _ in batches.epoch(epoch)]) for epoch in (0, 0))
    assert torch.equal(one, two)
    assert one.shape == (64, 3, 6, 5)


def test_negative_padding_is_one_sentence():
    with pytest.raises(ValueError, match=r"^CropFlip: padding must be at least 0, got -1$"):
        CropFlip(-1)
