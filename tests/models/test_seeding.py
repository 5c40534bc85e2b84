import pytest
import torch

from openwork import models

BUILDERS = [getattr(models, name) for name in models.__all__ if name not in ("GPT", "he_normal_")]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_weights_depend_on_the_seed_alone(build):
    free = {"zero_init": False} if build is models.logistic else {}
    torch.manual_seed(1)
    first = build(seed=3, **free)
    torch.manual_seed(2)
    assert same(first, build(seed=3, **free))
    assert not same(first, build(seed=4, **free))


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_building_leaves_the_global_random_state(build):
    before = torch.get_rng_state()
    build(seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_device_does_not_matter():
    with torch.device("meta"):
        model = models.lenet300(seed=3)
    assert same(model, models.lenet300(seed=3))
