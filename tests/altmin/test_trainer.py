"""The trainer from the outside: learning, checkpoints, reports, and what it refuses."""

import copy
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openwork.altmin import (
    AdaptiveRho,
    AMTrainer,
    Band,
    Coupling,
    Exact,
    ExactWeights,
    Inertia,
    MajorizedWeights,
    Nesterov,
    QuadraticPenalty,
    Sign,
    Squared,
    Visit,
    codes,
    curvature,
)
from openwork.altmin.samples import check_memory, free_bytes
from openwork.altmin.state import Layer
from openwork.penalties import L1
from tests.altmin.tasks import blobs, labelled, network, targets


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Hardtanh])
def test_clusters_are_told_apart(activation: type[nn.Module]) -> None:
    x, y = blobs(0)
    model = network(widths=(2, 8, 3), activation=activation)
    assert AMTrainer(model).fit(x, y, 30) is model
    fresh_x, fresh_y = blobs(1)
    assert (model(fresh_x).argmax(1) == fresh_y).double().mean() > 0.95


@pytest.mark.parametrize(
    "coupling", [Exact(), QuadraticPenalty(), Band(0.5, 0.9, 0.1)], ids=["exact", "penalty", "band"]
)
def test_a_loaded_trainer_goes_on_bit_for_bit(coupling: Coupling) -> None:
    x, y = labelled()
    options: dict[str, Any] = {
        "coupling": coupling,
        "inertia": Nesterov(),
        "rho": AdaptiveRho(every=4),
        "multiplier": isinstance(coupling, QuadraticPenalty),
        "balance": 5,
    }
    whole = AMTrainer(network(), **options)
    whole.start(x, y)
    for _ in range(7):
        whole.sweep()
    whole.evaluate()
    state = copy.deepcopy(whole.state_dict())
    later = AMTrainer(network(seed=3), **options)
    later.start(x, y)
    later.sweep()
    later.load_state_dict(state)
    for _ in range(15):
        assert whole.sweep() == later.sweep()
    assert whole.report() == later.report()
    for a, b in zip(whole.finish().parameters(), later.finish().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_shapes_is_refused_and_nothing_changes() -> None:
    trainer, other = AMTrainer(network()), AMTrainer(network(widths=(5, 8, 6, 3)))
    shallow = AMTrainer(network(widths=(5, 7, 3)))
    for one in (trainer, other, shallow):
        one.start(*labelled())
    before = [p.clone() for p in trainer.model.parameters()]
    with pytest.raises(ValueError, match=r"layer 1 has weight of shape \(7, 5\), the state to load \(8, 5\)"):
        trainer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"the model has 3 weight layers, the state to load 2"):
        trainer.load_state_dict(shallow.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_the_state_loads_with_weights_only(tmp_path: Any) -> None:
    trainer = AMTrainer(network())
    trainer.start(*labelled())
    trainer.sweep()
    torch.save(trainer.state_dict(), tmp_path / "state.pt")
    trainer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))


def test_the_weights_with_the_best_validation_loss_come_back() -> None:
    x, y = labelled(0)
    trainer = AMTrainer(network(), readout=False, mu=0.0)
    held = labelled(0, size=70)[0][40:], labelled(0, size=70)[1][40:]
    model = trainer.fit(x, y, 40, validation=held)
    losses = trainer._started()[1].series["forward_loss"]
    assert len(losses) == 41
    final = nn.functional.cross_entropy(model(held[0]), held[1]).item()
    assert final == pytest.approx(min(losses), rel=1e-10)


def test_fit_goes_on_with_the_same_samples_and_stops_when_told() -> None:
    x, y = labelled()
    trainer = AMTrainer(network())
    trainer.fit(x, y, 3)
    trainer.fit(x, y, 2)
    assert len(trainer.report()["objective"]) == 5
    trainer.fit(x, y, 100, seconds=0.0)
    assert len(trainer.report()["objective"]) == 6
    trainer.fit(x.clone(), y, 3000, tolerance=0.5)
    assert 10 < len(trainer.report()["objective"]) < 3000
    with pytest.raises(ValueError, match=r"AMTrainer.fit: sweeps must be a number >= 0, got -1"):
        trainer.fit(x, y, -1)


def test_the_report_has_its_series() -> None:
    x, y = labelled()
    trainer = AMTrainer(network(), coupling=QuadraticPenalty())
    trainer.fit(x, y, 4)
    report: dict[str, Any] = {**trainer.report()}
    assert set(report) >= {"objective", "surrogate_loss", "link_residual", "coupling_gap", "theta", "tau", "restarts"}
    assert len(report["theta"]) == 4
    assert len(report["coupling_gap"][0]) == 2
    assert len(report["forward_accuracy"]) == 5
    gap = trainer.forward_gap()
    assert gap.surrogate == pytest.approx(report["surrogate_loss"][-1])
    assert gap.forward == pytest.approx(nn.functional.cross_entropy(trainer.model(x), y).item())
    real = AMTrainer(network(), loss=Squared())
    real.fit(*targets(), 2)
    assert real.report()["forward_accuracy"] == []


