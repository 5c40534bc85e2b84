"""``openwork train``."""

import sys
import traceback
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from jsonargparse import Namespace

from openwork.cli.mistakes import REFUSALS, Mistake, as_options, sentence
from openwork.cli.options import parse, parser
from openwork.cli.recipe_options import chosen_recipe
from openwork.training import (
    CHECKPOINT,
    BadCheckpoint,
    Metrics,
    Run,
    Stopped,
    check_new,
    fit,
    is_lost,
    new_folder,
    processes,
    read_recipe,
    stop_requests,
    timeout_s,
    write_recipe,
)

DEFAULT = "ramda_digits"
OUT, RESUME, TRACKER = "out", "resume", "tracker"
CRASH = "crash.txt"
_OUT_HELP = "folder for the run, new or empty; default runs/RECIPE-N"
_RESUME_HELP = "go on with the run in this folder instead; takes no other option but --tracker"
_TRACKER_HELP = "also log numbers for it"


def train(arguments: Sequence[str]) -> int:
    """Train a recipe, or go on with a run.

    Args:
        arguments: A recipe and its options, or ``--resume`` and a folder.

    Returns:
        The exit code.

    Raises:
        Mistake: If a recipe, an option, a value, a file or a folder is wrong; nothing has been written then.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    name, options = (arguments[0], arguments[1:]) if named else (DEFAULT, arguments)
    if any(option == "--resume" or option.startswith("--resume=") for option in options):
        return _resume(name if named else None, options)
    recipe, chosen = chosen_recipe(
        "train",
        name,
        options,
        lambda made: [
            made.add_argument(f"--{OUT}", type=Path | None, default=None, help=_OUT_HELP),
            made.add_argument(f"--{RESUME}", type=Path | None, default=None, help=_RESUME_HELP),
            made.add_argument(f"--{TRACKER}", choices=["tensorboard"], default=None, help=_TRACKER_HELP),
        ],
    )
    out = chosen[OUT] or _next_folder(name)
    try:
        main = processes().is_main_process
        if main:
            check_new(out)
        run = recipe.build()
        if main:
            write_recipe(new_folder(out), recipe)
    except REFUSALS as error:
        raise Mistake(as_options(sentence(error), recipe.arguments)) from error
    return _drive(run, out, chosen)


def _resume(name: str | None, arguments: Sequence[str]) -> int:
    made = parser("openwork train --resume", "Go on with a run, as it was begun.")
    made.add_argument(f"--{RESUME}", type=Path, help="folder of the run")
    made.add_argument(f"--{TRACKER}", choices=["tensorboard"], default=None, help=_TRACKER_HELP)
    chosen = parse(
        made, arguments, "a run goes on with the arguments it was begun with; begin a new one to change them"
    )
    folder: Path = chosen[RESUME]
    try:
        recipe = read_recipe(folder)
        if name is not None and name != recipe.name:
            raise ValueError(
                f"{folder} is a run of {recipe.name}, not of {name}; leave the name out, or begin a run of {name}"
            )
        run = recipe.build()
    except REFUSALS as error:
        raise Mistake(sentence(error)) from error
    return _drive(run, folder, chosen)


def _next_folder(name: str) -> Path:
    if processes().num_processes > 1:
        raise Mistake("several processes need one folder; name it with --out")
    stem = name.rpartition(":")[2]
    return next(path for n in count(1) if not (path := Path("runs") / f"{stem}-{n}").exists())


def _drive(run: Run, out: Path, chosen: Namespace) -> int:
    if processes().is_main_process:
        (out / CRASH).unlink(missing_ok=True)
    try:
        processes().wait_for_everyone()
        final = fit(run, out, tracker=chosen[TRACKER])
    except BadCheckpoint as error:
        raise Mistake(sentence(error)) from error
    except Stopped as stop:
        print(f"openwork: {stop}; go on with: openwork train --resume {out}", file=sys.stderr)
        return 128 + stop.number
    except Exception as error:
        # Launchers end the others when a process is lost, and must not cut off what is said of it.
        with stop_requests():
            _note_crash(out, error)
        return 1
    if processes().is_main_process:
        print(_summary(out, final))
    return 0


def _note_crash(out: Path, error: Exception) -> None:
    file = out / CRASH
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(traceback.format_exc())
        where = f"the traceback is in {file}"
    except FileExistsError:  # another process of the run has said it
        return
    except OSError:  # perhaps the disk is full, which is what crashed
        traceback.print_exc()
        where = "the traceback is above"
    saved = "the last checkpoint goes on" if (out / CHECKPOINT).exists() else "there is no checkpoint yet; begin again"
    what = f"training crashed ({type(error).__name__}: {sentence(error)})"
    if is_lost(error):
        what = f"another process of the run is gone, or has not answered for {timeout_s():g} s"
    print(f"openwork: {what}; {where}, and {saved} with: openwork train --resume {out}", file=sys.stderr)


def _summary(out: Path, final: Metrics) -> str:
    """One line about the finished model."""
    parts: list[str] = []
    for key, text in (
        ("test_accuracy", "test accuracy {:.1%}"),
        ("valid_accuracy", "validation accuracy {:.1%}"),
        ("compression_ratio", "compression ratio {:.3g}"),
        ("weighted_group_sparsity", "weighted group sparsity {:.1%}"),
        ("low_rank_level", "low-rank level {:.1%}"),
        ("seconds", "{:.1f} s"),
    ):
        value = final.get(key)
        if key == "weighted_group_sparsity" and "compression_ratio" in final:
            continue  # which says the same
        parts += [text.format(value)] if isinstance(value, float) else []
    if isinstance(final.get("total"), int) and "compression_ratio" not in final:
        parts.insert(-1, f"{final['alive']} of {final['total']} groups alive")
    return f"{out}: {', '.join(parts)}"
