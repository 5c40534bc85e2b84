"""Models that alternating minimization takes, read as links with activations between them."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from openwork.altmin.activations import activation_of, knows_activation
from openwork.altmin.elementwise import Activation
from openwork.altmin.fronts import Averaging, Flattening, Front, Selection
from openwork.altmin.links import ConvLink, LinearLink, Link
from openwork.altmin.piecewise import Identity

__all__ = ["links_of"]

ME = "AMTrainer"
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTS = (nn.Linear, *CONV)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
AVERAGES = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
FRONTS = (nn.Flatten, *AVERAGES, *MAXIMA)


class Reading(NamedTuple):
    """A model as it was read; nothing in it has changed.

    Args:
        links: Its weight layers.
        activations: Between them, one fewer.
        norms: Normalizations that are still to be folded in, each with the layer before it.
    """

    links: list[Link]
    activations: list[Activation]
    norms: list[tuple[Weighted, nn.Module]]


def links_of(model: nn.Sequential) -> tuple[list[Link], list[Activation]]:
    """The links of a model and the activations between them, one less.

    Nothing is changed if the model is refused. Else a BatchNorm in evaluation mode is folded into the layer before it:
    it becomes the identity, and a layer without bias gets one.

    Args:
        model: Linear and convolution layers, each one behind elementwise activations, Flatten or pooling, the last one
            giving the outputs; nested ``nn.Sequential`` are read in order.

    Raises:
        TypeError: If it is no ``nn.Sequential``, or a module is of an unknown kind.
        ValueError: If a module stands where it cannot be, or is set in a way that cannot be trained.
    """
    found = read_model(model)
    fold(found)
    return found.links, found.activations


def read_model(model: nn.Sequential) -> Reading:
    """What ``links_of`` reads, before anything is folded; see there.

    Args:
        model: As there.

    Raises:
        TypeError: See there.
        ValueError: See there.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(
            f"{ME}: model must be a torch.nn.Sequential, got {type(model).__name__}; list its layers in one"
        )
    if type(model).forward is not nn.Sequential.forward:
        raise TypeError(
            f"{ME}: {type(model).__name__} has a forward of its own, which blocks do not follow; list its layers in a "
            "plain torch.nn.Sequential"
        )
    links: list[Link] = []
    activations: list[Activation] = []
    norms: list[tuple[Weighted, nn.Module]] = []
    fronts: list[Front] = []
    pooled = ""
    seen: set[int] = set()
    previous: nn.Module | None = None
    for name, module in _modules(model):
        # Numbers may be shared by different parameters, too.
        places = {parameter.data_ptr() or id(parameter) for parameter in module.parameters()}
        if places & seen:
            raise ValueError(f"{ME}: {name} is used twice, and shared weights cannot be trained; use a layer for each")
        seen |= places
        _check(name, module)
        kind = type(module)
        if isinstance(module, Weighted):
            if links and len(activations) < len(links):
                activations.append(Identity())
            links.append(LinearLink(module, fronts) if isinstance(module, nn.Linear) else ConvLink(module, fronts))
            fronts, pooled = [], ""
        elif isinstance(module, NORMS):
            if not isinstance(previous, WEIGHTS):
                what = f"{name} ({kind.__name__})"
                raise ValueError(f"{ME}: {what} must stand right behind a weight layer to be folded into it")
            norms.append((previous, module))
            continue
        elif isinstance(module, FRONTS):
            fronts.append(_front(name, module))
            pooled = f"{name} ({kind.__name__})"
        elif kind is not nn.Identity:
            activation = activation_of(module)
            if pooled or len(activations) >= len(links):
                where = f"behind {pooled}" if pooled else "with no weight layer before it"
                raise ValueError(f"{ME}: {name} ({kind.__name__}) stands {where}; put it right behind a weight layer")
            activations.append(activation)
        previous = module
    if not links:
        raise ValueError(f"{ME}: the model has no Linear or convolution layer to train")
    if len(activations) >= len(links) or fronts:
        raise ValueError(
            f"{ME}: the model must end with a weight layer, whose outputs the loss reads; "
            f"{'pooling or Flatten' if fronts else 'an activation'} stands behind it: leave it out"
        )
    for link in links:
        if any(isinstance(front, Selection) for front in link.fronts):
            warnings.warn(
                f"{ME}: max-pooling is trained with its selection fixed during a sweep, so the objective may rise "
                "between sweeps; average-pooling has no such trouble",
                stacklevel=3,
            )
            break
    return Reading(links, activations, norms)


