"""``openwork inspect``."""

from collections.abc import Sequence

from openwork.cli.mistakes import REFUSALS, Mistake, as_options, sentence
from openwork.cli.options import parse, parser
from openwork.cli.recipe_options import chosen_recipe
from openwork.cli.stages import stages
from openwork.factorizations import collapse, factorization_of
from openwork.sketches import SketchedModule
from openwork.wiring import inspect as wiring_of


def inspect(arguments: Sequence[str]) -> int:
    """Print what a recipe's model could lose, and what blocks the rest, before training.

    Args:
        arguments: A recipe and its options.

    Returns:
        The exit code.

    Raises:
        Mistake: If the recipe, an option or a value is wrong, or its model cannot be traced.
    """
    if not arguments or arguments[0].startswith("-"):
        made = parser(
            "openwork inspect", "What a recipe's model could lose, and what blocks the rest, before training."
        )
        made.add_argument(
            "recipe", help="a recipe of `openwork recipes`, or package.module:function; its options follow"
        )
        parse(made, arguments)
    name, *options = arguments
    recipe, _ = chosen_recipe("inspect", name, options)
    try:
        with stages() as say:
            say(f"building {name}")
            run = recipe.build()
            # What shrink will see: the network without what sketches it, weights and not their factors.
            model = run.model.module if isinstance(run.model, SketchedModule) else run.model
            if factorization_of(model) is not None:
                collapse(model, threshold=0.0)
            say(f"tracing {type(model).__name__}")
            found = wiring_of(model, run.example)
    except REFUSALS as error:
        raise Mistake(as_options(sentence(error), recipe.arguments)) from error
    print(found)
    return 0
