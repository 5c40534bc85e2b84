import torch

from openwork.data.generators import generator


def test_a_key_gives_the_same_numbers_and_another_key_others():
    def numbers(*key):
        return torch.rand(4, generator=generator(*key)).tolist()

    assert numbers("order", 1, 2) == numbers("order", 1, 2)
    others = [numbers("order", 2, 1), numbers("order", 12), numbers("order", 1), numbers("order", 1 + 2**32, 2)]
    assert len({tuple(x) for x in [numbers("order", 1, 2), *others]}) == 5
