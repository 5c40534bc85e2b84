"""Training in chunks: the iterates of the full batch, without what is as long as the samples."""

import copy
import gc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import (
    AdaptiveRho,
    AMTrainer,
    Band,
    Exact,
    ExactWeights,
    MajorizedWeights,
    Nesterov,
    RelativeRho,
    RisingCostRho,
    Sign,
    SignHomotopy,
    Squared,
    red_black,
)
from openwork.altmin.samples import check_memory_of_chunks
from openwork.penalties import L1, GroupLasso
from tests.altmin.tasks import labelled, network, targets

FRESH: dict[str, Any] = {"coupling": Exact(fresh=True), "w_solver": MajorizedWeights(fresh=True)}
PENALTIES: dict[str, Any] = {"penalties": {"0": L1(0.002), "2": GroupLasso(0.001)}}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"inertia": (0.0, 0.0, 0.0), "balance": 0},
    "default": {"balance": 3},
    "two": {"inertia": (0.6, 0.3, 0.3), "balance": 3, "safeguard": "none"},
    "penalties": {**PENALTIES, "mu": 0.02},
    "nesterov": {"inertia": Nesterov(), "rho": AdaptiveRho(every=2)},
    "relative": {"rho": RelativeRho(0.2), "balance": 4},
    "rising": {"rho": RisingCostRho(1e-3, patience=1), "mu": 0.0},
    "exact weights": {"w_solver": ExactWeights(0.1)},
}


def both(options: dict[str, Any], chunk_size: int, model: nn.Sequential) -> tuple[AMTrainer, AMTrainer]:
    """Two trainers of equal models, the second in chunks."""
    other = copy.deepcopy(model)
    whole = AMTrainer(model, **{**FRESH, **options})
    return whole, AMTrainer(other, **{**FRESH, **options}, chunk_size=chunk_size)


def same(whole: AMTrainer, chunked: AMTrainer, tolerance: float = 1e-10) -> None:
    for theirs, mine in zip(whole.model.parameters(), chunked.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
        assert torch.equal(mine == 0, theirs == 0)


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_chunks_are_the_full_batch(case: str, activation: type[nn.Module]) -> None:
    """Iterates, every number of a measurement, and the schedules."""
    whole, chunked = both(OPTIONS[case], 15 if activation is nn.ReLU else 1000, network(activation=activation))
    x, y = labelled()
    for trainer in (whole, chunked):
        trainer.start(x, y)
    for _ in range(7):
        expected, measured = whole.sweep(), chunked.sweep()
        for name, numbers in vars(expected).items():
            # The first tau is of no meaning.
            last = slice(1, None) if name == "tau" else slice(None)
            numbers, found = (n[last] if isinstance(n, list) else n for n in (numbers, getattr(measured, name)))
            assert found == pytest.approx(numbers, rel=1e-10, abs=1e-12), name
    same(whole, chunked)
    assert chunked.report()["rho"] == whole.report()["rho"]
    assert chunked.report()["restarts"] == whole.report()["restarts"]
    assert chunked.forward_gap() == pytest.approx(whole.forward_gap())


@pytest.mark.parametrize("validation", [False, True])
def test_a_whole_run_is_that_of_the_full_batch(validation: bool) -> None:
    whole, chunked = both(PENALTIES, 15, network())
    x, y = labelled(size=60)
    held = (x[40:], y[40:]) if validation else None
    for trainer in (whole, chunked):
        assert trainer.fit(x[:40], y[:40], 12, validation=held) is trainer.model
    for name in ("forward_loss", "forward_accuracy", "objective"):
        theirs, mine = ([*map(float, trainer.report()[name])] for trainer in (whole, chunked))  # type: ignore[arg-type]
        assert len(theirs) >= 12
        assert mine == pytest.approx(theirs, rel=1e-10)
    # The readout is found by line searches, which end within their tolerance.
    same(whole, chunked, 1e-6)
    assert chunked.evaluate() == pytest.approx(whole.evaluate(), rel=1e-9)


def test_one_layer_and_layers_without_bias() -> None:
    x, y = targets()
    for model in (network(widths=(5, 3)), nn.Sequential(nn.Linear(5, 4, False), nn.ReLU(), nn.Linear(4, 3)).double()):
        whole, chunked = both({"loss": Squared()}, 11, model)
        for trainer in (whole, chunked):
            trainer.start(x, y)
            for _ in range(5):
                trainer.sweep()
        same(whole, chunked)


def test_inputs_of_any_shape_and_pooling() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 2, 6, generator=generator, dtype=torch.float64), labelled(size=30)[1]
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 7), nn.Tanh(), nn.Unflatten(1, (7,)), nn.Linear(7, 3)
    )
    del model[4]
    whole, chunked = both({}, 8, model.double())
    for trainer in (whole, chunked):
        trainer.start(x, y)
    for _ in range(5):
        assert chunked.sweep().objective == pytest.approx(whole.sweep().objective, rel=1e-10)
    same(whole, chunked)


