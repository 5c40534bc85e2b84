"""Writing a report."""

from collections.abc import Sequence
from pathlib import Path

from openwork.files import write_json, write_text
from openwork.report.contents import contents
from openwork.report.page import page
from openwork.report.read import read_run


def write_report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write ``report.html``, one page that needs no other file and no network, and ``report.json``, its numbers.

    Args:
        folders: Folders of runs, at least one; a run that is not finished is reported as far as it got.
        out: Folder to write to, made if need be; by default that of the only run, or the one around the first of
            several.

    Returns:
        Path of the page.

    Raises:
        ValueError: If no folder is given, or one is not that of a run or holds a damaged or newer file.
        OSError: If a file cannot be read, or ``out`` cannot be written.
    """
    if not folders:
        raise ValueError("write_report: folders is empty; name at least one folder of a run")
    runs = [read_run(Path(folder)) for folder in folders]
    report = contents(runs)
    html = page(report, runs)
    target = Path(out) if out is not None else runs[0].folder if len(runs) == 1 else runs[0].folder.parent
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the folder {target}: {error.strerror}; choose another for out") from error
    write_json(target / "report.json", report.record())
    write_text(target / "report.html", html)
    return target / "report.html"