@pytest.mark.parametrize("seed", range(3))
def test_the_refit_never_raises_the_training_loss(seed: int) -> None:
    x, y = labelled(seed)
    trainer = AMTrainer(network(seed))
    trainer.start(x, y)
    for _ in range(5):
        trainer.sweep()
    before = trainer.forward_gap().forward
    trainer.finish()
    assert trainer.forward_gap().forward < before
    for p in trainer.model.parameters():
        assert p.requires_grad and p.grad is None


def test_no_graph_is_made_and_inference_mode_works() -> None:
    class Watched(Exact):
        def z_step(self, layer: Layer, following: Layer, inertia: Inertia) -> None:
            assert not torch.is_grad_enabled()
            super().z_step(layer, following, inertia)

    x, y = labelled()
    x.requires_grad_()
    model = network()
    trainer = AMTrainer(model, coupling=Watched())
    trainer.fit(x, y, 2)
    assert x.grad is None and all(p.grad is None and p.is_leaf for p in model.parameters())
    assert not any(layer.z.now.requires_grad for layer in trainer._started()[0].problem.layers)
    with torch.inference_mode():
        inference = labelled()
        assert inference[0].is_inference()
        AMTrainer(model).fit(*inference, 2)
    AMTrainer(model).fit(*inference, 2)
    model(labelled()[0]).sum().backward()


def test_single_precision_trains_as_well() -> None:
    x, y = labelled()
    model = network().float()
    trainer = AMTrainer(model)
    trainer.start(x.float(), y)
    objectives = [trainer.sweep().objective for _ in range(15)]
    assert objectives[-1] < 0.5 * objectives[0]
    double = AMTrainer(network())
    double.start(x, y)
    assert [double.sweep().objective for _ in range(3)] == pytest.approx(objectives[:3], rel=1e-4)


BAD: dict[str, tuple[Callable[[], tuple[Any, Any]], type[Exception], str]] = {
    "none": (
        lambda: (torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0).long()),
        ValueError,
        "at least one sample",
    ),
    "nan": (
        lambda: (torch.full((4, 5), torch.nan, dtype=torch.float64), torch.zeros(4).long()),
        ValueError,
        "X has entr",
    ),
    "infinite": (lambda: (labelled()[0] / 0, labelled()[1]), ValueError, "NaN or infinite; remove or replace"),
    "count": (lambda: (labelled()[0], labelled()[1][:3]), ValueError, r"40 samples have targets of shape \(3,\)"),
    "width": (
        lambda: (labelled(inputs=6)[0], labelled()[1]),
        ValueError,
        r"layer 1 does not take inputs of shape \(6,",
    ),
    "kind": (lambda: (labelled()[0].float(), labelled()[1]), TypeError, r"X is torch.float32 .* weights torch.float64"),
    "range": (lambda: (labelled()[0], labelled()[1] + 1), ValueError, "label"),
    "real": (lambda: (labelled()[0], labelled()[1].double()), TypeError, "class numbers as torch.int64"),
    "sparse": (lambda: (labelled()[0].to_sparse(), labelled()[1]), TypeError, r"must be dense, got torch.sparse_coo"),
    "list": (lambda: ([[1.0] * 5], [0]), TypeError, "X and y must be tensors, got list and list"),
}


@pytest.mark.parametrize("case", BAD)
def test_samples_that_cannot_be_trained_on_are_refused(case: str) -> None:
    make, error, message = BAD[case]
    model = network()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(error, match=message):
        AMTrainer(model).fit(*make(), 3)
    with pytest.raises(error, match=message):
        AMTrainer(model).fit(*labelled(), 3, validation=make())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_too_little_memory_says_how_much_and_offers_chunks() -> None:
    x = torch.zeros(1000, 5, dtype=torch.float64)
    sizes = [torch.Size([100]), torch.Size([3])]
    needs = r"the blocks of 1000 samples need about 0.00824 GB and 0.004 GB are free"
    message = rf"{needs}; pass chunk_size=485 or less"
    with pytest.raises(MemoryError, match=message):
        check_memory("AMTrainer", x, sizes, available=4_000_000)
    # Not enough for chunks.
    with pytest.raises(MemoryError, match=r"the blocks z of 1000 samples need .*; keep X where there is more memory"):
        check_memory("AMTrainer", x, sizes, available=1_000_000)
    check_memory("AMTrainer", x, sizes, available=10_000_000)