def fold(found: Reading) -> None:
    """Fold the normalizations of a model into its weight layers.

    Args:
        found: From ``read_model``.
    """
    for layer, norm in found.norms:
        _fold(layer, norm)


def check_folded(model: nn.Sequential) -> None:
    """Refuse a model that was set to training mode after its normalizations were folded in.

    Args:
        model: Of ``links_of``.

    Raises:
        ValueError: If one would mix samples again.
    """
    for name, module in model.named_modules():
        if isinstance(module, NORMS) and module.training:
            raise ValueError(
                f"{ME}: {name} ({type(module).__name__}) was folded in and is in training mode again, where it mixes "
                "samples; call model.eval()"
            )


def _modules(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    # Unlike named_children, with what is there twice.
    for name, module in model._modules.items():
        if module is None:
            continue
        if type(module) is nn.Sequential:
            yield from _modules(module, f"{prefix}{name}.")
        else:
            yield prefix + name, module


def _check(name: str, module: nn.Module) -> None:
    """Refuse what cannot be part of a model.

    Raises:
        TypeError: If it is of an unknown kind with weights.
        ValueError: If it is set in a way that cannot be trained.
    """
    kind = type(module)
    if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout):
        raise ValueError(f"{ME}: {name} ({kind.__name__}) is random, and blocks are not; replace it by nn.Identity()")
    if isinstance(module, NORMS) and module.training:
        raise ValueError(
            f"{ME}: {name} ({kind.__name__}) is in training mode, where it mixes samples; call model.eval() to fold it "
            "in"
        )
    if isinstance(module, NORMS) and (module.running_mean is None or module.running_var is None):
        raise ValueError(f"{ME}: {name} ({kind.__name__}) keeps no running statistics to fold in; leave it out")
    if parametrize.is_parametrized(module):
        raise ValueError(f"{ME}: {name} is parametrized, and its weight cannot be set; remove or collapse it first")
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, WEIGHTS) and any(x not in own and getattr(module, x) is not None for x in ("weight", "bias")):
        raise ValueError(
            f"{ME}: {name} computes its weight or bias anew before every call, as pruning and old normalizations of "
            "weights do, so that it cannot be set; remove that first"
        )
    known = kind in (*WEIGHTS, *NORMS, *AVERAGES, *MAXIMA, nn.Flatten) or knows_activation(module)
    if not known and any(True for _ in module.parameters()):
        raise TypeError(
            f"{ME}: {name} ({kind.__name__}) is not supported; use Linear, Conv1d-3d, Flatten, AvgPool1d-3d and "
            "elementwise activations in a plain sequence"
        )
    if isinstance(module, CONV) and module.padding_mode != "zeros":
        raise ValueError(f"{ME}: {name} pads with {module.padding_mode!r}; only padding_mode='zeros' is supported")
    if isinstance(module, CONV) and module.padding == "same":
        spans = (width * (kernel - 1) for width, kernel in zip(module.dilation, module.kernel_size, strict=True))
        if any(span % 2 for span in spans):
            raise ValueError(
                f"{ME}: {name} pads one side more than the other; use an odd kernel, or padding as a number"
            )


def _front(name: str, module: nn.Module) -> Front:
    """The linear map of Flatten or pooling.

    Raises:
        TypeError: If it is neither.
        ValueError: If it is set in a way that is not supported.
    """
    if isinstance(module, nn.Flatten):
        if module.start_dim != 1 or module.end_dim != -1:
            raise ValueError(f"{ME}: {name} must flatten whole samples, nn.Flatten(1, -1), got {module}")
        return Flattening()
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        return Averaging(module)
    if isinstance(module, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
        return Selection(module)
    raise TypeError(f"{ME}: {name} is no pooling")


@torch.no_grad()
def _fold(layer: Weighted, norm: nn.Module) -> None:
    """Move what a normalization does into the layer before it, and make it the identity."""
    if not isinstance(norm, NORMS) or norm.running_mean is None or norm.running_var is None:
        return
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    scale = torch.ones_like(norm.running_mean) if norm.weight is None else norm.weight
    shift = torch.zeros_like(norm.running_mean) if norm.bias is None else norm.bias
    weight, bias = fuse(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, scale, shift)
    layer.weight.copy_(weight)
    if layer.bias is None:
        layer.bias = nn.Parameter(bias.detach().clone())
    else:
        layer.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    if norm.weight is not None:
        norm.weight.fill_(1)
        norm.bias.zero_()
