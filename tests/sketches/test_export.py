"""Pruned models: what is dropped is exactly zero, and shrink takes it out."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork import models
from openwork.sketches import Key, RandK, SketchedModule, export_submodel
from openwork.sketches.export import Rule


def conv() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)),
    )


NETWORKS: dict[str, tuple[nn.Module, Tensor]] = {
    "mlp": (models.mlp((6, 10, 8, 3)), torch.randn(5, 6)),
    "lenet5": (models.lenet5((6, 16)), torch.randn(2, 1, 28, 28)),
    "conv": (conv(), torch.randn(4, 1, 8, 8)),
}


def wrapped(name: str) -> tuple[SketchedModule, Tensor]:
    module, x = NETWORKS[name]
    return SketchedModule(
        module.double(), RandK(0.5), shift="zero", granularity="units", example_inputs=x.double()
    ), x.double()


@pytest.mark.parametrize("rule", ["random", "magnitude", "nested", "best_of"])
@pytest.mark.parametrize("name", NETWORKS)
def test_shrink_takes_out_what_was_dropped(name: str, rule: Rule) -> None:
    sketched, x = wrapped(name)
    batches = [(x, torch.zeros(len(x)))]
    small = export_submodel(sketched, 0.3, rule, n=2, evaluate=lambda m: float(m(x).detach().sum()), batches=batches)
    assert type(small) is type(sketched.module)
    shrunk = ow.shrink(small, x)
    widths = {width.name: (width.before, width.after) for width in shrunk.report.widths}
    for family in sketched.families:
        assert widths[family.name] == (family.size, RandK(0.3).kept(family.size))
    torch.testing.assert_close(shrunk.model.eval()(x), small(x), rtol=1e-10, atol=1e-10)


def test_random_masks_have_the_dense_model_as_their_mean() -> None:
    sketched, _ = wrapped("mlp")
    weights = [export_submodel(sketched, 0.25, key=Key(0, draw=at)).get_parameter("3.weight") for at in range(200)]
    stack = torch.stack([w.detach() for w in weights])
    dense = sketched.module.get_parameter("3.weight").detach()
    assert ((stack.mean(0) - dense).abs() <= 5 * stack.std(0) / len(stack) ** 0.5).all()
    assert ((stack == 0) | torch.isclose(stack, 10 / 3 * dense)).all()


def test_magnitude_keeps_the_largest_as_they_are() -> None:
    sketched, _ = wrapped("mlp")
    before = sketched.module.get_parameter("3.weight").detach()
    after = export_submodel(sketched, 0.4, "magnitude").get_parameter("3.weight")
    largest = before.norm(dim=0).topk(4).indices
    assert torch.equal(after[:, largest], before[:, largest])
    assert int(after.any(dim=0).sum()) == 4


def test_single_entries_fall_back_to_the_shift() -> None:
    module = models.mlp((4, 5, 2)).double()
    base = {name: x.detach().clone() for name, x in module.named_parameters()}
    sketched = SketchedModule(module, RandK(0.5))
    with torch.no_grad():
        for number, x in enumerate(module.parameters(), start=1):
            x += torch.arange(1.0, x.numel() + 1).view_as(x) / number
    after = export_submodel(sketched, 0.3, "magnitude")
    for name, x in after.named_parameters():
        moved = module.get_parameter(name) - base[name]
        changed = x != base[name]
        assert int(changed.sum()) == RandK(0.3).kept(x.numel())
        assert moved[changed].min() > moved[~changed].max()


def test_the_best_of_several_is_the_best() -> None:
    sketched, x = wrapped("mlp")

    def score(module: nn.Module) -> float:
        return float(module(x)[:, 0].detach().sum())

    each = [score(export_submodel(sketched, 0.5, key=Key(7, draw=at))) for at in range(9)]
    assert score(export_submodel(sketched, 0.5, "best_of", n=9, evaluate=score, key=Key(7))) == max(each)
    assert max(each) > min(each)


@pytest.mark.parametrize("rule", ["random", "magnitude", "nested"])
def test_a_ratio_of_one_is_the_dense_model(rule: Rule) -> None:
    sketched, x = wrapped("conv")
    whole = export_submodel(sketched, 1, rule)
    assert torch.equal(whole(x), sketched.module.eval()(x))
    whole.get_parameter("0.weight").data.zero_()
    assert sketched.module.get_parameter("0.weight").any()


def test_running_statistics_are_those_of_the_pruned_model() -> None:
    sketched, x = wrapped("conv")
    small = export_submodel(sketched, 0.5, batches=[(x, torch.zeros(4))])
    reached = deepcopy(small[:4]).train()(x).detach()  # pyright: ignore[reportIndexIssue]
    torch.testing.assert_close(small.get_buffer("4.running_mean"), reached.mean((0, 2, 3)))
    assert not torch.equal(small.get_buffer("4.running_mean"), sketched.module.get_buffer("4.running_mean"))


def test_bad_input() -> None:
    sketched, _ = wrapped("mlp")
    with pytest.raises(TypeError, match=r"^export_submodel: sketched must be a SketchedModule, got Sequential"):
        export_submodel(sketched.module, 0.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^export_submodel: a keep ratio must be above 0 and at most 1, got 0"):
        export_submodel(sketched, 0)
    with pytest.raises(ValueError, match=r"^export_submodel: rule must be one of .*'best_of', got 'worst'$"):
        export_submodel(sketched, 0.5, "worst")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^export_submodel: rule='best_of' needs evaluate, a number of a module"):
        export_submodel(sketched, 0.5, "best_of")
    with pytest.raises(ValueError, match=r"^export_submodel: n must be at least 1 mask, got 0$"):
        export_submodel(sketched, 0.5, "best_of", n=0, evaluate=lambda _: 0.0)
