"""Entries that a draw keeps, side by side."""

import pytest
import torch
from torch import nn

from openwork import models
from openwork.sketches import Bernoulli, Key, PermK, RandomProjection, SketchedModule
from openwork.sketches.ist import MaskedModel
from openwork.sketches.packing import add_, kept, packed, put_, trainable


def network(shift: str = "zero") -> SketchedModule:
    model = models.mlp([5, 6, 3]).double()
    example = torch.zeros(2, 5, dtype=torch.float64)
    return SketchedModule(
        *(model, PermK(3)), granularity="units", example_inputs=example, shift="zero" if shift == "zero" else "init"
    ).train()


@pytest.mark.parametrize("worker", range(3))
@pytest.mark.parametrize("shift", ["zero", "init"])
def test_all_gradients_are_where_a_draw_keeps_entries(shift: str, worker: int) -> None:
    torch.manual_seed(1)
    model = network(shift)
    x = torch.randn(40, 5, dtype=torch.float64)
    with model.draw(Key(4).at(worker=worker)):
        model(x).square().sum().backward()
    found = kept(model, Key(4).at(worker=worker))
    for name, p in trainable(model).items():
        at, gradient = found[name], p.grad
        assert gradient is not None
        inside = torch.zeros(p.numel(), dtype=torch.bool)
        inside[slice(None) if at is None else at] = True
        assert not gradient.flatten()[~inside].any()
    # A dropped unit that has the shift's weights is read, so that what writes it learns.
    rows = found["1.weight"]
    assert (rows is None) == (shift == "init")
    assert rows is None or len(rows) == 2 * 5


def test_packing_and_unpacking_are_inverse() -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.randn(5), "c": torch.randn(2, 2)}
    at = {"a": torch.tensor([0, 5, 11]), "b": None, "c": torch.tensor([], dtype=torch.int64)}
    values = packed(tensors, at)
    assert values.tolist() == [*tensors["a"].flatten()[[0, 5, 11]].tolist(), *tensors["b"].tolist()]

    blank = {name: torch.zeros_like(t) for name, t in tensors.items()}
    put_(blank, at, values)
    sums = {name: torch.zeros(t.shape) for name, t in tensors.items()}
    add_(sums, at, values)
    add_(sums, at, values)
    for name, t in blank.items():
        assert torch.equal(packed({name: t}, at), packed({name: tensors[name]}, at))
        assert torch.equal(sums[name], 2 * t)
    assert blank["a"].count_nonzero() == 3


def test_a_sketch_that_keeps_no_entries_is_refused() -> None:
    model = SketchedModule(nn.Linear(4, 2, bias=False), RandomProjection(3))
    with pytest.raises(ValueError, match=r"'weight': its sketch is a \w+, which keeps no entries to send"):
        kept(model, Key(0))


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("shift", ["init", "zero"])
def test_a_masked_model_computes_what_the_sketched_one_does_and_writes_back_its_weights(
    shift: str, scaled: bool
) -> None:
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    model = SketchedModule(whole, Bernoulli(0.5), shift="zero" if shift == "zero" else "init", scaled=scaled)
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(torch.randn_like(p))
    x = torch.randn(3, 4, dtype=torch.float64)
    key = Key(2)
    before = [p.detach().clone() for p in whole.parameters()]
    local = MaskedModel(model, key)
    with model.draw(key):
        assert torch.equal(local(x), model(x))
    assert sum(p.numel() for p in local.parameters()) < sum(p.numel() for p in whole.parameters())

    local.write_back_()
    for p, was in zip(whole.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), was, rtol=0, atol=1e-15)

    # A step of the local weights y moves x by it, divided by the scale 1 / p = 2.
    with torch.no_grad():
        for values in local.parameters():
            values += 1
    local.write_back_()
    moved = torch.cat([(p.detach() - was).flatten() for p, was in zip(whole.parameters(), before, strict=True)])
    masks = torch.cat(
        [m[0].apply(torch.ones_like(whole.get_parameter(n))).flatten() for n, m in model.sample(key).items()]
    )
    expected = torch.where(masks != 0, 0.5 if scaled else 1.0, 0.0).double()
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-15)
