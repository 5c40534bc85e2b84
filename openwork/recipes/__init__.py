"""Experiments: one typed function each, whose signature is its only configuration."""

from openwork.recipes.digits import nuclear_digits, proxadamw_digits, proxsgd_digits, ramda_digits, rmda_digits
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

__all__ = [
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
]
