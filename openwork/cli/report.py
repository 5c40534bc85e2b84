"""``openwork report``."""

from collections.abc import Sequence
from pathlib import Path

from openwork.cli.mistakes import Mistake, sentence
from openwork.cli.options import parse, parser


def report(arguments: Sequence[str]) -> int:
    """Write the report of one or more runs, or of a comparison, and name it.

    Args:
        arguments: Folders of runs or that of a comparison, and ``--out``.

    Returns:
        The exit code.

    Raises:
        Mistake: If a folder is neither of a run nor of a comparison, or the report cannot be written.
    """
    made = parser("openwork report", "One self-contained HTML page, and report.json, about runs or a comparison.")
    made.add_argument("runs", nargs="+", type=Path, help="folders of runs, or that of one comparison")
    made.add_argument("--out", type=Path | None, default=None, help="folder to write to; default the run's own")
    options = parse(made, arguments)
    from openwork.report import write_report

    try:
        page = write_report(options.runs, options.out)
    except (ValueError, OSError) as error:
        raise Mistake(sentence(error)) from error
    print(page)
    return 0
