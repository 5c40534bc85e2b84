"""Runs of the baselines: budget, learning rate, density, reports, and that they go on from their state."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW

import openwork as ow
from openwork.baselines import (
    ACDC,
    SET,
    SNIP,
    Baseline,
    Dense,
    GradualMagnitudePruning,
    LotteryTicket,
    MagnitudePruning,
    RandomPruning,
    RigL,
    Subgradient,
    SynFlow,
)
from openwork.data import Data, Split
from openwork.optim import RMDA, regularize
from openwork.penalties import L1, GroupLasso
from openwork.training import Metrics, Run, fit, pruned

# 8 x 16 + 16 x 3 weights.
TOTAL = 176
METHODS: dict[str, Baseline] = {
    "dense": Dense(),
    "magnitude": MagnitudePruning(0.3),
    "finetuned": MagnitudePruning(0.3, finetune=0.4),
    "gradual": GradualMagnitudePruning(0.3, every=4),
    "random": RandomPruning(0.3),
    "snip": SNIP(0.3),
    "synflow": SynFlow(0.3, iterations=10),
    "set": SET(0.3),
    "rigl": RigL(0.3, every=5),
    "acdc": ACDC(0.3),
    "lottery": LotteryTicket(0.3, rewind=2),
    "subgradient": Subgradient(L1(1e-3), density=0.3),
}


def blobs() -> Data:
    """Three classes in eight dimensions, of which the last five are noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(156) % 3
    inputs = torch.randn(156, 8, generator=generator)
    inputs[torch.arange(156), labels] += 3
    first, second, third = (Split(inputs[a:b], labels[a:b]) for a, b in ((0, 96), (96, 126), (126, 156)))
    return Data("blobs", first, second, third, classes=3)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))


def run_of(baseline: Baseline, epochs: int = 8, schedule: str = "cosine", **options: object) -> Run:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    return pruned(
        model,
        cross_entropy,
        optimizer,
        baseline,
        data=blobs(),
        epochs=epochs,
        batch_size=16,
        schedule=schedule,  # pyright: ignore[reportArgumentType]
        augment=lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g),
        **options,  # pyright: ignore[reportArgumentType]
    )


