"""Training with factors in the model: any optimizer, several processes, and what comes out of it."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, distributed, nn

import openwork as ow
from openwork.factorizations import (
    Entries,
    Initialization,
    Sampled,
    Split,
    UnitGate,
    collapse,
    factorization_of,
    factorize,
    param_groups,
)
from openwork.optim import FactorizedSGD
from tests.sketches.launch import forked


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def batches(steps: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(steps, size, 1, 6, 6, generator=generator, dtype=torch.float64)
    return [(batch, batch.flatten(1)[:, :3].argmax(dim=1)) for batch in x]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Sequence[tuple[Tensor, Tensor]], parts: int = 1):
    for x, y in data:
        optimizer.zero_grad()
        for inputs, labels in zip(x.chunk(parts), y.chunk(parts), strict=True):
            (nn.functional.cross_entropy(model(inputs), labels) / parts).backward()
        optimizer.step()


def values(model: nn.Module) -> dict[str, Tensor]:
    """Weights by their plain names, whether they are factorized or not."""
    handle = factorization_of(model)
    factorized = {part.name: part.value.detach() for block in handle.blocks for part in block.parts} if handle else {}
    plain = {name: p.detach() for name, p in model.named_parameters() if "parametrizations" not in name}
    return plain | factorized


@pytest.mark.parametrize(
    ("depth", "nesterov", "init"),
    [(2, True, Sampled()), (3, False, Sampled()), (3, True, UnitGate()), (4, True, Split()), (4, False, Sampled())],
    ids=str,
)
def test_factors_in_the_model_train_as_those_in_the_optimizer(depth: int, nesterov: bool, init: Initialization) -> None:
    lam, options = 0.003, {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov}
    model, other = network(), network()
    handle = factorize(model, depth, lam, form=Entries(init), generator=torch.Generator().manual_seed(2))
    in_model = torch.optim.SGD(handle.param_groups(), **options)
    in_optimizer = FactorizedSGD(
        param_groups(other, depth, lam), init=init, generator=torch.Generator().manual_seed(2), **options
    )
    for name, value in values(model).items():
        assert torch.equal(value, values(other)[name]), name
    start = {name: value.clone() for name, value in values(other).items()}
    data = batches(100)
    train(model, in_model, data, parts=4)
    train(other, in_optimizer, data, parts=4)
    for name, value in values(model).items():
        torch.testing.assert_close(value, values(other)[name], rtol=1e-12, atol=1e-12)
        # The bias in front of a batch normalization has no gradient.
        assert name == "0.bias" or not torch.allclose(value, start[name], rtol=0.01), name


def test_weight_decay_is_two_lam_over_depth() -> None:
    model = network()
    handle = factorize(model, 3, 0.03, depths={"4.*": 2}, lams={"6.weight": 0.3, "*.weight": 0.06, "0.weight": 0.03})
    found = {group["names"][0]: group["weight_decay"] for group in handle.param_groups()}
    assert found == pytest.approx(
        {
            "0.parametrizations.weight.original0": 2 * 0.03 / 3,
            "4.parametrizations.weight.original0": 2 * 0.06 / 2,
            "6.parametrizations.weight.original0": 2 * 0.06 / 3,
            "0.bias": 0.0,
        }
    )
    ids = [id(p) for group in handle.param_groups() for p in group["params"]]
    assert sorted(ids) == sorted(map(id, model.parameters()))
    same = param_groups(network(), 3, 0.03, depths={"4.*": 2}, lams={"*.weight": 0.06, "0.weight": 0.03})
    assert [(g["names"][0], g["depth"], g["lam"]) for g in same] == [  # pyright: ignore[reportIndexIssue]
        ("0.weight", 3, 0.03),
        ("4.weight", 2, 0.06),
        ("6.weight", 3, 0.06),
        ("0.bias", 1, 0.0),
    ]


@pytest.mark.slow
def test_adam_with_coupled_decay_has_the_same_minimum() -> None:
    """A diagonal least squares problem at depth 2: soft thresholding."""
    target = torch.tensor([[1.0, -0.7, 0.3, -0.12, 0.05, 0.0]], dtype=torch.float64)
    model = nn.Linear(6, 1, bias=False, dtype=torch.float64)
    handle = factorize(model, 2, 0.1, form=Entries(Split()))
    optimizer = torch.optim.Adam(handle.param_groups(), lr=0.02)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3000)
    for _ in range(3000):
        optimizer.zero_grad()
        ((model.weight - target).square().sum() / 2).backward()
        optimizer.step()
        scheduler.step()
    collapse(model)
    wanted = target.sign() * (target.abs() - 0.1).clamp(min=0)
    torch.testing.assert_close(model.weight.detach(), wanted, rtol=0, atol=1e-3)


def test_a_gradient_scaler_changes_nothing() -> None:
    found: list[dict[str, Tensor]] = []
    for scale in (1.0, 1024.0):
        for kind in ("model", "optimizer"):
            model = network()
            if kind == "model":
                handle = factorize(model, 3, 0.003, generator=torch.Generator().manual_seed(2))
                optimizer = torch.optim.SGD(handle.param_groups(), lr=0.02, momentum=0.9)
            else:
                groups = param_groups(model, 3, 0.003)
                optimizer = FactorizedSGD(groups, lr=0.02, generator=torch.Generator().manual_seed(2))
            scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
            for x, y in batches(5):
                optimizer.zero_grad()
                scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
                scaler.step(optimizer)
                scaler.update()
            # A step that it skips changes nothing.
            before = {name: value.clone() for name, value in values(model).items()}
            for p in model.parameters():
                p.grad = torch.full_like(p, torch.inf)
            scaler.scale(torch.ones(()))
            scaler.step(optimizer)
            assert all(torch.equal(before[name], value) for name, value in values(model).items())
            found.append(before)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


def trained(where: str, size: int, rank: int) -> list[Tensor]:
    """Weights after training, by each of ``size`` processes on its part of every batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    generator = torch.Generator().manual_seed(1)
    if where == "model":
        handle = factorize(model, 3, 0.01, generator=generator)
        optimizer: torch.optim.Optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1, momentum=0.9)
    else:
        optimizer = FactorizedSGD(param_groups(model, 3, 0.01), lr=0.1, generator=generator)
    net = model if size == 1 else nn.parallel.DistributedDataParallel(model)
    for batch in torch.randn(10, 8, 6, dtype=torch.float64):
        optimizer.zero_grad()
        net(batch.chunk(size)[rank]).sin().mean().backward()
        optimizer.step()
    return [layer.weight.detach() for layer in model.modules() if isinstance(layer, nn.Linear)]


