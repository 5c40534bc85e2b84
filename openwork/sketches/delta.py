"""Fine-tuned models as files that hold only what differs from their base model.

Files are those of ``openwork.files.write_model``: safetensors with JSON in their header. A tensor that is stored in
part has, under its name, the final values of its kept entries in row-major order, not differences, so that they come
back bit for bit. Which entries those are, the format says:

* ``"seed"``: nothing but the key of the draw is stored, and the mask is drawn again. What the file holds besides its
  JSON is 16 bytes, seed and number of the draw, and the values.
* ``"coo"``: places in the flattened tensor, int32 (int64 in tensors of 2^31 entries or more), under ``NAME.places``.
* ``"bitmask"``: a bit for every entry, under ``NAME.mask``.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from openwork.files import Json, read_model, sha256_of, write_model
from openwork.forward_pass import check_module
from openwork.sketches.export import Choice, Rule, choose
from openwork.sketches.families import Entries, Family
from openwork.sketches.identity import Identity
from openwork.sketches.key import Backend, Key
from openwork.sketches.masks import Batches, MaskRule, mask, prune_, pruned_weights
from openwork.sketches.module import SketchedModule
from openwork.sketches.objective import check_sketched
from openwork.sketches.sketch import Diagonal

SCHEMA = 1
KIND = "delta"
FORMATS = ("seed", "coo", "bitmask")

Format = Literal["seed", "coo", "bitmask"]
Model = TypeVar("Model", bound=nn.Module)

# No parameter has a name like this.
_HEADER = ".draw"
_WORD = 1 << 64


@dataclass(frozen=True)
class DeltaSize:
    """How large a delta is.

    Args:
        values: Entries that are stored.
        entries: Of all parameters and buffers of the model.
        payload_bytes: Of the file less the JSON in its header.
        file_bytes: Of the file.
    """

    values: int
    entries: int
    payload_bytes: int
    file_bytes: int

    def __str__(self) -> str:
        return f"{self.values:,} of {self.entries:,} values, {self.file_bytes:,} bytes"


def export_delta(
    sketched: SketchedModule,
    base: nn.Module,
    path: str | Path,
    ratio: float,
    *,
    base_id: str,
    format: Format = "seed",
    rule: Rule = "random",
    n: int = 16,
    evaluate: Callable[[nn.Module], float] | None = None,
    batches: Batches | None = None,
    key: Key | None = None,
) -> DeltaSize:
    """Write the pruned model at a keep ratio as base model and sparse delta, atomically.

    The model is that of ``export_submodel`` with the same arguments, and ``load_delta`` gives it back bit for bit.

    Args:
        sketched: Fine-tuned from ``base``, which is its shift.
        base: Whoever loads the delta needs the same.
        path: File to write.
        ratio: That is kept of each family, in (0, 1].
        base_id: Name of the base model, for people; what decides is a checksum.
        format: How the places of the values are stored; ``"seed"`` for ``"random"``, ``"best_of"`` and ``"nested"``
            masks of entries.
        rule: See ``export_submodel``.
        n: See ``export_submodel``.
        evaluate: See ``export_submodel``.
        batches: See ``export_submodel``.
        key: What names the masks; by default ``Key(0, backend="hash")``, whose draws are the same in every version of
            torch and on every device.

    Returns:
        How large it has become.

    Raises:
        TypeError: If ``sketched`` is no ``SketchedModule`` or ``base`` no module.
        ValueError: If an argument is out of range, the format does not fit the rule or the granularity, or ``base`` is
            not what the model was fine-tuned from.
        OSError: If the file cannot be written; it is then as it was.
    """
    check_sketched("export_delta", sketched)
    check_module("export_delta", base)
    if format not in FORMATS:
        raise ValueError(f"export_delta: format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}")
    choice = choose(
        "export_delta",
        sketched,
        ratio,
        rule,
        n,
        evaluate,
        batches,
        Key(0, backend="hash") if key is None else key,
    )
    model = prune_(sketched.dense(), pruned_weights(sketched, choice.masks), batches)
    tensors, start = _tensors(model), _tensors(base)
    _check_base(tensors, start)
    # v + 0 is a positive zero where v is a negative one.
    tensors = {
        name: torch.where(x == start[name].to(x.device), start[name].to(x.device), x) for name, x in tensors.items()
    }
    stored: dict[str, Tensor] = {}
    about: dict[str, Json] = {"kind": KIND, "schema": SCHEMA, "model": type(base).__qualname__, "format": format}
    about |= {"base": {"id": base_id, "sha256": sha256_of(start)}, "result": sha256_of(tensors)}
    if format == "seed":
        about["draw"] = _drawn(sketched, choice, ratio)
        stored[_HEADER] = _words(choice.key.seed, choice.key.draw)
    kept = _kept_by(sketched, choice) if format == "seed" else {}
    entries: dict[str, Json] = {}
    values = 0
    for name, tensor in tensors.items():
        changed = (tensor != start[name].to(tensor.device)).flatten()
        if name in kept:
            if bool((changed & ~kept[name]).any()):
                raise ValueError(
                    f"export_delta: {name!r} differs from the base where its mask keeps nothing, so the shift is not "
                    "the base; wrap the base itself with shift='init' before it is fine-tuned"
                )
            part: Mapping[str, Tensor] = {name: tensor.flatten()[kept[name]]}
        elif not changed.any():
            continue
        else:
            part = _part(name, tensor, changed, format)
        entries[name] = "kept" if name in kept or len(part) > 1 else "whole"
        values += part[name].numel()
        stored |= part
    about["entries"] = entries
    path = Path(path)
    write_model(path, stored, about)
    payload = sum(tensor.nbytes for tensor in stored.values())
    return DeltaSize(values, sum(x.numel() for x in tensors.values()), payload, path.stat().st_size)


def load_delta(path: str | Path, into: Model) -> Model:
    """The fine-tuned model: a base model with a delta.

    Args:
        path: File that ``export_delta`` wrote.
        into: The base model, which is copied and stays as it is.

    Returns:
        A plain module with the very values that were exported, in the mode of ``into``.

    Raises:
        TypeError: If ``into`` is no module.
        ValueError: If it is not the base of this delta, the file is damaged, no delta or of another version, or the
            mask cannot be drawn again here.
        OSError: If the file cannot be read.
    """
    check_module("load_delta", into)
    path = Path(path)
    stored, about = read_model(path)
    if about.get("kind") != KIND:
        raise ValueError(f"load_delta: {path} is no delta; read it with ow.load, or name what export_delta wrote")
    if about.get("schema") != SCHEMA:
        raise ValueError(
            f"load_delta: {path} has schema {about.get('schema')!r}, and this version of openwork reads {SCHEMA}; use "
            "the version that wrote it"
        )
    base = cast("Mapping[str, str]", about["base"])
    found = sha256_of(_tensors(into))
    if found != base["sha256"]:
        raise ValueError(
            f"load_delta: {path} changes the base model {base['id']!r} of checksum {base['sha256'][:12]}, and into is "
            f"another one, of checksum {found[:12]}; pass the base from which it was fine-tuned"
        )
    model = deepcopy(into)
    tensors = _tensors(model)
    kept = _drawn_again(about, stored) if about["format"] == "seed" else {}
    with torch.no_grad():
        for name, how in cast("Mapping[str, str]", about["entries"]).items():
            if how == "whole":
                tensors[name].copy_(stored[name])
            else:
                places = kept[name] if name in kept else _places(name, stored, tensors[name].numel())
                flat = tensors[name].flatten()
                flat[places.to(flat.device)] = stored[name].to(flat.device)
                tensors[name].copy_(flat.view_as(tensors[name]))
    if sha256_of(tensors) != about["result"]:
        draw = cast("Mapping[str, Json]", about.get("draw") or {})
        raise ValueError(
            f"load_delta: {path} does not give the model that was exported, since its mask was drawn by torch "
            f"{draw.get('torch')} and comes out otherwise here; export it with a key of the backend 'hash', or with "
            "format='bitmask'"
        )
    return model


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: x.detach() for name, x in (*model.named_parameters(), *model.named_buffers())}


def _check_base(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """Refuse a base of other tensors than the model.

    Raises:
        ValueError: If one is missing, or of another shape or type.
    """
    for name in (*tensors, *base):
        here, there = tensors.get(name), base.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise ValueError(
                f"export_delta: {name!r} is {_said(here)} in the model and {_said(there)} in the base; pass the base "
                "from which the model was fine-tuned"
            )


def _said(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)} and type {tensor.dtype}"


def _drawn(sketched: SketchedModule, choice: Choice, ratio: float) -> dict[str, Json]:
    """From what a mask is drawn again, seed and number of the draw excepted.

    Raises:
        ValueError: If it cannot be.
    """
    if choice.rule == "magnitude":
        raise ValueError(
            "export_delta: format='seed' draws masks again, and that of rule='magnitude' depends on the weights; take "
            "format='bitmask' or 'coo'"
        )
    families: dict[str, Json] = {}
    for family in sketched.families:
        if not isinstance(family, Entries):
            raise ValueError(
                f"export_delta: format='seed' is for masks of entries, and {family.name!r} has units; take "
                "format='bitmask' or 'coo'"
            )
        families[family.name] = {name: list(shape) for name, shape in family.shapes.items()}
    key = choice.key
    counters: dict[str, Json] = {"step": key.step, "worker": key.worker, "backend": key.backend}
    return {**counters, "rule": choice.rule, "ratio": ratio, "torch": str(torch.__version__), "families": families}


def _kept_by(sketched: SketchedModule, choice: Choice) -> dict[str, Tensor]:
    """What the masks keep of every sketched parameter, booleans ``(numel,)``."""
    return {n: kept for family in sketched.families for n, kept in _kept(family, choice.masks[family.name]).items()}


def _kept(family: Family, weights: Tensor) -> dict[str, Tensor]:
    return {name: cast("Diagonal", one).kept.flatten() for name, one in family.maps(Diagonal(weights)).items()}


def _drawn_again(about: Mapping[str, Json], stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Places of what was kept of every sketched parameter."""
    draw = cast("Mapping[str, Json]", about["draw"])
    seed, number = (int.from_bytes(half, "little") for half in _halves(stored[_HEADER]))
    backend = cast("Backend", draw["backend"])
    key = Key(seed, step=cast("int", draw["step"]), worker=cast("int", draw["worker"]), draw=number, backend=backend)
    found: dict[str, Tensor] = {}
    for family_name, shapes in cast("Mapping[str, Mapping[str, list[int]]]", draw["families"]).items():
        family = Entries(family_name, Identity(), {name: torch.Size(shape) for name, shape in shapes.items()})
        weights = mask(
            family, cast("float", draw["ratio"]), cast("MaskRule", draw["rule"]), key, {}, torch.device("cpu")
        )
        found |= {name: kept.nonzero().flatten() for name, kept in _kept(family, weights).items()}
    return found


