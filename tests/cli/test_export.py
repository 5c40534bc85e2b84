"""``openwork export``: the model of a run for use elsewhere."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from openwork import load
from openwork.cli import main
from openwork.training import rebuild

# The command line prints warnings as notes.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

Says = Callable[..., str]


@pytest.mark.parametrize(("to", "file"), [("safetensors", "safetensors"), ("onnx", "onnx"), ("torch-export", "pt2")])
@pytest.mark.parametrize("shrunk", [False, True])
def test_the_outputs_are_those_of_the_run(
    run: str, to: str, file: str, shrunk: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if shrunk:
        assert main(["shrink", run, "--seconds", "0.05"]) == 0
        capsys.readouterr()
    assert main(["export", run, "--to", to]) == 0
    out = Path(run, f"exported.{file}")
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: {out.stat().st_size:,} bytes, Sequential")
    assert printed.err == ""

    again = rebuild(Path(run))
    model = again.finish()
    if shrunk:
        model = load(Path(run, "small.safetensors"), into=model)
    x = torch.randn(7, *again.example.shape[1:])
    expected = model(x)
    if to == "safetensors":
        tensors = load_file(out)
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
            name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
        }
        model.load_state_dict(tensors)
        found = model(x)
    elif to == "onnx":
        import onnxruntime

        assert "which onnxruntime computes to" in printed.out
        session = onnxruntime.InferenceSession(out)
        found = torch.as_tensor(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    else:
        found = torch.export.load(out).module()(x)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_file_of_choice(run: str) -> None:
    assert main(["export", run, "--to", "safetensors", "--out", "here.safetensors"]) == 0
    assert Path("here.safetensors").exists()
    assert not Path(run, "exported.safetensors").exists()


def test_a_small_model_older_than_the_checkpoint_is_told(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shrink", run, "--seconds", "0.05"]) == 0
    os.utime(Path(run, "small.safetensors"), (0, 0))
    assert main(["export", run, "--to", "safetensors"]) == 0
    assert "run has been trained since run/small.safetensors was written; shrink it again" in capsys.readouterr().err


def test_a_mistake_is_one_sentence(says: Says, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert says("export", run) == ("export: the following arguments are required: to; see openwork export --help")
    assert says("export", run, "--to", "tflite").startswith(
        "export: --to must be one of 'safetensors', 'onnx', 'torch-export', got 'tflite'; see openwork export --help"
    )
    assert says("export", "nowhere", "--to", "onnx") == (
        "nowhere is not a run folder: it has no recipe.json; name a folder that `openwork train` wrote"
    )
    assert says("export", run, "--to", "safetensors", "--out", "none/file").startswith(
        "cannot write none/file: No such file or directory"
    )
    Path(run, "small.safetensors").write_bytes(b"damaged")
    assert says("export", run, "--to", "onnx").startswith("run/small.safetensors is not a safetensors file")
    Path(run, "small.safetensors").unlink()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert says("export", run, "--to", "onnx") == (
        "export: ONNX needs onnxruntime, not installed here; install them with pip install 'openwork[onnx]'"
    )
