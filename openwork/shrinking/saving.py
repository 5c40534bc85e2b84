"""Models in files: their tensors, and if they were shrunk, how another model of their class becomes as small."""

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TypeVar, cast

from torch import Tensor, nn

from openwork.files import Json, read_model, write_model
from openwork.forward_pass import first_line
from openwork.shrinking.plan import Plan
from openwork.shrinking.shrink import Shrunk

SCHEMA = 1

Model = TypeVar("Model", bound=nn.Module)


def save(model: nn.Module | Shrunk, path: str | Path, *, sparse: bool = False) -> None:
    """Write a model to a safetensors file, atomically.

    The file holds every parameter and buffer, those included that a ``state_dict`` leaves out; and of a ``Shrunk`` the
    plan, with which ``load`` makes another model of the class as small, and the certificate, which is about the
    weights that it had when it was shrunk, whatever training has made of them since.

    Args:
        model: What ``shrink`` returned, or any module: a small model by itself, without its plan, can only be loaded
            into one that is as small already.
        path: File to write.
        sparse: Store unstructured zeros as bits and the other entries, where that is smaller. The model that comes back
            is the same, and no faster.

    Raises:
        TypeError: If ``model`` is neither.
        OSError: If ``path`` cannot be written; it is then as it was.
        ValueError: If a tensor cannot be stored.
    """
    if not isinstance(model, (nn.Module, Shrunk)):
        raise TypeError(
            f"save: model must be a torch.nn.Module or what ow.shrink returned, got {type(model).__name__}; "
            "pass the model rather than its state"
        )
    module = model.model if isinstance(model, Shrunk) else model
    tensors = _tensors(module)
    about: dict[str, Json] = {
        "schema": SCHEMA,
        "model": type(module).__qualname__,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "plan": model.plan.to_json() if isinstance(model, Shrunk) else None,
        "certificate": model.report.certificate.to_json() if isinstance(model, Shrunk) else None,
    }
    write_model(Path(path), tensors, about, sparse=sparse)


def load(path: str | Path, into: Callable[[], Model] | Model) -> Model:
    """Read the model that ``save`` wrote.

    Args:
        path: File to read.
        into: The class of the model, or anything that builds one when it is called without arguments, as large as the
            model was before it was shrunk; or such a model, which is copied and stays as it is.

    Returns:
        A plain module that can be trained: the tensors, their types and ties are those of the file; device, mode
        (training or evaluation) and which parameters are frozen are those of ``into``.

    Raises:
        TypeError: If ``into`` builds no module, or needs arguments.
        OSError: If the file cannot be read.
        ValueError: If the file is damaged, not one of ours or of a newer version, or for a model of another class or of
            other sizes.
    """
    path = Path(path)
    tensors, about = read_model(path)
    name, plan = _read_about(path, about)
    model = _built(into)
    if type(model).__qualname__ != name:
        raise ValueError(
            f"load: {path} holds a {name}, and into gives a {type(model).__qualname__}; pass the class that was saved"
        )
    _check_sizes(path, model, tensors, plan)
    plan.apply_(model, tensors)
    return model


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict([*model.named_parameters(), *model.named_buffers()])


def _read_about(path: Path, about: Mapping[str, Json]) -> tuple[str, Plan]:
    """Name of the class, and the plan, which changes nothing if the model was not shrunk.

    Raises:
        ValueError: If it is of another version, or not from ``save``.
    """
    schema, name = about.get("schema"), about.get("model")
    if not isinstance(schema, int) or not isinstance(name, str):
        raise ValueError(
            f"load: {path} was not written by ow.save, since it names no model; read its tensors with "
            "openwork.files.read_model"
        )
    if schema != SCHEMA:
        raise ValueError(
            f"load: {path} has schema {schema}, and this version of openwork reads {SCHEMA}; use the version that "
            "wrote it"
        )
    if about.get("plan") is None:
        return name, Plan(name, {}, {})
    try:
        return name, Plan.from_json(cast("Mapping[str, Json]", about["plan"]))
    except ValueError as error:
        raise ValueError(f"load: {path}: {error}") from error


def _built(into: Callable[[], Model] | Model) -> Model:
    """A model that nobody else has.

    Raises:
        TypeError: If there is no way to one.
        ValueError: If its tensors have no entries.
    """
    if isinstance(into, nn.Module):
        model = cast("Model", deepcopy(into))
    elif callable(into):
        what = getattr(into, "__qualname__", type(into).__qualname__)
        try:
            inspect.signature(into).bind()
        except TypeError as error:
            raise TypeError(
                f"load: {what} is called without arguments and needs some ({first_line(error)}); "
                f"pass into=lambda: {what}(...) with those of the model before it was shrunk"
            ) from error
        except ValueError:
            pass  # a builtin without a signature
        model = into()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"load: {what} gives a {type(model).__name__}; pass a class or function that gives a module"
            )
    else:
        raise TypeError(
            f"load: into must be the class of the model, a function that builds it or such a model, got a "
            f"{type(into).__name__}; pass into=MyNet"
        )
    if any(tensor.is_meta for tensor in _tensors(model).values()):
        raise ValueError("load: into gives a model on the meta device; build it on the device that it shall run on")
    return model


def _check_sizes(path: Path, model: nn.Module, tensors: Mapping[str, Tensor], plan: Plan) -> None:
    """Refuse a model of other sizes than the one that was saved, or that was shrunk before it was saved.

    Raises:
        ValueError: If there is a tensor of another shape, one too many or one too few.
    """
    here = {name: tuple(tensor.shape) for name, tensor in _tensors(model).items()}
    replaced = tuple(f"{replacement.path}." for replacement in plan.replacements)
    way = (
        "build it with the sizes that it had before it was shrunk"
        if plan.shapes
        else "build it with the sizes that it was saved with, or save what ow.shrink returned rather than its model"
    )
    expected = {name: tuple(x.shape) for name, x in tensors.items() if not name.startswith(replaced)}
    expected |= {name: old for name, (old, _) in plan.shapes.items() if old is not None and name in expected}
    added = {name for name, (old, _) in plan.shapes.items() if old is None}
    for name, shape in expected.items():
        if name not in added and here.get(name) != shape:
            found = f"has shape {here[name]}" if name in here else "is not there"
            raise ValueError(
                f"load: {path} needs {name!r} of shape {shape} in the {plan.model} that into gives, where it {found}; "
                f"{way}"
            )
    for name in here:
        if name not in expected and not name.startswith(replaced):
            raise ValueError(f"load: {path} has nothing for {name!r} of the {plan.model} that into gives; {way}")


__all__ = ["load", "save"]
