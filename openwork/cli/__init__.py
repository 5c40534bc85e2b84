"""The command line: a shell around recipes and reports.

Options come from a recipe's signature and their help from its docstring, by way of jsonargparse: it needs no
decorators, knows tuples, literals and paths, starts in 65 ms, and reports mistakes as argparse's own public exception,
which becomes one sentence here.
"""

from openwork.cli.main import main

__all__ = ["main"]
