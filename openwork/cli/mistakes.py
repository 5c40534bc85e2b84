"""What a user got wrong, in one sentence."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# What is raised because of what a user gave, and not by a mistake of ours.
REFUSALS = (ValueError, TypeError, OSError, MemoryError)


class Mistake(Exception):
    """Ends a command with exit code 2; the message is one sentence with place, value and way out."""


def sentence(error: BaseException) -> str:
    """The message of an error on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def as_options(message: str, names: Iterable[str]) -> str:
    """A message about arguments of a function, with those that are options here written as such."""
    words = "|".join(map(re.escape, names))
    # A name such as hidden is also a word of the language: it is an argument where something is said of its value.
    return re.sub(rf"\b({words})(?= must\b|=)|\b(?=\w+_)({words})\b", r"--\g<0>", message) if words else message


def nearest(word: str, words: list[str]) -> str:
    """What ``word`` may have been meant to be, as the end of a sentence."""
    near = get_close_matches(word, words, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(words)}"
