"""What a command is doing, for whoever waits at a terminal."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def stages() -> Generator[Callable[[str], None]]:
    """Show one line that names what is being done, on a terminal only.

    Yields:
        A function to be told what comes next.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as line:
        yield line.update
