"""The common run: what it reports, and that each option does what it says."""

from io import BytesIO
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD

from openwork.data import Batches, Data, Split
from openwork.optim import RAMDA, RMDA, ProximalOptimizer, Stages, regularize
from openwork.penalties import GroupLasso, NuclearNorm
from openwork.training import Metrics, Run, supervised

REPORTED = {
    "unit",
    "epoch",
    "train_loss",
    "lr",
    "averaging",
    "valid_loss",
    "valid_accuracy",
    "structured_valid_loss",
    "structured_valid_accuracy",
    "unstructured_sparsity",
    "group_sparsity",
    "weighted_group_sparsity",
    "params",
    "nonzero_params",
    "layers",
    "alive",
    "total",
    "residual",
    "steps_unchanged",
    "skipped",
}


def blobs(dtype: torch.dtype = torch.float32, train: int = 96) -> Data:
    """Three classes in eight dimensions, of which the last five are noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(train + 60) % 3
    inputs = torch.randn(train + 60, 8, generator=generator, dtype=dtype)
    inputs[torch.arange(train + 60), labels] += 3
    ends = ((0, train), (train, train + 30), (train + 30, train + 60))
    first, second, third = (Split(inputs[a:b], labels[a:b]) for a, b in ends)
    return Data("blobs", first, second, third, classes=3)


def network(*middle: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), *middle, nn.ReLU(), nn.Linear(16, 3)).to(dtype)


def rmda(model: nn.Module, lam: float = 0.01, averaging: float = 0.5, lr: float = 0.2) -> RMDA:
    return RMDA(regularize(model, GroupLasso(lam)), lr=lr, averaging=averaging)


def epochs(run: Run, count: int | None = None) -> list[Metrics]:
    """Reports of that many epochs, or of all."""
    left = run.units // run.period if count is None else count
    return [run.advance(run.period) for _ in range(left)]


def number(metrics: Metrics, key: str) -> float:
    value = metrics[key]
    assert isinstance(value, int | float)
    return value


# -- reports --------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_both_weights_are_reported() -> None:
    model = network()
    run = supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=6, batch_size=32, milestones=[3])
    reports = epochs(run)
    assert set(reports[0]) == REPORTED
    assert [r["epoch"] for r in reports] == [1, 2, 3, 4, 5, 6]
    assert [r["unit"] for r in reports] == [3, 6, 9, 12, 15, 18]
    assert number(reports[-1], "train_loss") < 0.5 * number(reports[0], "train_loss")
    assert [round(number(r, "lr"), 6) for r in reports] == [0.2] * 3 + [0.02] * 3
    assert number(reports[0], "averaging") == 0.5
    assert number(reports[-1], "averaging") == 1


def test_the_test_samples_are_only_looked_at_in_the_end() -> None:
    model = network()
    run = supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=3, batch_size=32)
    reports = epochs(run)
    assert not [key for report in reports for key in report if "test" in key]
    run.finish()
    final = run.evaluate(run.model)
    assert {"test_loss", "test_accuracy", "valid_loss", "group_sparsity", "layers"} <= set(final)
    assert not [key for key in final if key.startswith("structured")]


def test_reports_are_of_the_weights_and_of_the_structured_weights() -> None:
    model = network()
    optimizer = rmda(model, lam=0.05, averaging=0.1)
    run = supervised(model, cross_entropy, optimizer, data=blobs(), epochs=40, batch_size=32)
    report = run.advance(run.period)
    valid = blobs().valid
    model.eval().requires_grad_(False)
    assert number(report, "valid_loss") == pytest.approx(float(cross_entropy(model(valid.inputs), valid.targets)))
    with optimizer.structured():
        loss = float(cross_entropy(model(valid.inputs), valid.targets))
        zeros = sum(int((p == 0).sum()) for p in model.parameters()) / sum(p.numel() for p in model.parameters())
    assert number(report, "structured_valid_loss") == pytest.approx(loss)
    assert number(report, "unstructured_sparsity") == pytest.approx(zeros)
    assert report["structured_valid_loss"] != report["valid_loss"]


def test_it_trains_as_a_bare_loop_does_to_the_bit() -> None:
    reported, plain = network(nn.BatchNorm1d(16)), network(nn.BatchNorm1d(16))
    epochs(supervised(reported, cross_entropy, rmda(reported), data=blobs(), epochs=5, batch_size=32, seed=7))
    optimizer, batches = rmda(plain), Batches(blobs().train, 32, seed=7)
    stages = Stages(optimizer, [])
    for inputs, targets in (batch for epoch in range(5) for batch in batches.epoch(epoch)):
        cross_entropy(plain(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert stages.state_dict()["position"] == 15
    states = (reported.state_dict().values(), plain.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_finish_hands_over_exact_zeros_and_their_numbers() -> None:
    model = network()
    run = supervised(model, cross_entropy, rmda(model, lam=0.03), data=blobs(), epochs=20, batch_size=32)
    last = epochs(run)[-1]
    module = run.finish()
    final = run.evaluate(run.model)
    assert not module.training
    alive = sum(int((p != 0).any(0).sum()) for p in module.parameters() if p.ndim == 2)
    assert 0 < alive < 24
    assert final["alive"] == alive == last["alive"]
    assert final["valid_loss"] == pytest.approx(last["structured_valid_loss"])


def test_a_low_rank_is_reported() -> None:
    model = network()
    optimizer = RMDA(regularize(model, NuclearNorm(0.2)), lr=0.2, averaging=0.5)
    run = supervised(model, cross_entropy, optimizer, data=blobs(), epochs=10, batch_size=32)
    last = epochs(run)[-1]
    run.finish()
    assert 0 < number(last, "low_rank_level") < 1
    assert run.evaluate(run.model)["low_rank_level"] == last["low_rank_level"]
    assert "group_sparsity" not in last


def test_a_task_without_classes_reports_losses_only() -> None:
    samples = Split(torch.randn(40, 8), torch.randn(40, 3))
    data = Data("plane", samples, samples, samples, classes=0)
    model = network()
    run = supervised(model, nn.functional.mse_loss, rmda(model), data=data, epochs=4, batch_size=16)
    last = epochs(run)[-1]
    run.finish()
    assert {"valid_loss", "structured_valid_loss"} <= set(last)
    assert not [key for key in {**last, **run.evaluate(run.model)} if "accuracy" in key]


def test_without_validation_samples_none_are_reported() -> None:
    data = blobs()
    data = Data("blobs", data.train, data.train.none(), data.test, classes=3)
    model = network()
    run = supervised(model, cross_entropy, rmda(model), data=data, epochs=4, batch_size=16)
    last = epochs(run)[-1]
    assert not [key for key in last if "valid" in key]
    run.finish()
    assert "test_accuracy" in run.evaluate(run.model)


# -- options --------------------------------------------------------------------------------------------------------


def weights_after(**options: object) -> list[Tensor]:
    """Weights after three epochs in float64, clipped, accumulated and so on."""
    model = network(dtype=torch.float64)
    data = blobs(torch.float64)
    run = supervised(model, cross_entropy, rmda(model), data=data, epochs=3, **options)  # pyright: ignore
    epochs(run)
    return [p.detach() for p in model.parameters()]


def test_accumulated_batches_equal_one_large_batch() -> None:
    large, small = weights_after(batch_size=32), weights_after(batch_size=8, accumulate=4)
    for a, b in zip(large, small, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_last_step_may_have_fewer_batches() -> None:
    model = network()
    run = supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=2, batch_size=16, accumulate=4)
    reports = epochs(run)
    assert run.period == 2  # six batches
    assert [r["unit"] for r in reports] == [2, 4]
    assert 0 < number(reports[1], "train_loss") < number(reports[0], "train_loss") < 3


def test_gradients_are_clipped() -> None:
    norms: list[float] = []
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(
        lambda *_: norms.append(float(torch.stack([cast("Tensor", p.grad).norm() for p in model.parameters()]).norm()))
    )
    epochs(supervised(model, cross_entropy, optimizer, data=blobs(), epochs=2, batch_size=32, clip=0.05))
    assert max(norms) == pytest.approx(0.05, rel=1e-4)


def test_another_optimizer_decays_at_milestones() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    run = supervised(model, cross_entropy, optimizer, data=blobs(), epochs=6, batch_size=32, milestones=[2, 4])
    reports = epochs(run)
    assert [round(number(r, "lr"), 6) for r in reports] == [0.1, 0.01, 0.01, 0.001, 0.001, 0.001]
    assert number(reports[-1], "train_loss") < number(reports[0], "train_loss")
    assert not [key for key in reports[-1] if key.startswith("structured") or key in ("alive", "averaging")]
    module = run.finish()
    assert module is model
    assert run.evaluate(run.model)["unstructured_sparsity"] == 0


def test_half_precision_forward_leaves_a_plain_module() -> None:
    model = network()
    kinds: set[torch.dtype] = set()
    model[0].register_forward_hook(lambda _, __, y: kinds.add(y.dtype) if model.training else None)
    run = supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=4, batch_size=32, precision="bf16")
    reports = epochs(run)
    assert kinds == {torch.bfloat16}
    assert number(reports[-1], "train_loss") < number(reports[0], "train_loss")
    module = run.finish()
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert "forward" not in vars(module)
    assert module(run.example).dtype == torch.float32


def test_a_second_precision_in_one_process_is_refused() -> None:
    model = network()
    supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=4)
    with pytest.raises(
        ValueError,
        match="supervised: precision='bf16' differs from that of an earlier run of this process; give each precision",
    ):
        supervised(model, cross_entropy, rmda(model), data=blobs(), epochs=4, precision="bf16")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"accumulate": 0}, "accumulate must be a positive integer, got 0"),
        ({"clip": 0.0}, r"clip must be above 0, got 0\.0; leave it out"),
        ({"milestones": [3]}, r"milestones must come before the end at 3 epochs, got \[3\]"),
        ({"milestones": [2, 1]}, r"milestones must be positive and increase, got \[2, 1\]"),
        ({"gamma": 2.0}, r"gamma must be above 0 and at most 1, got 2\.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("ours", [True, False])
def test_wrong_options_are_named(options: dict[str, object], message: str, ours: bool) -> None:
    model = network()
    optimizer = rmda(model) if ours else SGD(model.parameters(), lr=0.1)
    arguments = {"data": blobs(), "epochs": 3, **options}
    with pytest.raises(ValueError, match=message):
        supervised(model, cross_entropy, optimizer, **arguments)  # pyright: ignore


def test_a_last_stage_too_short_for_the_zeros_warns() -> None:
    model = network()
    with pytest.warns(UserWarning, match=r"the last stage has 6 steps, and averaging=0\.1 needs 100"):
        supervised(
            model, cross_entropy, rmda(model, averaging=0.1), data=blobs(), epochs=3, milestones=[1], batch_size=32
        )


# -- batch normalization --------------------------------------------------------------------------------------------


def test_running_statistics_survive_a_report_and_become_those_of_the_final_weights() -> None:
    norm = nn.BatchNorm1d(16)
    model = network(norm)
    optimizer = rmda(model, lam=0.03)
    run = supervised(model, cross_entropy, optimizer, data=blobs(), epochs=20, batch_size=96)
    for _ in range(19):
        run.advance(run.period)
    seen: list[dict[str, Tensor]] = []
    handle = optimizer.register_step_post_hook(
        lambda *_: seen.append({name: value.clone() for name, value in norm.named_buffers()})
    )
    run.advance(run.period)  # one step, then a report
    handle.remove()
    assert all(torch.equal(value, seen[0][name]) for name, value in norm.named_buffers())
    module = run.finish()
    with torch.no_grad():
        hidden = cast("nn.Linear", model[0])(blobs().train.inputs)
    assert module is model
    torch.testing.assert_close(norm.running_mean, hidden.mean(0))
    torch.testing.assert_close(norm.running_var, hidden.var(0))
    assert norm.momentum == 0.1


# -- which weights are handed over ----------------------------------------------------------------------------------


def test_best_is_the_best_report_of_the_last_stage() -> None:
    model = network()
    optimizer = RAMDA(regularize(model, GroupLasso(0.02)), lr=0.1, averaging=0.6)
    # Few samples, so that validation has ups and downs.
    run = supervised(
        model, cross_entropy, optimizer, data=blobs(train=12), epochs=30, batch_size=4, milestones=[10], select="best"
    )
    final: list[tuple[float, int, float]] = []
    for report in epochs(run):
        if number(report, "epoch") > 10 and report["averaging"] == 1:
            entry = (-number(report, "structured_valid_accuracy"), int(number(report, "epoch")))
            final.append((*entry, number(report, "structured_valid_loss")))
    best = min(final)
    assert best[1] != 30, "the last report is the best: this test shows nothing"
    run.finish()
    evaluated = run.evaluate(run.model)
    assert number(evaluated, "valid_accuracy") == -best[0]
    assert number(evaluated, "valid_loss") == pytest.approx(best[2])
    layers = cast("dict[str, dict[str, int]]", evaluated["layers"])
    assert evaluated["alive"] == sum(layer["alive"] for layer in layers.values())


def test_best_needs_validation_samples() -> None:
    data = blobs()
    data = Data("blobs", data.train, data.train.none(), data.test, classes=3)
    model = network()
    with pytest.raises(ValueError, match=r"select='best' needs validation samples, and blobs has none"):
        supervised(model, cross_entropy, rmda(model), data=data, epochs=4, select="best")


# -- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("stop", [1, 7, 11])
def test_a_run_goes_on_from_its_state(ours: bool, stop: int) -> None:
    def start() -> Run:
        model = network(nn.BatchNorm1d(16), nn.Dropout(0.2))
        optimizer: ProximalOptimizer | SGD = rmda(model) if ours else SGD(model.parameters(), lr=0.1, momentum=0.9)
        return supervised(
            model,
            cross_entropy,
            optimizer,
            data=blobs(),
            epochs=6,
            batch_size=16,
            accumulate=2,
            milestones=[2, 3],
            select="best" if ours else "last",
            augment=lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g),
        )

    torch.manual_seed(1)
    random, file = torch.get_rng_state(), BytesIO()
    whole = start()
    reports: list[Metrics] = []
    for unit in range(whole.units):
        if unit == stop:
            torch.save(whole.state_dict(), file)
            random = torch.get_rng_state()
        if (report := whole.advance(1)) and unit >= stop:
            reports.append(report)
    whole.finish()
    again = start()
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    torch.set_rng_state(random)
    found = [report for _ in range(stop, again.units) if (report := again.advance(1))]
    again.finish()
    assert found == reports
    assert again.evaluate(again.model) == whole.evaluate(whole.model)
    states = (again.model.state_dict().values(), whole.model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
