"""What only a device can show: no waiting in a step, capture, and the same numbers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from openwork.optim import RAMDA, RMDA, FactorizedSGD, OriginalProxSGD, ProxAdamW, ProximalOptimizer, ProxSGD
from openwork.penalties import L1, GroupLasso, Penalty, SparseGroupLasso

pytestmark = pytest.mark.gpu
CLASSES = [RMDA, RAMDA, ProxSGD, OriginalProxSGD, ProxAdamW]


def build(cls: type[ProximalOptimizer], device: str) -> tuple[nn.Linear, ProximalOptimizer]:
    torch.manual_seed(0)
    model = nn.Linear(30, 20).to(device, torch.float64)
    groups = [{"params": [model.weight], "penalty": GroupLasso(0.02)}, {"params": [model.bias]}]
    return model, cls(groups, lr=0.05)  # pyright: ignore[reportCallIssue]


def set_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for param in model.parameters():
        gradient = torch.randn(param.shape, generator=generator, dtype=param.dtype).to(param.device)
        param.grad = gradient if param.grad is None else param.grad.copy_(gradient)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_device_computes_what_the_cpu_does(cls: type[ProximalOptimizer]) -> None:
    models: list[nn.Linear] = []
    for device in ("cpu", "cuda"):
        model, optimizer = build(cls, device)
        for step in range(20):
            set_gradients(model, step)
            optimizer.step()
        models.append(model)
    assert torch.allclose(models[0].weight, models[1].weight.cpu(), rtol=0, atol=1e-10)
    assert torch.equal(models[0].weight == 0, models[1].weight.cpu() == 0)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_step_never_waits_for_the_device(cls: type[ProximalOptimizer]) -> None:
    model, optimizer = build(cls, "cuda")
    for step in range(3):
        set_gradients(model, step)
        optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert optimizer.read_out().total == 30


@pytest.mark.parametrize("cls", [RMDA, RAMDA, ProxSGD, ProxAdamW])
def test_a_captured_step_goes_on_counting(cls: type[ProximalOptimizer]) -> None:
    results: list[torch.Tensor] = []
    for captured in (False, True):
        model, optimizer = build(cls, "cuda")
        for step in range(3):
            set_gradients(model, step)
            optimizer.step()
        graph = torch.cuda.CUDAGraph()
        if captured:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                optimizer.step()
        for step in range(3, 8):
            set_gradients(model, step)
            graph.replay() if captured else optimizer.step()
        results.append(model.weight.detach().clone())
    assert torch.allclose(*results, rtol=0, atol=1e-12)


def test_a_bad_gradient_changes_nothing() -> None:
    model, optimizer = build(RAMDA, "cuda")
    set_gradients(model, 0)
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    set_gradients(model, 1)
    model.weight.grad[0, 0] = torch.inf  # pyright: ignore[reportOptionalSubscript]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.skipped == 1


def test_half_precision_weights_keep_single_precision_state() -> None:
    weight = nn.Parameter(torch.randn(64, 64, device="cuda", dtype=torch.bfloat16))
    optimizer = RAMDA([weight], penalty=SparseGroupLasso(1e-3))
    weight.grad = torch.randn_like(weight)
    optimizer.step()
    assert {v.dtype for v in optimizer.state[weight].values()} == {torch.float32, torch.bool}


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("cls", [RMDA, RAMDA, ProxAdamW])
def test_groups_may_be_on_several_devices(cls: Any, fused: bool) -> None:
    models: list[nn.ModuleList] = []
    for second in ("cuda:0", "cuda:1"):
        torch.manual_seed(0)
        model = nn.ModuleList(nn.Linear(30, 20).to(device, torch.float64) for device in ("cuda:0", second))
        groups = [{"params": list(layer.parameters())[:1], "lr": 0.05} for layer in model]
        optimizer = cls(groups, penalty=GroupLasso(0.02), fused=fused)
        for step in range(6):
            set_gradients(model, step)
            torch.cuda.set_sync_debug_mode("error" if step > 2 else "default")
            try:
                optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert optimizer.skipped == 0
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one.cpu(), other.cpu())


# -- fused steps ----------------------------------------------------------------------------------------------------


def fused_or_not(cls: Any, penalty: Penalty | None, fused: bool, dtype: torch.dtype) -> tuple[nn.Module, Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.Flatten(), nn.Linear(500, 130), nn.Linear(130, 5)).to("cuda", dtype)
    options: dict[str, Any] = {"depth": 3, "lam": 1e-3} if cls is FactorizedSGD else {"penalty": penalty}
    return model, cls(list(model.parameters())[::2], lr=0.05, fused=fused, capturable=True, **options)


FUSED = [
    *(
        (cls, penalty)
        for cls in (RAMDA, RMDA, ProxAdamW)
        for penalty in (GroupLasso(0.02), SparseGroupLasso(0.02), L1(0.01))
    ),
    (FactorizedSGD, None),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cls", "penalty"), FUSED)
def test_a_fused_step_is_the_plain_one(cls: Any, penalty: Penalty | None, dtype: torch.dtype) -> None:
    pytest.importorskip("triton")
    models: list[nn.Module] = []
    for fused in (True, False):
        model, optimizer = fused_or_not(cls, penalty, fused, dtype)
        for step in range(10):
            set_gradients(model, step)
            optimizer.step()
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(("cls", "penalty"), FUSED)
def test_a_fused_step_never_waits_and_goes_on_counting_when_captured(cls: Any, penalty: Penalty | None) -> None:
    pytest.importorskip("triton")
    models: list[nn.Module] = []
    for captured in (False, True):
        model, optimizer = fused_or_not(cls, penalty, True, torch.float64)
        for step in range(3):
            set_gradients(model, step)
            optimizer.step()
        graph = torch.cuda.CUDAGraph()
        if captured:
            # As a captured backward pass would do it: their addresses are new.
            for param in model.parameters():
                param.grad = torch.zeros_like(param)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                optimizer.step()
        for step in range(3, 8):
            set_gradients(model, step)
            torch.cuda.set_sync_debug_mode("error")
            try:
                graph.replay() if captured else optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        models.append(model)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [RAMDA, RMDA, ProxAdamW, FactorizedSGD])
def test_a_fused_step_with_a_bad_gradient_changes_nothing(cls: Any) -> None:
    pytest.importorskip("triton")
    model, optimizer = fused_or_not(cls, GroupLasso(0.02), True, torch.float32)
    set_gradients(model, 0)
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    states = [{k: v.clone() for k, v in state.items()} for state in optimizer.state.values()]
    set_gradients(model, 1)
    weight = next(model.parameters())
    assert weight.grad is not None
    weight.grad.fill_(torch.nan)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for then, now in zip(states, optimizer.state.values(), strict=True):
        assert all(torch.equal(then[name], now[name]) for name in then)