def test_options_out_of_range_are_refused() -> None:
    for options, error, message in (
        ({"mu": -1.0}, ValueError, r"mu must be finite and >= 0, or 'auto', got -1"),
        ({"mu": "much"}, ValueError, r"mu must be finite and >= 0, or 'auto', got 'much'"),
        ({"safeguard": "maybe"}, ValueError, r"safeguard must be 'sweep', 'block' or 'none', got 'maybe'"),
        ({"balance": -1}, ValueError, r"balance must be a number of sweeps, or 0 for never, got -1"),
        ({"order": "tiam"}, TypeError, r"order must be a function such as openwork.altmin.forward, got 'tiam'"),
        ({"mu": None}, ValueError, r"mu must be finite and >= 0, or 'auto', got None"),
        ({"balance": 2.5}, ValueError, r"balance must be a number of sweeps, or 0 for never, got 2.5"),
        ({"order": lambda layers: None}, TypeError, r"order must give a list of Visit\(block, layer\), got None"),
        (
            {"order": lambda layers: [Visit("a", layers - 1)]},
            ValueError,
            r"order visits Visit\(block='a', layer=2\); the blocks are W, b and z of layers 0 to 2, and a of all but",
        ),
        ({"rho": -0.1}, ValueError, r"value must be finite and > 0, got -0.1"),
    ):
        arguments: dict[str, Any] = options
        with pytest.raises(error, match=message):
            AMTrainer(network(), **arguments)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("loss", "ce", r"loss must be None or an object such as Squared\(\), got 'ce'"),
        ("coupling", "exact", r"coupling must be None or an object such as Exact\(\), got 'exact'"),
        ("w_solver", "exact", r"w_solver must be None or an object such as ExactWeights\(\), got 'exact'"),
        ("inertia", (0.5, 0.5), r"inertia must be three numbers \(p1, p2, p3\) or a schedule, got \(0.5, 0.5\)"),
        ("inertia", 0.5, "inertia must be three numbers"),
        ("inertia", ("a", 0, 0), "inertia must be three numbers"),
        ("homotopy", 5, r"homotopy must be None or an object such as SignHomotopy\(20\), got 5"),
        ("minibatch", 5, r"minibatch must be None or an object such as MiniBatch\(\), got 5"),
        ("penalties", [L1(0.1)], r"penalties must be a dictionary from names of layers to penalties, got \[L1"),
        ("rho", "auto", r"rho must be a number or a rule such as AdaptiveRho\(\), got 'auto'"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(name: str, value: object, message: str) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(TypeError, match=f"AMTrainer: {message}"):
        AMTrainer(network(), **arguments)


def test_another_validation_starts_anew() -> None:
    x, y = labelled()
    trainer = AMTrainer(network())
    first, second = (x[:5].clone(), y[:5].clone()), (x[5:9].clone(), y[5:9].clone())
    trainer.fit(x, y, 2, validation=first)
    trainer.fit(x, y, 1, validation=first)
    trainer.fit(x, y, 1)
    assert len(trainer.report()["objective"]) == 4
    trainer.fit(x, y, 2, validation=second)
    assert len(trainer.report()["objective"]) == 2
    trainer.finish()
    loss = nn.functional.cross_entropy(trainer.model(second[0]), second[1]).item()
    assert loss == pytest.approx(trainer.evaluate()) or loss < trainer.evaluate()


def test_what_is_no_pair_is_no_validation() -> None:
    x, y = labelled()
    for wrong in (x, (x, y, y)):
        arguments: dict[str, Any] = {"validation": wrong}
        with pytest.raises(TypeError, match=r"AMTrainer: validation must be a pair \(X, y\) or None, got"):
            AMTrainer(network()).fit(x, y, 1, **arguments)


@pytest.mark.parametrize("which", range(4))
def test_samples_that_changed_in_place_start_anew(which: int) -> None:
    x, y = labelled()
    given = x[:30].clone(), y[:30].clone(), x[30:].clone(), y[30:].clone()
    trainer = AMTrainer(network(), readout=False)
    for _ in range(2):
        trainer.fit(given[0], given[1], 2, validation=given[2:])
    assert len(trainer.report()["objective"]) == 4
    # Two rows change places.
    given[which].copy_(given[which].flip(0))
    fresh = AMTrainer(copy.deepcopy(trainer.model), readout=False)
    for one in (trainer, fresh):
        one.fit(given[0], given[1], 2, validation=given[2:])
    assert len(trainer.report()["objective"]) == 2
    assert trainer.report()["objective"] == fresh.report()["objective"]


def test_a_normalization_stays_as_it_is_if_an_option_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).to(torch.float64)
    model(labelled()[0])
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for options in ({"penalties": {"nobody": L1(0.1)}}, {"chunk_size": 0}, {"rho": 0.0}):
        arguments: dict[str, Any] = options
        with pytest.raises(ValueError, match=r"AMTrainer|FixedRho"):
            AMTrainer(model, **arguments)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_interrupt_leaves_the_blocks_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = AMTrainer(network())
    trainer.start(*labelled())
    trainer.sweep()
    again = copy.deepcopy(trainer)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(codes, "majorized", interrupted)
        trainer.sweep()
    assert trainer.sweep() == again.sweep()


