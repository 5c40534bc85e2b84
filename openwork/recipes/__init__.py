"""Experiments: one typed function each, whose signature is its only configuration."""

from openwork.recipes.alternating import (
    tiam_digits,
    tiam_fashion,
    tiam_mnist,
    tiam_sign,
    tiam_sparse,
    tiam_tabular,
)
from openwork.recipes.digits import nuclear_digits, proxadamw_digits, proxsgd_digits, ramda_digits, rmda_digits
from openwork.recipes.factorized import (
    dwf_digits,
    dwf_finetune,
    dwf_gate_digits,
    dwf_gate_lenet5,
    dwf_lenet5,
    dwf_lenet300,
    dwf_resnet18_cifar10,
    dwf_vgg19_cifar10,
)
from openwork.recipes.images import (
    ramda_cifar10_resnet50,
    ramda_fashion_lenet5,
    ramda_fashion_mlp7_nuclear,
    ramda_mnist_logistic,
    rmda_cifar10_vgg19,
    rmda_fashion_lenet5,
    rmda_mnist_logistic,
)
from openwork.recipes.language import ramda_shakespeare_gpt
from openwork.recipes.sketched import mast_digits, mast_fashion, mast_finetune, mast_logistic

__all__ = [
    "dwf_digits",
    "dwf_finetune",
    "dwf_gate_digits",
    "dwf_gate_lenet5",
    "dwf_lenet5",
    "dwf_lenet300",
    "dwf_resnet18_cifar10",
    "dwf_vgg19_cifar10",
    "mast_digits",
    "mast_fashion",
    "mast_finetune",
    "mast_logistic",
    "nuclear_digits",
    "proxadamw_digits",
    "proxsgd_digits",
    "ramda_cifar10_resnet50",
    "ramda_digits",
    "ramda_fashion_lenet5",
    "ramda_fashion_mlp7_nuclear",
    "ramda_mnist_logistic",
    "ramda_shakespeare_gpt",
    "rmda_cifar10_vgg19",
    "rmda_digits",
    "rmda_fashion_lenet5",
    "rmda_mnist_logistic",
    "tiam_digits",
    "tiam_fashion",
    "tiam_mnist",
    "tiam_sign",
    "tiam_sparse",
    "tiam_tabular",
]
