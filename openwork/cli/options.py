"""Options from a function's signature, and mistakes in them as one sentence."""

import re
from argparse import ArgumentError
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser, Namespace

from openwork.cli.mistakes import Mistake, nearest, sentence


def parser(program: str, description: str, function: Callable[..., object] | None = None) -> ArgumentParser:
    """A parser with an option for each parameter of a function.

    Args:
        program: What the user typed, for the usage line.
        description: First line of the help.
        function: Typed and documented; None for no options yet.

    Returns:
        The parser.
    """
    made = ArgumentParser(prog=program, description=description, exit_on_error=False)
    if function is not None:
        made.add_function_arguments(function)
    return made


def parse(made: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse arguments.

    Args:
        made: The parser.
        arguments: What the user typed after the command.

    Returns:
        Values by name.

    Raises:
        Mistake: If an option does not exist or a value is of the wrong type.
    """
    try:
        # Names of parameters have underscores; options may be typed with hyphens.
        return made.parse_args([re.sub(r"^--[^=]+", lambda o: "--" + o[0][2:].replace("-", "_"), a) for a in arguments])
    except ArgumentError as error:
        raise Mistake(_explain(made, sentence(error))) from None


def _explain(made: ArgumentParser, message: str) -> str:
    options = [option for action in made._actions for option in action.option_strings]  # pyright: ignore
    if found := re.match(r"unrecognized arguments: (\S+)", message, flags=re.IGNORECASE):
        return f"{made.prog} has no option {found[1]}; {nearest(found[1], options)}"
    if found := re.match(r'Parser key "(\w+)": Expected a (.+)\. Got value: (.*)$', message):
        kind = re.sub(r"<class '(\w+)'>|typing\.", lambda match: match[1] or "", found[2])
        return f"{made.prog}: --{found[1]} must be of type {kind}, got {found[3]!r}; see {made.prog} --help"
    return f"{made.prog}: {message}; see {made.prog} --help"
