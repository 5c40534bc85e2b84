"""Which command is meant, and how mistakes and stops end."""

import sys
import warnings
from collections.abc import Callable, Sequence

from openwork import __version__
from openwork.cli.listing import recipes
from openwork.cli.mistakes import Mistake, nearest

HELP = """\
usage: openwork COMMAND ...

Train networks whose structure is made while they learn.

commands:
  train [RECIPE]   train a recipe, or go on with --resume RUN; default recipe: ramda_digits
  inspect RECIPE   what a recipe's model could lose, and what blocks the rest, before training
  shrink RUN       a smaller model that computes the same; sizes, arithmetic and times of both
  export RUN       write its model as safetensors, ONNX or torch-export; the small one if it was shrunk
  compare [TASK]   every method on one task, finished networks side by side; default task: digits
  report RUN...    write one self-contained HTML page, and report.json, about runs or a comparison
  recipes          what there is to train, one line each

Every command has --help; `openwork train RECIPE --help` shows the recipe's options with defaults and units.
"""


def _train(arguments: Sequence[str]) -> int:
    from openwork.cli.train import train

    return train(arguments)


def _report(arguments: Sequence[str]) -> int:
    from openwork.cli.report import report

    return report(arguments)


def _inspect(arguments: Sequence[str]) -> int:
    from openwork.cli.inspect import inspect

    return inspect(arguments)


def _shrink(arguments: Sequence[str]) -> int:
    from openwork.cli.shrink import shrink

    return shrink(arguments)


def _export(arguments: Sequence[str]) -> int:
    from openwork.cli.export import export

    return export(arguments)


def _compare(arguments: Sequence[str]) -> int:
    from openwork.cli.compare import compare

    return compare(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "inspect": _inspect,
    "shrink": _shrink,
    "export": _export,
    "compare": _compare,
    "report": _report,
    "recipes": recipes,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; default those of the process.

    Returns:
        The exit code: 0, 2 for a mistake, 1 for a crash, 128 + n for a stop by signal n.
    """
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"openwork {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"openwork: there is no command {command!r}; {nearest(command, list(COMMANDS))}", file=sys.stderr)
        return 2
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            return COMMANDS[command](rest)
    except Mistake as mistake:
        print(f"openwork: {mistake}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        sys.stderr.close()
        return 0


def _note(message: Warning | str, category: type[Warning], *_: object) -> None:
    if issubclass(category, UserWarning):
        print(f"openwork: note: {message}", file=sys.stderr)