def test_ramps_become_signs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), Sign(margin=0.3), nn.Linear(8, 3)).double()
    whole, chunked = both({"homotopy": SignHomotopy(6), "mu": 0.02}, 7, model)
    x, y = labelled()
    for trainer in (whole, chunked):
        trainer.start(x, y)
    for _ in range(9):
        assert chunked.sweep().objective == pytest.approx(whole.sweep().objective, rel=1e-9)
    same(whole, chunked)


def test_the_objective_falls_with_any_inertia() -> None:
    with pytest.warns(UserWarning, match="inertia"):
        trainer = AMTrainer(network(), loss=Squared(), inertia=(0.3, 0.9, 0.9), balance=0, chunk_size=9)
    trainer.start(*targets())
    values = [trainer.sweep().objective for _ in range(30)]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(values))
    assert trainer.report()["restarts"][-1] != 0


def test_a_restart_restores_the_bits() -> None:
    trainer = AMTrainer(network(), chunk_size=9)
    trainer.start(*labelled())
    for _ in range(4):
        trainer.sweep()
    blocks, _ = trainer._started()
    saved, objective = blocks.snapshot(), blocks.objective()
    bits = [p.detach().clone() for p in trainer.model.parameters()]
    blocks.sweep(Nesterov(0.9).at(30))
    assert blocks.objective() != objective
    blocks.restore(saved)
    assert torch.equal(blocks.objective(), objective)
    assert all(torch.equal(old, new) for old, new in zip(bits, trainer.model.parameters(), strict=True))


def test_a_loaded_trainer_goes_on_bit_for_bit() -> None:
    x, y = labelled()
    options: dict[str, Any] = {"rho": AdaptiveRho(every=4), "balance": 5, "chunk_size": 9, **PENALTIES}
    whole, later = AMTrainer(network(), **options), AMTrainer(network(seed=3), **options)
    whole.start(x, y)
    for _ in range(7):
        whole.sweep()
    whole.evaluate()
    state = copy.deepcopy(whole.state_dict())
    later.start(x, y)
    later.sweep()
    later.load_state_dict(state)
    for _ in range(15):
        assert whole.sweep() == later.sweep()
    for a, b in zip(whole.finish().parameters(), later.finish().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_chunks_is_refused() -> None:
    trainers = [AMTrainer(network(), chunk_size=size) for size in (9, 8, None)]
    for trainer in trainers:
        trainer.start(*labelled())
    nine, eight, whole = trainers
    message = r"the samples are in chunks of 9, 5 in all, the state to load has 5 chunks of 8; load it with the same"
    with pytest.raises(ValueError, match=message):
        nine.load_state_dict(eight.state_dict())
    with pytest.raises(ValueError, match=r"layer 1 has z of shape \(0, 7\), the state to load \(40, 7\)"):
        nine.load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match=r"layer 1 has z of shape \(40, 7\), the state to load \(0, 7\)"):
        whole.load_state_dict(nine.state_dict())


def test_single_precision_is_as_good_as_the_full_batch() -> None:
    x, y = labelled(size=400)
    exact, _ = both({}, 100, network())
    whole, chunked = both({}, 100, network().float())
    exact.start(x, y)
    for trainer in (whole, chunked):
        trainer.start(x.float(), y)
    for _ in range(12):
        true, theirs, mine = (trainer.sweep().objective for trainer in (exact, whole, chunked))
        assert abs(mine - true) < max(2 * abs(theirs - true), 1e-6 * true)