def _words(seed: int, draw: int) -> Tensor:
    """Seed and number of the draw in 16 bytes."""
    content = (seed % _WORD).to_bytes(8, "little") + draw.to_bytes(8, "little")
    return torch.tensor(list(content), dtype=torch.uint8)


def _halves(words: Tensor) -> tuple[bytes, bytes]:
    content = bytes(words.tolist())
    return content[:8], content[8:]


def _part(name: str, tensor: Tensor, changed: Tensor, format: Format) -> dict[str, Tensor]:
    """What to store of a tensor: all of it, where places cost more than they save."""
    places = changed.nonzero().flatten()
    part = {name: tensor.flatten()[places]}
    if format == "bitmask":
        part[f"{name}.mask"] = torch.from_numpy(np.packbits(changed.cpu().numpy()))
    else:
        part[f"{name}.places"] = places.to(torch.int32 if changed.numel() < 1 << 31 else torch.int64)
    return part if sum(x.nbytes for x in part.values()) < tensor.nbytes else {name: tensor}


def _places(name: str, stored: Mapping[str, Tensor], count: int) -> Tensor:
    if f"{name}.places" in stored:
        return stored[f"{name}.places"].long()
    return torch.from_numpy(np.unpackbits(stored[f"{name}.mask"].numpy(), count=count)).nonzero().flatten()


__all__ = ["DeltaSize", "Format", "export_delta", "load_delta"]