def reports(run: Run) -> list[Metrics]:
    return [run.advance(run.period) for _ in range(run.units // run.period)]


def number(metrics: Metrics, key: str) -> float:
    value = metrics[key]
    assert isinstance(value, int | float)
    return value


def zeros(module: nn.Module) -> int:
    return sum(int((p == 0).sum()) for name, p in module.named_parameters() if p.ndim > 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_within_its_budget_and_meets_its_density(method: str) -> None:
    run = run_of(METHODS[method])
    assert (run.units, run.period) == (48, 6)
    found = reports(run)
    density = METHODS[method].density
    alive = round(density * TOTAL)
    assert [report["unit"] for report in found] == list(range(6, 49, 6))
    assert not [key for report in found for key in report if "test" in key]
    module = run.finish()
    final = run.evaluate(module)
    assert module is run.model
    assert not module.training
    assert final["density"] == alive / TOTAL
    # Connections of SET and RigL that were grown last may still be at zero.
    assert TOTAL - zeros(module) <= alive
    assert TOTAL - zeros(module) > 0.8 * alive
    assert number(final, "group_sparsity") == pytest.approx(zeros(module) / TOTAL)
    assert ow.metrics.sparsity(module).unstructured == final["unstructured_sparsity"]
    # The last report said what would be handed over.
    assert number(final, "valid_loss") == pytest.approx(number(found[-1], "structured_valid_loss"), rel=1e-5)
    assert number(final, "test_accuracy") > 0.45


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [0, 29])
def test_a_run_goes_on_from_its_state(method: str, stop: int) -> None:
    torch.manual_seed(1)
    random, file = torch.get_rng_state(), BytesIO()
    whole = run_of(METHODS[method])
    torch.set_rng_state(random)
    expected: list[Metrics] = []
    for unit in range(whole.units):
        if unit == stop:
            torch.save(whole.state_dict(), file)
            random = torch.get_rng_state()
        if (report := whole.advance(1)) and unit >= stop:
            expected.append(report)
    whole.finish()
    again = run_of(METHODS[method])
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    torch.set_rng_state(random)
    found = [report for _ in range(stop, again.units) if (report := again.advance(1))]
    again.finish()
    assert found == expected
    assert again.evaluate(again.model) == whole.evaluate(whole.model)
    states = (again.model.state_dict().values(), whole.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("units", [0, 20])
def test_a_run_that_ends_early_has_its_density(method: str, units: int) -> None:
    run = run_of(METHODS[method])
    for _ in range(units):
        run.advance(1)
    run.finish()
    assert run.evaluate(run.model)["density"] == round(METHODS[method].density * TOTAL) / TOTAL


def rates(baseline: Baseline, epochs: int, **options: object) -> list[float]:
    """The learning rate of every step."""
    model = network()
    optimizer, seen = SGD(model.parameters(), lr=0.1), list[float]()
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    run = pruned(model, cross_entropy, optimizer, baseline, data=blobs(), epochs=epochs, batch_size=16, **options)  # pyright: ignore
    reports(run)
    return seen


def test_the_learning_rate_of_one_training_is_the_schedules() -> None:
    expected = [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert rates(RandomPruning(0.5), 6, milestones=[2, 4]) == pytest.approx([r for r in expected for _ in range(6)])
    model = network()
    optimizer, seen = SGD(model.parameters(), lr=0.1), list[float]()
    optimizer.register_step_post_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    reports(
        ow.training.supervised(
            model, cross_entropy, optimizer, data=blobs(), epochs=4, batch_size=16, schedule="cosine", warmup=1
        )
    )
    assert rates(Dense(), 4, schedule="cosine", warmup=1) == pytest.approx(seen)


def test_finetuning_and_rounds_go_through_the_schedule_again() -> None:
    found = rates(MagnitudePruning(0.5, finetune=0.25), 8, milestones=[4])
    assert found == pytest.approx([0.1] * 18 + [0.01] * 18 + [0.01] * 6 + [0.001] * 6)
    # 36 steps are three trainings of 12, each with half of its steps before the milestone.
    found = rates(LotteryTicket(0.64), 6, milestones=[3])
    assert found == pytest.approx(([0.1] * 6 + [0.01] * 6) * 3)
    # From step 6 on: three of 10 steps, which end a training of 16 in the middle of whose 8th step is the milestone.
    found = rates(LotteryTicket(0.64, rewind=6), 6, milestones=[3])
    assert found == pytest.approx([0.1] * 8 + [0.01] * 8 + ([0.1] * 2 + [0.01] * 8) * 2)


def test_reports_show_the_weights_and_what_would_be_handed_over() -> None:
    run = run_of(MagnitudePruning(0.1))
    first = run.advance(run.period)
    assert first["density"] == 1.0
    assert number(first, "structured_valid_loss") > number(first, "valid_loss")
    # Nothing is zero in the weights, and the numbers of zeros are those of what would be handed over.
    assert zeros(run.model) == 0
    assert number(first, "group_sparsity") == pytest.approx(1 - 18 / TOTAL)


def test_only_what_is_included_is_pruned() -> None:
    run = run_of(RandomPruning(0.25), include="0")
    reports(run)
    weights = dict(run.finish().named_parameters())
    assert int((weights["0.weight"] != 0).sum()) == 32
    assert bool((weights["4.weight"] != 0).all())
    run = run_of(RandomPruning(0.25), exclude="0.weight")
    reports(run)
    assert bool((run.finish().get_parameter("0.weight") != 0).all())


@pytest.mark.parametrize("method", ["synflow", "finetuned", "rigl"])
def test_the_result_can_be_shrunk(method: str) -> None:
    """At a few weights many hidden units read nothing or are read by nothing, and go."""
    tight: dict[str, Baseline] = {
        "synflow": SynFlow(0.08),
        "finetuned": MagnitudePruning(0.08, finetune=0.4),
        "rigl": RigL(0.08, every=5),
    }
    run = run_of(tight[method], epochs=12)
    reports(run)
    module = run.finish()
    small = ow.shrink(module, run.example).model
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in module.parameters())
    inputs = blobs().test.inputs
    torch.testing.assert_close(small(inputs), module(inputs))
    assert "test_accuracy" in run.evaluate(small)


def test_gradients_that_count_are_clipped() -> None:
    model = network()
    optimizer, norms = SGD(model.parameters(), lr=0.1), list[float]()
    run = pruned(model, cross_entropy, optimizer, RigL(0.2, every=4), data=blobs(), epochs=3, batch_size=16, clip=0.05)
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(sum(p.grad.square().sum() for p in model.parameters() if p.grad is not None)))
    )
    reports(run)
    # RigL changes masks, and no weight, in steps 4, 8 and 12 of 18.
    assert norms == pytest.approx([0.0 if t in (4, 8, 12) else 0.0025 for t in range(1, 19)], rel=1e-3)


def test_another_optimizer_and_a_folder(tmp_path: Path) -> None:
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.01)
    run = pruned(model, cross_entropy, optimizer, RigL(0.3, every=4), data=blobs(), epochs=4, batch_size=16)
    final = fit(run, tmp_path, progress=False)
    assert final["density"] == round(0.3 * TOTAL) / TOTAL
    assert (tmp_path / "checkpoint.pt").exists()


