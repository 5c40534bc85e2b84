"""Tracing leaves the model alone, gives parameters their names back, and says in one sentence what it cannot do."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.wiring import inspect, trace
from tests.wiring.zoo import ZOO


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) if x.sum() > 0 else x


def test_names_and_ties() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    net = nn.Sequential(model["a"], nn.BatchNorm1d(4), model["b"])
    traced = trace(net, torch.randn(2, 4))
    assert set(traced.parameters.values()) == {"0.weight", "0.bias", "1.weight", "1.bias", "2.bias"}
    assert {"1.running_mean", "1.running_var"} <= set(traced.buffers.values())


def test_the_model_is_as_before() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inspect(model, torch.randn(2, 4))
    assert [module.training for module in model] == [True, False, True]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_the_cache_of_a_hugging_face_model_is_off_only_while_tracing() -> None:
    class Config:
        use_cache = True

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.seen, self.linear = Config(), [], nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(self.config.use_cache)
            return self.linear(x)

    model = Cached()
    trace(model, torch.randn(2, 4))
    assert not any(model.seen)
    assert model.config.use_cache


@pytest.mark.parametrize("inputs", [(), [], {}, None])
def test_no_inputs(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"^trace: example_inputs is empty, .*; pass a tensor, a tuple"):
        inspect(nn.Linear(4, 4), inputs)


def test_no_module() -> None:
    not_a_module: Any = torch.relu
    with pytest.raises(TypeError, match=r"^trace: model must be a torch.nn.Module, got"):
        inspect(not_a_module, torch.randn(2))


def test_wrong_shape() -> None:
    message = (
        r"^trace: Linear does not run on example_inputs \(tensor of shape \(2, 3\)\): "
        r"mat1 and mat2 shapes cannot be multiplied.*; pass inputs that model\(\.\.\.\) accepts$"
    )
    with pytest.raises(ValueError, match=message):
        inspect(nn.Linear(4, 4), torch.randn(2, 3))


def test_wrong_keyword() -> None:
    with pytest.raises(ValueError, match=r"does not run on example_inputs \(y=tensor of shape \(2, 4\)\)"):
        inspect(nn.Linear(4, 4), {"y": torch.randn(2, 4)})


def test_control_flow_that_depends_on_data() -> None:
    model = Branching().train()
    with pytest.raises(ValueError, match=r"^trace: Branching cannot be traced, .*; use torch\.where or torch\.cond"):
        inspect(model, torch.randn(2, 4))
    assert model.training


def test_symbolic_tracing_is_the_fallback() -> None:
    class NotForExport(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise RuntimeError("not for export")
            return self.b(self.a(x).relu())

    (coupling,) = inspect(NotForExport(), torch.randn(2, 4)).removable
    assert [part.name for part in coupling.slices()] == ["a.weight", "a.bias", "b.weight"]


@pytest.mark.filterwarnings("ignore")  # transformers on its own configurations
def test_experts_are_as_before() -> None:
    model: Any
    model, inputs = ZOO["qwen3_moe"]()
    before = model.get_experts_implementation()
    inspect(model, inputs)
    assert model.get_experts_implementation() == before


def test_a_deep_model_takes_no_recursion_and_time_in_proportion() -> None:
    def seconds(depth: int) -> float:
        layers = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), nn.ReLU())]
        start = time.process_time()  # of this process: a busy machine does not matter
        wiring = inspect(nn.Sequential(*layers), torch.randn(2, 8))
        assert len(wiring.removable) == depth - 1
        return time.process_time() - start

    seconds(10)
    # Generous: a quadratic cost would be 64 times as much.
    assert seconds(200) < 32 * seconds(25)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # transformers on its own configurations
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_large_models_take_less_than_20_seconds(name: str) -> None:
    import transformers as hf

    with torch.device("meta"):
        if name == "gpt2":
            model: nn.Module = hf.GPT2LMHeadModel(hf.GPT2Config())
        else:
            # A quarter of the layers, in a quarter of the time; that it goes in proportion is tested above.
            model = hf.LlamaForCausalLM(hf.LlamaConfig(num_key_value_heads=8, num_hidden_layers=8))
        inputs = {"input_ids": torch.zeros(1, 8, dtype=torch.int64)}
    start = time.process_time()  # of this process: a busy machine does not matter
    wiring = inspect(model, inputs)
    # Two threads, so 20 seconds.
    assert time.process_time() - start < {"gpt2": 40, "llama": 10}[name]
    layers = {"gpt2": 12, "llama": 8}[name]
    assert len([c for c in wiring.removable if c.width in (12, 8)]) == layers
