"""What a user got wrong, in one sentence."""

from difflib import get_close_matches


class Mistake(Exception):
    """Ends a command with exit code 2; the message is one sentence with place, value and way out."""


def sentence(error: BaseException) -> str:
    """The message of an error on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def nearest(word: str, words: list[str]) -> str:
    """What ``word`` may have been meant to be, as the end of a sentence."""
    near = get_close_matches(word, words, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(words)}"
