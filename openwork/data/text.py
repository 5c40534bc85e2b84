"""Text as tokens, for language models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openwork.data.packed import read_unpacked
from openwork.data.sources import Source, locate
from openwork.data.splits import Data, Split

_SHAKESPEARE = Source(
    "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
_WIKITEXT = "https://raw.githubusercontent.com/pytorch/examples/77f55b9/word_language_model/data/wikitext-2/"
_WIKITEXT2 = {
    "train.txt": "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
    "valid.txt": "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
    "test.txt": "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
}


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text as numbers.

    Args:
        name: Of the text.
        vocabulary: Characters or words; token i stands for ``vocabulary[i]``.
        train: Tokens to train on, ``(T,)`` int64.
        valid: Tokens to choose models by, ``(T,)`` int64.
        test: Tokens for the final number, ``(T,)`` int64.
    """

    name: str
    vocabulary: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor

    def windows(self, length: int) -> Data:
        """The text cut into windows that do not overlap; the target of each token is the next one.

        Args:
            length: Tokens in a window.

        Returns:
            Inputs and targets ``(N, length)`` int64; what is left at the end of each part is dropped. An empty part
            gives no windows.

        Raises:
            ValueError: If a part that is not empty is not longer than ``length``, or ``length`` is less than 1.
        """
        shortest = min(len(part) for part in (self.train, self.valid, self.test) if len(part))
        if not 1 <= length < shortest:
            raise ValueError(
                f"{self.name}: length must be in 1 to {shortest - 1}, since the shortest part has {shortest} tokens, "
                f"got {length}"
            )

        def cut(tokens: Tensor) -> Split:
            end = max(len(tokens) - 1, 0) // length * length
            return Split(tokens[:end].reshape(-1, length), tokens[1 : end + 1].reshape(-1, length))

        train, valid, test = cut(self.train), cut(self.valid), cut(self.test)
        return Data(self.name, train=train, valid=valid, test=test, classes=len(self.vocabulary))


def text(path: Path, valid: float = 0.05, test: float = 0.05) -> Corpus:
    """The characters of any UTF-8 text, which may be compressed by gzip or bzip2.

    Args:
        path: Of the text.
        valid: Fraction of the characters, before those for testing, that are for validation.
        test: Fraction of the characters, at the end, that are for testing.

    Returns:
        Tokens in the order of the text; the vocabulary is sorted.

    Raises:
        ValueError: If the file is not such a text, or the fractions leave nothing to train on.
        OSError: If it cannot be read.
    """
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise ValueError(f"text: valid and test must be fractions with a sum below 1, got {valid} and {test}")
    characters = _decode(path)
    vocabulary = tuple(sorted(set(characters)))
    tokens = _tokens(characters, vocabulary)
    end = len(tokens) - round(test * len(tokens))
    start = end - round(valid * len(tokens))
    return Corpus(path.name, vocabulary, train=tokens[:start], valid=tokens[start:end], test=tokens[end:])


def shakespeare(data_dir: Path | None = None, *, download: bool = False) -> Corpus:
    """Tiny Shakespeare, 1 115 394 characters, 65 of them different.

    The usual split keeps the first 90 % for training; of the rest, the first half is for validation and the last for
    testing.

    Args:
        data_dir: Folder that holds ``tiny-shakespeare/input.txt``, packed or not; else OPENWORK_DATA.
        download: Fetch a missing file, with a check of its SHA-256.

    Raises:
        ValueError: If the file is not a text.
        OSError: If it is missing, or cannot be read or fetched.

    References:
        Karpathy, https://github.com/karpathy/char-rnn.
    """
    whole = text(locate("tiny-shakespeare", "input.txt", data_dir, _SHAKESPEARE if download else None))
    return Corpus("tiny-shakespeare", whole.vocabulary, train=whole.train, valid=whole.valid, test=whole.test)


def wikitext2(data_dir: Path | None = None, *, download: bool = False) -> Corpus:
    """WikiText-2: two million words of Wikipedia, 33 278 of them different, ``<eos>`` at each line's end included.

    Args:
        data_dir: Folder that holds ``wikitext-2/`` with train.txt, valid.txt and test.txt, packed or not; else
            OPENWORK_DATA.
        download: Fetch missing files, with a check of their SHA-256.

    Returns:
        The official split; the vocabulary is in the order of first use in the training text.

    Raises:
        ValueError: If a file is not a text, or has a word that the training text lacks.
        OSError: If a file is missing, or cannot be read or fetched.

    References:
        Merity et al., arXiv:1609.07843.
    """

    def words(file: str) -> tuple[Path, list[str]]:
        source = Source(f"{_WIKITEXT}{file}", _WIKITEXT2[file]) if download else None
        path = locate("wikitext-2", file, data_dir, source)
        return path, [word for line in _decode(path).splitlines() for word in (*line.split(), "<eos>")]

    parts = [words(file) for file in _WIKITEXT2]
    vocabulary = tuple(dict.fromkeys(parts[0][1]))
    known = set(vocabulary)
    for path, part in parts[1:]:
        if strange := next((word for word in part if word not in known), None):
            raise ValueError(f"{path} has the word {strange!r}, which the training text lacks; fetch both anew")
    train, valid, test = (_tokens(part, vocabulary) for _, part in parts)
    return Corpus("wikitext-2", vocabulary, train=train, valid=valid, test=test)


def _decode(path: Path) -> str:
    try:
        characters = read_unpacked(path).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}; save it as UTF-8"
        ) from error
    if not characters:
        raise ValueError(f"{path} is empty; choose a text to learn from")
    return characters


def _tokens(symbols: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    number: Callable[[str], int] = {symbol: i for i, symbol in enumerate(vocabulary)}.__getitem__
    return torch.tensor([number(symbol) for symbol in symbols])