def test_half_precision_forward() -> None:
    model = network()
    kinds: set[torch.dtype] = set()
    model[0].register_forward_hook(lambda _, __, y: kinds.add(y.dtype) if model.training else None)
    optimizer = SGD(model.parameters(), lr=0.1)
    run = pruned(
        model, cross_entropy, optimizer, RandomPruning(0.3), data=blobs(), epochs=2, batch_size=16, precision="bf16"
    )
    reports(run)
    assert kinds == {torch.bfloat16}
    assert zeros(run.finish()) == TOTAL - 53


# -- bad input ------------------------------------------------------------------------------------------------------


def test_an_optimizer_that_makes_zeros_itself_is_refused() -> None:
    model = network()
    optimizer = RMDA(regularize(model, GroupLasso(1e-3)), lr=0.1)
    with pytest.raises(
        TypeError, match="pruned: RMDA makes zeros of its own, which masks would mix with; take an optim"
    ):
        pruned(model, cross_entropy, optimizer, SNIP(0.5), data=blobs(), epochs=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: run_of(RigL(0.3), epochs=2),
            "RigL: every=100 leaves no change of the masks before step T_end = 9 of 12",
        ),
        (
            lambda: run_of(LotteryTicket(0.01), epochs=2),
            "LotteryTicket: density=0.01 takes 22 trainings of at least one",
        ),
        (lambda: run_of(Dense(), epochs=0), "epochs must be a positive integer, got 0"),
        (
            lambda: run_of(Dense(), precision="fp16"),
            "pruned: precision='fp16' leaves out steps, which masks count; take",
        ),
        (lambda: run_of(Dense(), clip=0.0), r"pruned: clip must be above 0, got 0\.0; leave it out for no clipping"),
        (lambda: run_of(Dense(), include="5"), "Masks: include '5' matches no parameter of Sequential; nearest are"),
        (lambda: run_of(Dense(), include="1"), "Masks: Sequential has no weight left to prune; only weights of linear"),
    ],
)
def test_wrong_options_are_named(make: Callable[[], Run], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_masks_of_another_run_are_refused() -> None:
    state = run_of(RandomPruning(0.3)).state_dict()
    other = run_of(RandomPruning(0.3), include="0")
    with pytest.raises(
        ValueError, match=r"RandomPruning: the state has masks of 0\.weight, 4\.weight, and the model has 0"
    ):
        other.load_state_dict(state)


def test_diverged_weights_are_said() -> None:
    run = run_of(MagnitudePruning(0.3))
    run.advance(1)
    with torch.no_grad():
        run.model.get_parameter("0.weight")[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"the scores of '0\.weight' are not finite, so nothing can be chosen by them"):
        run.finish()


def tensors_of(run: Run) -> list[Tensor]:
    return [p.detach().clone() for p in run.model.parameters()]


def test_the_dense_baseline_is_supervised_training() -> None:
    ours = run_of(Dense(), schedule="stages")
    model = network()
    theirs = ow.training.supervised(
        model,
        cross_entropy,
        SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
        data=blobs(),
        epochs=8,
        batch_size=16,
        augment=lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g),
    )
    for run in (ours, theirs):
        torch.manual_seed(3)
        reports(run)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(ours), tensors_of(theirs), strict=True))
