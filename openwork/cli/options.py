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


def parse(made: ArgumentParser, arguments: Sequence[str], unknown: str | None = None) -> Namespace:
    """Parse arguments.

    Args:
        made: The parser.
        arguments: What the user typed after the command.
        unknown: Way out for who types an option that does not exist; default the nearest names.

    Returns:
        Values by name.

    Raises:
        Mistake: If an option does not exist or a value is of the wrong type.
    """
    try:
        # Names of parameters have underscores; options may be typed with hyphens.
        return made.parse_args([re.sub(r"^--[^=]+", lambda o: "--" + o[0][2:].replace("-", "_"), a) for a in arguments])
    except ArgumentError as error:
        raise Mistake(_explain(made, sentence(error), unknown)) from None


def _explain(made: ArgumentParser, message: str, unknown: str | None) -> str:
    command = made.prog.removeprefix("openwork ")
    if found := re.match(r"unrecognized arguments: (\S+)", message, flags=re.IGNORECASE):
        if not found[1].startswith("-"):
            first = "a recipe comes before its options" if command.startswith(("train", "inspect")) else "leave it out"
            return f"{command} takes no argument {found[1]!r} there; {first}"
        options = [f"--{name}" for name in ("help", *made.get_defaults().as_dict())]
        return f"{command} has no option {found[1].partition('=')[0]}; {unknown or nearest(found[1], options)}"
    if found := re.match(r'Parser key "(\w+)": Expected a (.+)\. Got value: (.*)$', message):
        kind = re.sub(r"<class '(\w+)'>|typing\.", lambda match: match[1] or "", found[2])
        choices = re.fullmatch(r"Literal\[(.*)\]", kind)
        must = f"one of {choices[1]}" if choices else f"of type {kind}"
        return f"{command}: --{found[1]} must be {must}, got {found[3]!r}; see {made.prog} --help"
    return f"{command}: {message}; see {made.prog} --help"