def storages() -> dict[int, torch.UntypedStorage]:
    """Every storage that something refers to, by its address; held, so that no other one comes to lie there."""
    gc.collect()
    # Other tests may have left traced models and sparse samples, which have no storage of their own.
    tensors = [one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter)]
    found = [one.untyped_storage() for one in tensors if one.layout is torch.strided and one.device.type != "meta"]
    return {storage.data_ptr(): storage for storage in found if storage.nbytes()}


@pytest.mark.parametrize("balance", [0, 1])
def test_only_the_codes_are_kept(balance: int) -> None:
    x, y = labelled(size=4000)
    before = storages()
    trainer = AMTrainer(network(), chunk_size=1000, balance=balance)
    trainer.start(x, y)
    for _ in range(3):
        trainer.sweep()
        trainer.evaluate()
    kept = sum(storage.nbytes() for place, storage in storages().items() if place not in before)
    codes = 2 * 4000 * (7 + 6 + 3) * 8
    assert codes < kept < codes + 40_000


def convolution() -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3))


def pooled() -> nn.Sequential:
    return nn.Sequential(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(6, 3))


WRONG: dict[str, tuple[Callable[[], nn.Sequential], dict[str, Any], type[Exception], str]] = {
    "none": (network, {"chunk_size": 0}, ValueError, r"AMTrainer: chunk_size must be a number of samples >= 1, got 0"),
    "half": (network, {"chunk_size": 0.5}, ValueError, r"chunk_size must be a number of samples >= 1, got 0.5"),
    "band": (network, {"coupling": Band()}, ValueError, r"chunk_size needs coupling=Exact\(fresh=True\), got Band"),
    "stale": (
        network,
        {"coupling": Exact()},
        ValueError,
        r"needs coupling=Exact\(fresh=True\), got Exact\(.*fresh=False",
    ),
    "weights": (
        network,
        {"w_solver": MajorizedWeights()},
        ValueError,
        r"needs w_solver=MajorizedWeights\(fresh=True\)",
    ),
    "order": (
        network,
        {"order": red_black},
        ValueError,
        r"needs order=forward, got another one; change it, or leave it",
    ),
    "block": (network, {"safeguard": "block"}, ValueError, r"needs safeguard='sweep', got 'block'"),
    "multiplier": (network, {"multiplier": True}, ValueError, r"needs multiplier=False, got True"),
    "layers": (convolution, {}, TypeError, r"chunk_size needs linear layers, the model has a Conv1d"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_chunks_cannot_do_is_refused(case: str) -> None:
    make, options, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        AMTrainer(make(), **{"chunk_size": 5, **options})


@pytest.mark.filterwarnings("ignore")
def test_max_pooling_is_refused() -> None:
    with pytest.raises(TypeError, match=r"chunk_size does not go with max-pooling"):
        AMTrainer(pooled(), chunk_size=5)


def test_too_little_memory_offers_mini_batches() -> None:
    needs = r"the blocks z of 1000 samples need about 0.00247 GB and 0.001 GB are free; keep X where .* partial_fit"
    x, sizes = torch.zeros(1000, 5, dtype=torch.float64), [torch.Size([100]), torch.Size([3])]
    with pytest.raises(MemoryError, match=needs):
        check_memory_of_chunks("AMTrainer", x, sizes, available=1_000_000)
    check_memory_of_chunks("AMTrainer", x, sizes, available=10_000_000)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, and torch finds none here")
@pytest.mark.parametrize("pinned", [False, True])
def test_samples_may_lie_in_the_main_memory(pinned: bool) -> None:
    x, y = labelled()
    held = labelled(1)
    alone = AMTrainer(network(), chunk_size=9)
    other = AMTrainer(network().cuda(), chunk_size=9)
    alone.fit(x, y, 20, validation=held)
    x, y = (x.pin_memory(), y.pin_memory()) if pinned else (x, y)
    other.fit(x, y, 20, validation=held)
    assert not any(z.now.is_cuda for codes in other._started()[0].codes for z in codes)  # type: ignore[attr-defined]
    assert other.report()["objective"] == pytest.approx(alone.report()["objective"], rel=1e-8)
    state = copy.deepcopy(other.state_dict())
    after = other.sweep()
    other.load_state_dict(state)
    assert other.sweep() == after
