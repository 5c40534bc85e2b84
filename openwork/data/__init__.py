"""Data sets in memory, split once and for all, and the batches drawn from them."""

from openwork.data.augmentation import CropFlip
from openwork.data.batches import Batches, Transform
from openwork.data.cifar10 import cifar10
from openwork.data.digits import digits
from openwork.data.fsdd import fsdd
from openwork.data.idx import fashion_mnist, kmnist, mnist, read_idx
from openwork.data.planted import planted
from openwork.data.splits import Data, Split
from openwork.data.svmlight import svmlight
from openwork.data.tables import california_housing, letter_recognition
from openwork.data.text import Corpus, shakespeare, text, wikitext2

__all__ = [
    "Batches",
    "Corpus",
    "CropFlip",
    "Data",
    "Split",
    "Transform",
    "california_housing",
    "cifar10",
    "digits",
    "fashion_mnist",
    "fsdd",
    "kmnist",
    "letter_recognition",
    "mnist",
    "planted",
    "read_idx",
    "shakespeare",
    "svmlight",
    "text",
    "wikitext2",
]
