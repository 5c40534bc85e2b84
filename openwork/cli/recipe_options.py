"""A recipe's own options, beside those of the command."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from openwork.cli.mistakes import Mistake, sentence
from openwork.cli.options import parse, parser
from openwork.training import Recipe, find_recipe


def chosen_recipe(
    command: str, name: str, arguments: Sequence[str], add: Callable[[ArgumentParser], object] = lambda _: None
) -> tuple[Recipe, Namespace]:
    """A recipe with the arguments that the options give it.

    Args:
        command: What the user typed before the recipe.
        name: Of the recipe.
        arguments: What the user typed after it.
        add: Adds the command's own options.

    Returns:
        The recipe, and the values of all options.

    Raises:
        Mistake: If there is no such recipe or option, or a value is of the wrong type.
    """
    try:
        function = find_recipe(name)
    except ValueError as error:
        raise Mistake(sentence(error)) from error
    made = parser(f"openwork {command} {name}", (function.__doc__ or "").partition("\n")[0], function)
    own = list(made.get_defaults().as_dict())
    add(made)
    values = parse(made, arguments)
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in values.as_dict().items()}
    return Recipe(name, {key: list(v) if isinstance(v := plain[key], tuple) else v for key in own}), values
