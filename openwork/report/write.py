"""Writing a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from openwork.files import Json, write_json, write_text
from openwork.report.compared import COMPARISON, read_comparison
from openwork.report.compared_contents import compared_contents
from openwork.report.compared_lives import compared_lives
from openwork.report.compared_page import compared_page
from openwork.report.contents import contents
from openwork.report.page import page
from openwork.report.read import read_run


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write ``report.html``, one page that needs no other file and no network, and ``report.json``, its numbers.

    Args:
        folders: Folders of runs, at least one, or the folder of a comparison; what is not finished is reported as far
            as it got.
        out: Folder to write to, made if need be; by default that of the only run or comparison, or the one around the
            first of several runs.

    Returns:
        Path of the page.

    Raises:
        ValueError: If no folder is given, one is not that of a run or holds a damaged or newer file, or a comparison
            is not alone.
        OSError: If a file cannot be read, or ``out`` cannot be written.
    """
    if not folders:
        raise ValueError("write_report: folders is empty; name at least one folder of a run")
    paths = [Path(folder).absolute() for folder in folders]
    if compared := [path for path in paths if (path / COMPARISON).is_file()]:
        if len(paths) > 1:
            raise ValueError(
                f"write_report: {compared[0]} is a comparison, which has a report of its own; name it alone"
            )
        record, html = _comparison(paths[0])
    else:
        record, html = _runs(paths)
    target = Path(out) if out is not None else paths[0] if len(paths) == 1 else paths[0].parent
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {target}: {error.strerror}; choose another for out") from error
    write_json(target / "report.json", record)
    write_text(target / "report.html", html)
    return target / "report.html"


def _runs(folders: Sequence[Path]) -> tuple[Mapping[str, Json], str]:
    runs = [read_run(folder) for folder in folders]
    report = contents(runs)
    return report.record(), page(report, runs)


def _comparison(folder: Path) -> tuple[Mapping[str, Json], str]:
    compared = read_comparison(folder)
    lives = compared_lives(compared)
    report = compared_contents(compared, lives)
    return report.record(), compared_page(report, lives)
