"""Networks to train: plain modules of plain layers, built on the CPU to the same bits for the same seed."""

from openwork.models.gpt import GPT, gpt
from openwork.models.he_normal import he_normal_
from openwork.models.lenet import lenet5, lenet300
from openwork.models.mlp import logistic, mlp, mlp7
from openwork.models.resnet import resnet18, resnet50
from openwork.models.vgg import vgg19_bn

__all__ = [
    "GPT",
    "gpt",
    "he_normal_",
    "lenet5",
    "lenet300",
    "logistic",
    "mlp",
    "mlp7",
    "resnet18",
    "resnet50",
    "vgg19_bn",
]