def test_a_block_that_no_step_fits_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = AMTrainer(network())
    trainer.start(*labelled())
    trainer.sweep()
    blocks = trainer._started()[0]
    before = [p.detach().clone() for p in trainer.model.parameters()]
    objective, again = float(blocks.objective()), copy.deepcopy(trainer)
    calls: list[int] = []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise FloatingPointError("AMTrainer: no step size fits a block")
        return curvature.majorized(*arguments)

    with monkeypatch.context() as context, pytest.raises(FloatingPointError, match="no step size"):
        context.setattr(codes, "majorized", failing)
        trainer.sweep()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert float(blocks.objective()) == objective
    assert trainer.sweep() == again.sweep()


def test_a_normalization_in_training_mode_again_is_refused() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).to(torch.float64).eval()
    trainer = AMTrainer(model)
    model.train()
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\) was folded in and is in training mode again, .*eval\(\)"):
        trainer.fit(*labelled(), 1)


def test_inputs_with_too_many_dimensions_are_refused() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Flatten(), nn.Linear(3, 3)).to(torch.float64)
    x, y = labelled()
    with pytest.raises(ValueError, match=r"layer 1 does not take inputs of shape \(1, 1, 1, 1, 5\) per sample"):
        AMTrainer(model).fit(x.view(40, 1, 1, 1, 1, 5), y, 1)


def test_outputs_that_are_no_rows_are_refused() -> None:
    x = torch.randn(4, 1, 5, 5, dtype=torch.float64)
    model = nn.Sequential(nn.Conv2d(1, 3, 3)).to(torch.float64)
    message = r"gives outputs of shape \(3, 3, 3\) per sample, and losses read rows of numbers; end it with Flatten"
    for loss, y in ((None, torch.zeros(4).long()), (Squared(), model(x).detach())):
        with pytest.raises(ValueError, match=message):
            AMTrainer(model, loss=loss).fit(x, y, 1)


def test_cached_files_are_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = "MemTotal: 4000 kB\nMemFree:  10 kB\nMemAvailable:    3000 kB\nCached: 2500 kB\n"
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: meminfo)
    assert free_bytes(torch.device("cpu")) == 3000 * 1024


def test_a_sweep_needs_samples() -> None:
    with pytest.raises(RuntimeError, match=r"there are no samples yet; call start\(X, y\) or fit"):
        AMTrainer(network()).sweep()


def test_inputs_that_overflow_leave_everything_as_it_was() -> None:
    x, y = targets()
    model = network()
    trainer = AMTrainer(model, loss=Squared())
    trainer.start(x * 1e160, y)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FloatingPointError, match=r"scale the inputs to about unit size"):
        trainer.sweep()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("pool", [nn.AvgPool1d, nn.MaxPool1d])
def test_convolutions_and_pooling_are_trained(pool: type[nn.AvgPool1d] | type[nn.MaxPool1d]) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, 1, 12, dtype=torch.float64, generator=generator)
    y = (x[:, 0, 3:9].sum(1) > 0).long()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(24, 2)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max-pooling says that its selection is fixed within a sweep
        trainer = AMTrainer(model)
    before = nn.functional.cross_entropy(model(x), y).item()
    trainer.fit(x, y, 25)
    assert nn.functional.cross_entropy(model(x), y).item() < 0.5 * before
    objectives = trainer._started()[1].series["objective"]
    if pool is nn.AvgPool1d:
        assert all(after <= earlier * (1 + 1e-10) for earlier, after in pairwise(objectives[:10]))
    trainer.sweep()
    residuals = [layer.residual for layer in trainer._started()[0].problem.layers]
    with torch.no_grad():
        trainer._started()[0].problem.recompute()
    for old, layer in zip(residuals, trainer._started()[0].problem.layers, strict=True):
        torch.testing.assert_close(old, layer.residual, rtol=1e-8, atol=1e-9)


def test_weights_are_solved_for_unless_they_are_penalized_or_there_are_signs() -> None:
    assert AMTrainer(network()).w_solver == ExactWeights()
    assert AMTrainer(network(), penalties={"0": L1(0.1)}).w_solver == MajorizedWeights()
    assert AMTrainer(nn.Sequential(nn.Linear(2, 3), Sign(), nn.Linear(3, 2))).w_solver == MajorizedWeights()
    assert AMTrainer(network(), penalties={"0": L1(0.1)}, chunk_size=5).w_solver == MajorizedWeights(fresh=True)