def one_of_two(folder: Path) -> None:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    found = [[trained(where, 2, rank), trained(where, 1, 0)] for where in ("model", "optimizer")]
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    ended = forked(2, tmp_path, one_of_two, tmp_path)
    assert ended.codes == [0, 0], ended.said
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for (two, one), (same, _) in zip(*ranks, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-14)
        assert all(torch.equal(a, b) for a, b in zip(two, same, strict=True))


# -- what comes out -------------------------------------------------------------------------------------------------


def halves(model: nn.Sequential) -> None:
    """Make half of the units of the first layer, and some more entries, nearly zero."""
    handle = factorization_of(model)
    assert handle is not None
    with torch.no_grad():
        for block in handle.blocks:
            (part,) = block.parts
            for factor in part.factors:
                (factor[::2] if part.name == "0.weight" else factor[:, 1::4]).mul_(1e-3)


def test_collapsed_models_are_measured_and_shrunk() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))
    factorize(model, 3)
    halves(model)
    x = torch.randn(5, 6)
    report = collapse(model, 1e-7, x)
    assert report.nonzero == {"0.weight": 24, "2.weight": 18}
    assert report.total == {"0.weight": 48, "2.weight": 24}
    assert report.compression_ratio == pytest.approx(72 / 42)
    assert report.dead == ()
    assert report.sweep[1e-5] == pytest.approx(72 / 42)
    assert report.change is not None
    assert 0 <= report.change < 1e-6
    assert "72 weights => 42 nonzero, compression ratio 1.714" in str(report)
    assert ow.metrics.sparsity(model).unstructured == pytest.approx(30 / 75)
    shrunk = ow.shrink(model, x)
    assert tuple(shrunk.model.get_parameter("0.weight").shape) == (2, 6)
    torch.testing.assert_close(shrunk.model(x), model(x))


def test_a_threshold_of_everything_is_reported_as_dead() -> None:
    model = nn.Linear(4, 3)
    factorize(model)
    report = collapse(model, 1e9)
    assert report.dead == ("weight",)
    assert report.compression_ratio == float("inf")
    assert not model.weight.any()


def test_nothing_changes_to_the_eye_at_the_default_threshold() -> None:
    model = network().float()
    factorize(model, 4, 0.1)
    x = torch.randn(3, 1, 6, 6)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(torch.rand_like(p).pow(4))
    report = collapse(model, example_inputs=x)
    assert report.compression_ratio > 1
    assert report.change is not None
    assert report.change < 1e-5


def test_collapse_leaves_the_state_of_the_model_alone() -> None:
    model = network()
    factorize(model)
    model.train()
    model[1].eval()
    for p in model[4].parameters():
        p.requires_grad_(False)
    buffers, random = copy.deepcopy(dict(model.named_buffers())), torch.get_rng_state()
    collapse(model, example_inputs=torch.randn(2, 1, 6, 6, dtype=torch.float64, generator=torch.Generator()))
    assert [module.training for module in model] == [True, False, *[True] * 5]
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), random)
    assert [p.requires_grad for p in model.parameters()] == [True] * 4 + [False] * 2 + [True] * 2


class Gives(nn.Module):
    """A layer whose outputs come in another form."""

    def __init__(self, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(4, 3), form

    def forward(self, x: Tensor) -> object:
        return self.form(self.layer(x))


def test_outputs_of_all_kinds_are_measured_or_refused() -> None:
    x = torch.randn(5, 4)
    infinite = torch.tensor(float("-inf"))
    for form, change in ((lambda y: (y[:0], y * 0 == 0), 0.0), (lambda y: (infinite, infinite + y * 0), 0.0)):
        model = Gives(form)
        factorize(model)
        assert collapse(model, 1e9, x).change == change
    model = Gives(lambda y: SimpleNamespace(logits=y))
    factorize(model)
    with pytest.raises(ValueError, match="Gives gives a SimpleNamespace, in which no tensor is found"):
        collapse(model, 1e9, x)
    assert factorization_of(model) is not None


def test_what_is_collapsed_in_inference_mode_can_be_trained() -> None:
    model = nn.Linear(4, 3)
    factorize(model)
    with torch.inference_mode():
        collapse(model, example_inputs=torch.randn(2, 4))
    model(torch.randn(2, 4)).sum().backward()
    assert model.weight.grad is not None


def test_assigning_a_weight_splits_it() -> None:
    model = nn.Linear(4, 3)
    factorize(model, 4)
    weight = torch.randn(3, 4)
    model.weight = weight  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(model.weight, weight)


def test_a_hundred_layers_are_factorized_at_once() -> None:
    """Neither the number of layers nor their size makes it slow: no product is split that starts anew."""
    calls = 0
    original = Split.factors

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(100)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "factors", counted)
        handle = factorize(model)
    assert len(handle.blocks) == 100
    assert calls == 0
