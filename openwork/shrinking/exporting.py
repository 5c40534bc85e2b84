"""Models for elsewhere: plain tensors, ONNX, and programs of ``torch.export``."""

import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from openwork.files import write_bytes
from openwork.forward_pass import arguments, check_module, first_line, run
from openwork.shrinking.verification import BATCHES, TOLERANCES, Given, batch_size, fresh, outputs, relative
from openwork.wiring import prepared

# Another runtime has kernels of its own: it may differ by this much more than a shrunk model may.
SLACK = 10


def export_tensors(model: nn.Module, path: Path) -> None:
    """Write the state of a model as plain safetensors, for ``safetensors.torch.load_model``.

    Args:
        model: Any module; a tied tensor is written under its first name only, as safetensors asks.
        path: File to write, atomically.

    Raises:
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() == 0 or tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().contiguous().cpu()
    write_bytes(path, to_safetensors(tensors))


def export_program(model: nn.Module, example_inputs: object, path: Path) -> None:
    """Write a model as a program of ``torch.export``, for ``torch.export.load`` where it is deployed.

    The program is the model in evaluation mode, for any batch size. This package never reads it back.

    Args:
        model: Any module that can be traced; not changed.
        example_inputs: As for ``wiring.trace``; what has the length of the first tensor's first dimension there is
            taken for batched.
        path: File to write, atomically.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If the model cannot be traced for any batch size.
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    check_module("export", model)
    args, kwargs = arguments("export", example_inputs)
    with prepared(model):
        program = _program(model, (args, kwargs))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what other versions of torch will do
        torch.export.save(program, file)
    write_bytes(path, file.getvalue())


def export_onnx(model: nn.Module, example_inputs: object, path: Path, *, seed: int = 0) -> float:
    """Write a model as ONNX, for any batch size, and compare what onnxruntime makes of it on fresh inputs.

    Args:
        model: Any module that can be traced; not changed.
        example_inputs: As for ``export_program``.
        path: File to write, atomically.
        seed: Of the fresh inputs.

    Returns:
        The largest difference, relative to the largest output, of batches of 1, 3 and 5.

    Raises:
        TypeError: If ``model`` is no module.
        ModuleNotFoundError: If a library for ONNX is not installed.
        ValueError: If the model cannot be traced or converted, or the outputs differ by more than ten times what
            ``TOLERANCES`` allows for their type; nothing is written then.
        OSError: If ``path`` cannot be written; it is then as it was.
    """
    check_module("export", model)
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"export: ONNX needs {' and '.join(missing)}, not installed here; install them with "
            "pip install 'openwork[onnx]'"
        )
    args, kwargs = arguments("export", example_inputs)
    with prepared(model), torch.no_grad():
        content = _onnx(model, _program(model, (args, kwargs)))
        difference = _check_onnx(model, content, (args, kwargs), torch.Generator().manual_seed(seed))
    write_bytes(path, content)
    return difference


def _program(model: nn.Module, given: Given) -> torch.export.ExportedProgram:
    """The model for any batch size; it is in evaluation mode.

    Raises:
        ValueError: If it does not run, or cannot be traced.
    """
    if batch_size(given) < 2:
        # Torch takes a batch of one for a number that is always one.
        given = fresh(given, 2, torch.Generator().manual_seed(0))
    args, kwargs = given
    size, batch = batch_size(given), torch.export.Dim("batch")

    def dynamic(leaf: object) -> Any:
        batched = isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size
        return {0: batch} if batched else None

    shapes: Any = pytree.tree_map(dynamic, kwargs if kwargs else args)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        run("export", model, args, kwargs)
        raise ValueError(
            f"export: {type(model).__name__} cannot be traced for any batch size ({first_line(error)}); take lengths "
            "from the shapes of tensors there, and use torch.where or torch.cond for what depends on their values"
        ) from error


def _onnx(model: nn.Module, program: torch.export.ExportedProgram) -> bytes:
    """The program in the format's own bytes.

    Raises:
        ValueError: If an operation has no counterpart, or there are too many bytes.
    """
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # else it names every library that is not installed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = cast("Any", torch.onnx.export(program, dynamo=True, verbose=False))
        return converted.model_proto.SerializeToString()
    except Exception as error:
        raise ValueError(
            f"export: {type(model).__name__} cannot be written as ONNX ({first_line(error)}); "
            "use torch-export, or safetensors"
        ) from error
    finally:
        log.setLevel(level)


def _check_onnx(model: nn.Module, content: bytes, given: Given, generator: torch.Generator) -> float:
    """Largest relative difference on fresh inputs.

    Raises:
        ValueError: If it is too large, or onnxruntime does not run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    worst = 0.0
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [wanted.name for wanted in session.get_inputs()]
        for batch in BATCHES:
            inputs = fresh(given, batch, generator)
            expected = outputs(model, inputs)
            tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
            feed = {name: tensor.cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}
            found = [torch.as_tensor(array) for array in session.run(None, feed)]
            for a, b in zip(expected, found, strict=True):
                difference = relative(a.cpu(), b)
                worst = max(worst, difference)
                allowed = SLACK * TOLERANCES.get(a.dtype, 0)
                if not difference <= allowed:
                    raise ValueError(
                        f"outputs of a batch of {batch} differ by {difference:.1e} of the largest, where {allowed:.0e} "
                        "is allowed"
                    )
    except Exception as error:
        raise ValueError(
            f"export: onnxruntime does not reproduce {type(model).__name__} ({first_line(error)}); nothing was "
            "written: use torch-export, or safetensors"
        ) from error
    return worst


__all__ = ["export_onnx", "export_program", "export_tensors"]
