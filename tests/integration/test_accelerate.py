"""In accelerate: prepared, accumulated, and resumed from its own checkpoints."""

import copy
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from openwork.optim import RAMDA, ProximalOptimizer, Stages, regularize, unwrap
from openwork.penalties import GroupLasso


@pytest.fixture(autouse=True)
def forget_accelerators() -> Iterator[None]:
    """Accelerate keeps process-wide state."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def parts(accelerator: Accelerator):
    """A prepared model, optimizer and loader, and the optimizer inside."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(64, 8)
    data = TensorDataset(x, (x[:, :3].sum(1) > 0).long())
    optimizer = RAMDA(regularize(model, GroupLasso(0.01)), lr=0.02, averaging=0.5)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=8))
    inner = unwrap(optimizer)
    assert isinstance(inner, ProximalOptimizer)
    return model, optimizer, loader, inner


def epoch(accelerator: Accelerator, model, optimizer, loader) -> None:
    for x, y in loader:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.cross_entropy(model(x), y))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def test_prepared_it_trains_to_exact_zeros() -> None:
    accelerator = Accelerator(cpu=True)
    model, optimizer, loader, inner = parts(accelerator)
    assert inner.param_groups[0]["penalty"] == GroupLasso(0.01)
    stages = Stages(optimizer, [2], steps_per_epoch=len(loader), total=8)
    for _ in range(8):
        epoch(accelerator, model, optimizer, loader)
    assert stages.state_dict()["position"] == 64
    inner.settle_()
    seen = inner.read_out()
    assert 0 < seen.alive < seen.total == 14
    assert seen.alive == sum(int(p.any(0).sum()) for p in model.parameters() if p.ndim == 2)


def test_accumulated_batches_are_one_step() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model, optimizer, loader, inner = parts(accelerator)
    stages = Stages(optimizer, [])
    epoch(accelerator, model, optimizer, loader)
    assert stages.state_dict()["position"] == 2
    assert inner.param_groups[0]["step"] == 2


def test_mixed_precision_trains() -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model, optimizer, loader, inner = parts(accelerator)
    epoch(accelerator, model, optimizer, loader)
    assert {x.dtype for state in inner.state.values() for x in state.values()} == {torch.float32, torch.bool}
    assert inner.skipped == 0


def test_a_skipped_step_of_a_scaler_advances_nothing() -> None:
    Accelerator(cpu=True)
    weight = nn.Parameter(torch.randn(6, 4))
    inner = RAMDA([weight], penalty=GroupLasso(0.01))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = AcceleratedOptimizer(inner, scaler=scaler)
    stages = Stages(optimizer, [])
    before: object = None
    for factor in (1.0, torch.inf):
        before = copy.deepcopy((inner.state_dict(), stages.state_dict()))
        optimizer.zero_grad()
        scaler.scale(factor * weight.square().sum()).backward()
        optimizer.step()
        assert optimizer.step_was_skipped is (factor != 1.0)
    assert str((inner.state_dict(), stages.state_dict())) == str(before)
    assert inner.param_groups[0]["step"] == stages.state_dict()["position"] == 1


def test_its_checkpoints_resume_bit_for_bit(tmp_path) -> None:
    accelerator = Accelerator(cpu=True)
    model, optimizer, loader, _ = parts(accelerator)
    stages = Stages(optimizer, [12])
    accelerator.register_for_checkpointing(stages)
    epoch(accelerator, model, optimizer, loader)
    accelerator.save_state(str(tmp_path))
    for _ in range(2):
        epoch(accelerator, model, optimizer, loader)
    wanted = [p.detach().clone() for p in model.parameters()]

    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    accelerator.load_state(str(tmp_path))
    assert stages.state_dict()["position"] == 8
    for _ in range(2):
        epoch(accelerator, model, optimizer, loader)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), wanted, strict=True))
