"""``openwork compare``."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from openwork.cli.listing import documented
from openwork.cli.mistakes import Mistake, as_options, sentence
from openwork.cli.options import parse, parser
from openwork.cli.stages import stages

DEFAULT = "digits"
HERE = Path(__file__).parents[1] / "comparison"
COLUMNS = (
    "zeros and groups (by number, by size) are of the network as trained; ratio, params, bytes, MACs and ms of what is "
    "left once shrunk"
)


def compare(arguments: Sequence[str]) -> int:
    """Compare methods on a task, or go on with a comparison.

    Args:
        arguments: A task, and options.

    Returns:
        The exit code: 1 if a network failed.

    Raises:
        Mistake: If a task, a method, an option, a value or a folder is wrong; nothing has been written then.
    """
    made = _parser()
    options = parse(made, arguments)
    from openwork.comparison import compare as compared
    from openwork.training import Stopped

    again = f"openwork compare {shlex.join(arguments)}".strip()
    out: Path | None = options.out
    try:
        with stages() as say:
            table = compared(
                options.task,
                [name.strip() for name in options.methods.split(",")] if options.methods else None,
                strengths=_strengths(options.strengths),
                seeds=options.seeds,
                epochs=options.epochs,
                seconds=options.seconds,
                target=options.target,
                search=options.search,
                out=out,
                storage=options.storage,
                study=options.study,
                retry=options.retry,
                said=say,
            )
    except Stopped as stop:
        print(f"openwork: {stop}; go on with: {again}", file=sys.stderr)
        return 128 + stop.number
    except (ValueError, TypeError) as error:
        raise Mistake(as_options(sentence(error), made.get_defaults().as_dict())) from error
    except OSError as error:
        print(
            f"openwork: the comparison stopped ({sentence(error)}); finished trials are kept, go on with: {again}",
            file=sys.stderr,
        )
        return 1
    print(f"{table}\n\n{COLUMNS}\n{table.folder / 'comparison.json'}")
    if table.failures:
        count, again = len(table.failures), again.removesuffix(" --retry")
        print(
            f"openwork: {count} network{' has' if count == 1 else 's have'} failed, see above; train what failed again "
            f"with: {again} --retry",
            file=sys.stderr,
        )
        return 1
    return 0


def _strengths(text: str) -> int | list[float]:
    """A number of strengths, or some.

    Raises:
        ValueError: If it is neither.
    """
    try:
        return int(text) if text.isdecimal() else [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"compare: strengths must be how many, such as 5, or which, such as 1e-4,1e-3, got {text!r}"
        ) from None


def _parser() -> ArgumentParser:
    tasks, methods = documented(HERE / "tasks.py"), documented(HERE / "methods" / "__init__.py")
    made = parser(
        "openwork compare",
        "Every method on one task: same data, same budget, same measures. Goes on where it was stopped; several "
        "processes or machines may work on one comparison at once.",
    )
    made.add_argument(
        "task",
        nargs="?",
        default=DEFAULT,
        help=f"{', '.join(tasks)}, or package.module:function, a function that returns an openwork.comparison.Task",
    )
    made.add_argument(
        "--methods",
        type=str | None,
        default=None,
        help=f"some of {', '.join(methods)}, or package.module:function; separated by commas; default all that fit",
    )
    made.add_argument(
        "--strengths", type=str, default="5", help="how many for each method, or which: 1e-4,1e-3,1e-2 for all"
    )
    made.add_argument("--seeds", type=int, default=3, help="networks of each method and strength")
    made.add_argument(
        "--epochs", type=int | None, default=None, help="budget: passes over the training samples; default the task's"
    )
    made.add_argument("--seconds", type=float | None, default=None, help="budget in s of training instead")
    made.add_argument(
        "--target",
        type=str | None,
        default=None,
        help="density=0.1, macs=0.5 (fractions of the dense network) or latency_ms=2: steer the strengths until every "
        "network is within a twentieth of it",
    )
    made.add_argument(
        "--search", type=int, default=0, help="trials for the settings of each method, chosen on validation samples"
    )
    made.add_argument("--out", type=Path | None, default=None, help="folder; default runs/compare-TASK")
    made.add_argument(
        "--storage",
        type=str | None,
        default=None,
        help="URL of a database that several machines share, such as postgresql://user@host/database; default a file "
        "in the folder",
    )
    made.add_argument(
        "--study", type=str | None, default=None, help="name of the comparison in a shared database; default the task's"
    )
    made.add_argument("--retry", action="store_true", help="train again what failed before")
    return made


__all__ = ["compare"]
