"""What a name of the user's stands for: a function of this package, or one of their own by its import path."""

import importlib
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any


def find_function(name: str, *, kind: str, home: str, listing: str | None = None) -> Callable[..., Any]:
    """The function that a name stands for.

    Args:
        name: A public function of ``home``, or ``package.module:function``, looked for in the working directory too.
        kind: What such a function is called, for messages.
        home: Module of those with a bare name.
        listing: What lists them, for messages; None has the message list them.

    Returns:
        The function.

    Raises:
        ValueError: If there is none.
    """
    place, _, function = name.rpartition(":")
    if place and os.getcwd() not in sys.path:
        # A function of the user's own lies beside where the command is given.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(place or home)
    except (ImportError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{kind} {name!r}: {place or home} cannot be imported ({error}); give it as package.module:function, from "
            "the folder that holds the package or file, or install it"
        ) from error
    found = getattr(module, function, None)
    if not callable(found) or (not place and function not in module.__all__):
        names = [word for word in getattr(module, "__all__", vars(module)) if not word.startswith("_")]
        near = get_close_matches(function, names, n=3, cutoff=0.4)
        there = f"`{listing}` lists what there is" if listing else f"there are {', '.join(names)}"
        hint = f"did you mean {' or '.join(near)}?" if near else there
        raise ValueError(f"there is no {kind} {name!r}; {hint}")
    return found


__all__ = ["find_function"]
