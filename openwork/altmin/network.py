"""The trained model in parts, and what it says about samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openwork.altmin.curvature import MARGIN
from openwork.altmin.elementwise import Activation
from openwork.altmin.entrywise import Entrywise, eager
from openwork.altmin.inertia import Iterate
from openwork.altmin.links import Link
from openwork.altmin.losses import OutputLoss
from openwork.altmin.state import FLOOR, Layer
from openwork.penalties import Penalty, Zero


@dataclass(frozen=True, eq=False)
class Network:
    """A model as links and activations.

    Args:
        model: The module.
        links: Its weight layers.
        activations: Between them, one fewer.
        penalties: Of the weights, one per link.
        rows: Samples at a time that the network reads; None for all at once.
        entrywise: How steps of the codes are computed.
    """

    model: nn.Sequential
    links: Sequence[Link]
    activations: Sequence[Activation]
    penalties: Sequence[Penalty]
    rows: int | None = None
    entrywise: Entrywise = eager

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.links[0].weight.device

    def parameters(self) -> list[Tensor]:
        """Weights and biases, layer by layer, without their history."""
        return [tensor for link in self.links for tensor in (link.weight, link.bias) if tensor is not None]

    def write(self, tensors: Sequence[Tensor]) -> None:
        """Put weights and biases into the model.

        Args:
            tensors: In the order of ``parameters``.
        """
        for own, tensor in zip(self.parameters(), tensors, strict=True):
            own.copy_(tensor)

    def layer(self, index: int, z: Tensor, residual: Tensor, curvature: Tensor, mu: float, size: int) -> Layer:
        """A layer as training begins.

        Args:
            index: Of the layer.
            z: Block z.
            residual: ``W a + b - z``.
            curvature: Largest eigenvalue in the weight, from below.
            mu: Weight of ``mu/2 ||W||^2``.
            size: Number of samples.
        """
        link = self.links[index]
        activation = self.activations[index] if index < len(self.activations) else None
        return Layer(
            link=link,
            activation=activation,
            weight=Iterate(link.weight.clone()),
            bias=None if link.bias is None else Iterate(link.bias.clone()),
            z=Iterate(z),
            a=None if activation is None else Iterate(activation.forward(z)),
            residual=residual,
            weight_curvature=(curvature * MARGIN).clamp(min=FLOOR),
            input_curvature=torch.zeros_like(curvature),
            mu=mu,
            penalty=self.penalties[index],
            penalty_weight=float(size),
            entrywise=self.entrywise,
        )

    def parts(self, x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Samples as the network reads them, on its device.

        Args:
            x: Inputs.
            y: Targets.
        """
        rows = len(x) if self.rows is None else self.rows
        for part in zip(x.split(rows), y.split(rows), strict=True):
            yield part[0].to(self.device, non_blocking=True), part[1].to(self.device, non_blocking=True)

    def features(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What the last layer reads when the network runs, and the targets, where x and y are.

        Args:
            x: Inputs.
            y: Targets.
        """
        found: list[tuple[Tensor, Tensor]] = []
        for a, target in self.parts(x, y):
            for link, activation in zip(self.links, self.activations, strict=False):
                link.refresh(a)
                a = activation.forward(link.bias_add(link.forward(a)))
            self.links[-1].refresh(a)
            found.append((a.to(x.device), target.to(y.device)))
        return found

    def loss(self, loss: OutputLoss, x: Tensor, y: Tensor) -> float:
        """Mean loss of the network.

        Args:
            loss: A sum over samples.
            x: Inputs.
            y: Targets.
        """
        return self.score(loss, x, y)[0]

    def penalty(self) -> float:
        """What all penalties say of the present weights, against a mean over samples."""
        values = [
            float(penalty.value(link.weight))
            for link, penalty in zip(self.links, self.penalties, strict=True)
            if not isinstance(penalty, Zero)
        ]
        return sum(values)

    def score(self, loss: OutputLoss, x: Tensor, y: Tensor) -> tuple[float, float | None]:
        """Mean loss and accuracy of the network; no accuracy without labels.

        Args:
            loss: A sum over samples.
            x: Inputs.
            y: Targets.
        """
        labels = not y.is_floating_point() and y.ndim == 1
        total = hits = torch.zeros((), dtype=torch.float64, device=self.device)
        for part, target in self.parts(x, y):
            outputs = self.model(part)
            total = total + loss.value(outputs, target)
            labels = labels and outputs.ndim == 2
            if labels:
                hits = hits + (outputs.argmax(1) == target).sum()
        return float(total) / len(x), float(hits) / len(x) if labels else None
