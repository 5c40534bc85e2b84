"""``openwork shrink``."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from openwork.cli.mistakes import REFUSALS, Mistake, as_options, sentence
from openwork.cli.options import parse, parser
from openwork.cli.runs import finished
from openwork.cli.stages import stages
from openwork.files import write_json
from openwork.shrinking import NothingZero, save
from openwork.shrinking import shrink as shrink_model
from openwork.training import GAINS, SMALL, measure


def shrink(arguments: Sequence[str]) -> int:
    """Make the model of a run smaller, prove that it computes the same, and measure what that brings.

    Args:
        arguments: The folder of a run, and options.

    Returns:
        The exit code.

    Raises:
        Mistake: If the folder is not a run, an option is wrong, or there is nothing to take out; nothing has been
            written then.
    """
    made = _parser()
    options = parse(made, arguments)
    folder: Path = options.run
    try:
        with stages() as say:
            say(f"building the run in {folder}")
            run, before = finished(folder)
            say(f"tracing and shrinking {type(before).__name__}")
            shrunk = shrink_model(
                before,
                run.example,
                round_to=options.round_to,
                uniform=options.uniform,
                exclude=options.exclude,
                fold=not options.no_fold,
                low_rank=not options.no_low_rank,
                split_recurrent=options.split_recurrent,
            )
            gains = measure(
                run,
                before,
                shrunk,
                seconds=options.seconds,
                threads=options.threads,
                compiled=options.compiled,
                said=say,
            )
            say("writing")
            save(shrunk, folder / SMALL, sparse=options.sparse)
            write_json(folder / GAINS, gains.to_json())
    except NothingZero as error:
        raise Mistake(
            f"nothing in the model of {folder} is exactly zero; train with a larger strength, or for longer"
        ) from error
    except REFUSALS as error:
        raise Mistake(as_options(sentence(error), made.get_defaults().as_dict())) from error
    said = as_options(str(gains), made.get_defaults().as_dict())
    print(f"{shrunk.report}\n\n{said}\n\n{folder / SMALL}")
    return 0


def _parser() -> ArgumentParser:
    made = parser("openwork shrink", "A smaller model that computes the same; sizes, arithmetic and times of both.")
    made.add_argument("run", type=Path, help="folder of a run")
    made.add_argument("--round_to", type=int, default=1, help="keep widths multiples of this; 8 suits most processors")
    made.add_argument("--uniform", action="store_true", help="keep layers of one kind equally wide")
    made.add_argument(
        "--exclude", nargs="+", type=str, default=[], help="names of parameters or modules that keep all units"
    )
    made.add_argument("--no_low_rank", action="store_true", help="do not split layers of low rank in two")
    made.add_argument("--no_fold", action="store_true", help="do not move constants into biases")
    made.add_argument(
        "--split_recurrent", action="store_true", help="split LSTM and GRU into layers of their own widths"
    )
    made.add_argument(
        "--sparse", action="store_true", help="store the zeros that are left as bits; only the file shrinks"
    )
    made.add_argument(
        "--seconds", type=float, default=4.0, help="how long to measure the times of each batch size, in s"
    )
    made.add_argument(
        "--threads", type=int | None, default=None, help="threads to measure with; default torch's number"
    )
    made.add_argument("--compiled", action="store_true", help="also measure under torch.compile")
    return made
