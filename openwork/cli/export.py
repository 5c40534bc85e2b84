"""``openwork export``."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from openwork.cli.mistakes import REFUSALS, Mistake, sentence
from openwork.cli.options import parse, parser
from openwork.cli.runs import finished
from openwork.cli.stages import stages
from openwork.shrinking import export_onnx, export_program, export_tensors, load
from openwork.training import CHECKPOINT, SMALL

Format = Literal["safetensors", "onnx", "torch-export"]
FILES: dict[Format, str] = {
    "safetensors": "exported.safetensors",
    "onnx": "exported.onnx",
    "torch-export": "exported.pt2",
}


def export(arguments: Sequence[str]) -> int:
    """Write the model of a run for use elsewhere: the small one if the run was shrunk, else the finished one.

    Args:
        arguments: The folder of a run, ``--to`` and ``--out``.

    Returns:
        The exit code.

    Raises:
        Mistake: If the folder is not a run, an option is wrong, or the model cannot be written so; nothing has been
            written then.
    """
    made = parser("openwork export", "The model of a run for use elsewhere: the small one if it was shrunk.")
    made.add_argument("run", type=Path, help="folder of a run")
    made.add_argument(
        "--to",
        type=Format,
        required=True,
        help="plain tensors, ONNX (any batch size, compared with onnxruntime), or a program for torch.export.load",
    )
    made.add_argument("--out", type=Path | None, default=None, help=f"file; default {', '.join(FILES.values())} in RUN")
    options = parse(made, arguments)
    folder: Path = options.run
    out: Path = options.out or folder / FILES[options.to]
    said = ""
    try:
        with stages() as say:
            say(f"building the run in {folder}")
            run, model = finished(folder)
            model = _small(folder, model)
            say(f"writing {out}")
            match options.to:
                case "onnx":
                    difference = export_onnx(model, run.example, out)
                    said = f", which onnxruntime computes to {difference:.1e} of the largest output"
                case "torch-export":
                    export_program(model, run.example, out)
                case _:
                    export_tensors(model, out)
    except (*REFUSALS, ModuleNotFoundError) as error:
        raise Mistake(sentence(error)) from error
    print(f"{out}: {out.stat().st_size:,} bytes, {type(model).__name__}{said}")
    return 0


def _small(folder: Path, model: nn.Module) -> nn.Module:
    """The small model of a run that was shrunk, in evaluation mode; else the finished one."""
    small = folder / SMALL
    if not small.exists():
        return model
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists() and checkpoint.stat().st_mtime > small.stat().st_mtime:
        warnings.warn(
            f"{folder} has been trained since {small} was written; shrink it again to export what it is now",
            stacklevel=2,
        )
    return load(small, into=model)
