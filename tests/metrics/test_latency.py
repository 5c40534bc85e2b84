"""Measured times: the order of two models, the rounds, the state before and after, and the arguments."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.metrics import Latency, compare_latency, latency_ms


class Waiting(nn.Module):
    """Takes about as long as it is told to, and keeps a diary."""

    def __init__(self, seconds: float, diary: list[str] | None = None, name: str = "") -> None:
        super().__init__()
        self.seconds, self.diary, self.name = seconds, diary, name

    def forward(self, x: Tensor) -> Tensor:
        if self.diary is not None:
            self.diary.append(self.name)
        time.sleep(self.seconds)
        return x


def test_a_model_twice_as_heavy_is_slower() -> None:
    """The other one does the same work again, so that only a machine that stops for whole rounds could mislead."""
    layer = nn.Linear(256, 256)
    x = torch.randn(64, 256)
    found = compare_latency({"once": nn.Sequential(layer), "twice": nn.Sequential(layer, layer)}, x, seconds=1.0)
    once, twice = found.latencies["once"], found.latencies["twice"]
    assert once.ms.median < twice.ms.median
    assert min(once.calls, twice.calls) > 1
    assert 0.3 < found.speedups["twice"].median < 0.9
    assert found.speedups["once"].median == found.speedups["once"].high == 1.0


def test_the_time_is_in_milliseconds() -> None:
    found = latency_ms(Waiting(0.005), torch.randn(3, 2), seconds=0.3)
    assert 5 <= found.ms.low <= found.ms.median <= found.ms.high < 50
    assert found == Latency(found.ms, found.rounds, found.calls, 3, torch.get_num_threads(), "cpu", compiled=False)


def test_models_take_turns() -> None:
    diary: list[str] = []
    models = {name: Waiting(0.01, diary, name) for name in "ab"}
    found = compare_latency(models, torch.ones(1), seconds=0.2)
    assert [latency.calls for latency in found.latencies.values()] == [1, 1]
    assert "".join(diary[-2 * found.latencies["a"].rounds :]).startswith("abbaabba")


def test_a_fast_model_is_called_often_and_a_slow_one_at_least_a_few_times() -> None:
    start = time.perf_counter()
    fast, slow = latency_ms(nn.Identity(), torch.ones(1), seconds=0.2), latency_ms(Waiting(0.03), (1,), seconds=0.01)
    assert fast.rounds == 30 and fast.calls > 100
    assert (slow.rounds, slow.calls, slow.batch) == (5, 1, None)
    assert time.perf_counter() - start < 5


def test_everything_is_as_before() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 4)
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    assert latency_ms(model, x, seconds=0.05, threads=2).threads == 2
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model] == [True, False, True]
    assert not torch.is_inference_mode_enabled()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) and not tensor.is_inference()


@pytest.mark.parametrize("inputs", [{"x": torch.ones(7, 2)}, [torch.ones(7, 2)], ({"x": [torch.ones(7, 2)]},)])
def test_the_batch_is_read_from_nested_inputs(inputs: Any) -> None:
    assert latency_ms(Waiting(0.0), inputs, seconds=0.01).batch == 7


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_compiled_models_of_one_class() -> None:
    models = {str(width): nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 4)) for width in (3, 5)}
    found = compare_latency(models, torch.randn(2, 4), seconds=0.1, compiled=True)
    assert all(latency.compiled for latency in found.latencies.values())
    models["3"](torch.randn(2, 4)).sum().backward()


@pytest.mark.gpu
def test_on_cuda() -> None:
    layer = nn.Linear(2048, 2048, device="cuda")
    models = {"once": nn.Sequential(layer), "four times": nn.Sequential(layer, layer, layer, layer)}
    found = compare_latency(models, torch.randn(4096, 2048, device="cuda"), seconds=1.0)
    assert found.latencies["once"].device == "cuda:0"
    assert found.speedups["four times"].median < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0.0}, r"^latency_ms: seconds must be > 0 and finite, got 0.0; a few seconds"),
        ({"seconds": float("nan")}, r"^latency_ms: seconds must be > 0 and finite, got nan"),
        ({"threads": 0}, r"^latency_ms: threads must be >= 1, got 0; None leaves"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        latency_ms(nn.Linear(2, 2), torch.ones(1, 2), **options)


def test_models_and_inputs_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^compare_latency: models is empty, so there is nothing to measure; pass"):
        compare_latency({}, torch.ones(1))
    with pytest.raises(ValueError, match=r"^latency_ms: example_inputs is empty, .*; pass a tensor"):
        latency_ms(nn.Linear(2, 2), None)
    with pytest.raises(ValueError, match=r"^latency_ms: Linear does not run on example_inputs \(tensor of shape \(3,"):
        latency_ms(nn.Linear(2, 2), torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"^latency_ms: measures on a CPU and on CUDA, got a model on meta; move it"):
        latency_ms(nn.Linear(2, 2, device="meta"), torch.ones(1, 2, device="meta"))
    not_a_module: Any = torch.relu
    with pytest.raises(TypeError, match=r"^compare_latency: model must be a torch.nn.Module, got"):
        compare_latency({"a": not_a_module}, torch.ones(1))
