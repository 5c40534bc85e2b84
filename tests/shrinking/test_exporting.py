"""Exports compute what the model does, for any batch size; what cannot be exported is refused."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from safetensors.torch import load_model
from torch import Tensor, nn

from openwork.shrinking import export_onnx, export_program, export_tensors, exporting
from tests.wiring.zoo import ZOO, LeNet, mlp


@pytest.mark.parametrize("name", ["lenet", "nested", "encoder"])
def test_onnx_and_programs_compute_the_same_for_any_batch(name: str, tmp_path: Path) -> None:
    model, x = ZOO[name]()
    modes = [module.training for module in model.modules()]
    assert export_onnx(model, x, tmp_path / "model.onnx") < 1e-5
    export_program(model, x, tmp_path / "model.pt2")
    assert [module.training for module in model.modules()] == modes
    model.eval()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for batch in (1, 4):
        tensor = torch.randn(batch, *(x["inputs"]["x"][0] if name == "nested" else x).shape[1:])
        if name == "nested":
            given = {"inputs": {"x": [tensor]}, "scale": 0.5}
            expected, found = model(**given)["out"], program(**given)["out"]
        else:
            expected, found = model(tensor), program(tensor)
        assert torch.allclose(found, expected, atol=1e-5)
        (output,) = session.run(None, {session.get_inputs()[0].name: tensor.numpy()})
        assert torch.allclose(torch.as_tensor(output), expected, atol=1e-5)


def test_an_example_of_one_sample_will_do(tmp_path: Path) -> None:
    export_program(mlp(), torch.randn(1, 4), tmp_path / "model.pt2")
    assert torch.export.load(tmp_path / "model.pt2").module()(torch.randn(3, 4)).shape == (3, 3)


def test_plain_tensors_load_without_us(tmp_path: Path) -> None:
    model, other = LeNet(), LeNet()
    export_tensors(model, tmp_path / "model.safetensors")
    load_model(other, tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.view(2, 4))


class Inverse(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x)


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for export in (export_onnx, export_program):
        with pytest.raises(
            ValueError, match=r"export: FixedBatch cannot be traced for any batch size \(.*\); take lengths"
        ):
            export(FixedBatch(), torch.randn(2, 4), tmp_path / "model")
        with pytest.raises(
            ValueError, match=r"export: LeNet does not run on example_inputs \(tensor of shape \(2, 3\)\)"
        ):
            export(LeNet(), torch.randn(2, 3), tmp_path / "model")
        model: Any = 3
        with pytest.raises(TypeError, match=r"export: model must be a torch\.nn\.Module, got int"):
            export(model, torch.randn(2, 3), tmp_path / "model")
    with pytest.raises(ValueError, match=r"export: Inverse cannot be written as ONNX \(.*\); use torch-export"):
        export_onnx(Inverse(), torch.eye(3).expand(2, 3, 3), tmp_path / "model")
    # A runtime that computes something else.
    monkeypatch.setattr(exporting, "SLACK", 0)
    with pytest.raises(
        ValueError, match=r"onnxruntime does not reproduce LeNet \(outputs of a batch of 1 differ by .*\); n"
    ):
        export_onnx(LeNet(), torch.randn(2, 1, 28, 28), tmp_path / "model")
    assert not any(tmp_path.iterdir())
