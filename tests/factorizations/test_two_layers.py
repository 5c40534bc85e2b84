"""Two layers in place of one of low rank compute the same with less."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations.two_layers import Split, best_split, low_rank, matrix_of, numerical_rank, saves

LAYERS: dict[str, Any] = {
    "linear": (lambda **o: nn.Linear(12, 10, **o), (3, 12)),
    "conv1d": (lambda **o: nn.Conv1d(8, 10, 3, stride=2, padding=2, **o), (2, 8, 9)),
    "conv1d same": (lambda **o: nn.Conv1d(8, 10, 3, padding="same", dilation=2, **o), (2, 8, 9)),
    "conv1d circular": (lambda **o: nn.Conv1d(8, 10, 3, padding=1, padding_mode="circular", **o), (2, 8, 9)),
    "conv2d": (lambda **o: nn.Conv2d(8, 10, (3, 2), stride=(1, 2), padding=(1, 0), dilation=2, **o), (2, 8, 9, 9)),
    "conv2d 1x1": (lambda **o: nn.Conv2d(8, 10, 1, **o), (8, 9, 9)),
    "conv3d": (lambda **o: nn.Conv3d(8, 10, 2, padding=1, **o), (2, 8, 4, 4, 4)),
    "transposed1d": (lambda **o: nn.ConvTranspose1d(8, 10, 3, stride=2, output_padding=1, **o), (2, 8, 5)),
    "transposed2d": (lambda **o: nn.ConvTranspose2d(8, 10, 3, stride=3, padding=1, dilation=2, **o), (2, 8, 5, 5)),
    "transposed3d": (lambda **o: nn.ConvTranspose3d(8, 10, 2, **o), (2, 8, 3, 3, 3)),
}


def planted(layer: Any, rank: int, kernel_in: Any = "first") -> Any:
    """The layer in float64, with a weight of exactly this rank; its matrix is a view of the weight."""
    layer = layer.double()
    with torch.no_grad():
        matrix = matrix_of(layer, kernel_in)
        m, n = matrix.shape
        product = torch.randn(m, rank).double() @ torch.randn(rank, n).double()
        view = layer.weight.data if layer.weight.shape[0] == 10 else layer.weight.data.transpose(0, 1)
        view.copy_(product.view(view.shape) if kernel_in == "first" else _last(product, view))
    return layer


def _last(product: Tensor, view: Tensor) -> Tensor:
    outputs, inputs, *kernel = view.shape
    return product.view(outputs, *kernel, inputs).movedim(-1, 1)


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize(
    ("name", "bias", "kernel_in"), list(itertools.product(LAYERS, [True, False], ["first", "second"]))
)
def test_outputs_are_those_of_the_layer(name: str, bias: bool, kernel_in: Any) -> None:
    make, shape = LAYERS[name]
    layer = planted(make(bias=bias), 2, kernel_in)
    assert numerical_rank(matrix_of(layer, kernel_in)) == 2
    split = Split(2, kernel_in)
    two: Any = low_rank(layer, split)
    x = torch.randn(shape, dtype=torch.float64)
    close(two(x), layer(x))
    assert saves(layer, split)
    assert sum(p.numel() for p in two.parameters()) < sum(p.numel() for p in layer.parameters())
    first, second = two
    assert first.bias is None
    assert second.bias is layer.bias
    # Balanced: neither factor is larger than the other.
    torch.testing.assert_close(first.weight.norm(), second.weight.norm())


@pytest.mark.parametrize("bias", [True, False])
def test_gpt2s_conv1d(bias: bool) -> None:
    from transformers.pytorch_utils import Conv1D

    make: Any = Conv1D
    layer: Any = make(10, 12).double()
    with torch.no_grad():
        layer.bias.normal_()
        layer.weight.copy_(torch.randn(12, 2).double() @ torch.randn(2, 10).double())
    if not bias:
        nn.init.zeros_(layer.bias)
    x = torch.randn(3, 4, 12, dtype=torch.float64)
    two: Any = low_rank(layer, Split(numerical_rank(matrix_of(layer))))
    close(two(x), layer(x))
    assert two[1].bias is layer.bias
    assert [part.weight.shape for part in two] == [(2, 12), (10, 2)]


def test_the_closest_weight_of_a_smaller_rank() -> None:
    layer = nn.Linear(12, 10).double()
    first, second = (part.get_parameter("weight") for part in low_rank(layer, Split(3)))
    u, s, vh = torch.linalg.svd(layer.weight.detach())
    torch.testing.assert_close((second @ first).detach(), u[:, :3] * s[:3] @ vh[:3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rank_is_numerical_in_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    u, _ = torch.linalg.qr(torch.randn(20, 8).double())
    v, _ = torch.linalg.qr(torch.randn(30, 8).double())
    eps = torch.finfo(dtype).eps
    values = torch.tensor([1.0, 0.5, 0.3, *[eps * 0.3] * 5], dtype=torch.float64)
    assert numerical_rank((u * values @ v.T).to(dtype)) == 3
    assert numerical_rank(torch.zeros(4, 5, dtype=dtype)) == 0
    assert numerical_rank(torch.eye(4, dtype=dtype)) == 4
    if dtype != torch.bfloat16:
        matrix = (u * values @ v.T).to(dtype)
        assert numerical_rank(matrix) == int(torch.linalg.matrix_rank(matrix))


def test_break_even() -> None:
    """``r (m + n) < m n``: for 12 x 10 the largest rank is 5."""
    assert [saves(nn.Linear(12, 10), Split(rank)) for rank in (5, 6)] == [True, False]
    # 10 outputs of 8 * 9 inputs: 720 / 82.
    assert [saves(nn.Conv2d(8, 10, 3), Split(rank)) for rank in (8, 9)] == [True, False]
    # 8 + 10 * 9 = 98.
    assert [saves(nn.Conv2d(8, 10, 3), Split(rank, "second")) for rank in (7, 8)] == [True, False]
    # A 1x1 convolution before the stride runs at four times the positions: 32 + 90 = 122.
    assert [saves(nn.Conv2d(8, 10, 3, stride=2), Split(rank, "second")) for rank in (5, 6)] == [True, False]
    # After that of a transposed one, too: 72 + 40 = 112; before it, it does not.
    transposed = nn.ConvTranspose2d(8, 10, 3, stride=2)
    assert [saves(transposed, Split(rank)) for rank in (6, 7)] == [True, False]
    assert [saves(transposed, Split(rank, "second")) for rank in (7, 8)] == [True, False]


def test_the_best_split_is_the_smaller_one() -> None:
    assert best_split(planted(nn.Linear(12, 10), 3)) == Split(3)
    assert best_split(nn.Linear(12, 10)) is None
    assert best_split(planted(nn.Linear(12, 10), 0)) is None
    assert best_split(planted(nn.Conv2d(8, 10, 3), 2)) == Split(2, "first")
    assert best_split(planted(nn.Conv2d(8, 10, 3), 2, "second")) == Split(2, "second")


def test_mode_device_dtype_and_training_are_kept() -> None:
    layer = nn.Conv2d(8, 10, 3).eval().bfloat16()
    layer.weight.requires_grad_(False)
    two = low_rank(layer, Split(2))
    assert not two.training and not two[0].training
    assert {parameter.dtype for parameter in two.parameters()} == {torch.bfloat16}
    assert [parameter.requires_grad for parameter in two.parameters()] == [False, False, True]


def test_they_train() -> None:
    two = low_rank(nn.ConvTranspose2d(8, 10, 3), Split(2))
    two(torch.randn(1, 8, 4, 4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in two.parameters())


def test_errors() -> None:
    class Scaled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(2 * input)

    for wrong in (nn.Embedding(4, 5), nn.ReLU(), Scaled(3, 4), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))):
        with pytest.raises(
            TypeError, match=r"layer must be nn.Linear, a convolution or a transposed one .* leave this"
        ):
            low_rank(wrong, Split(1))
    with pytest.raises(ValueError, match="Conv2d has groups=2, each with a rank of its own; leave this layer"):
        low_rank(nn.Conv2d(4, 4, 3, groups=2), Split(1))
    for rank in (0, 4):
        with pytest.raises(ValueError, match=rf"rank must be from 1 to 3 for Linear .* \(4, 3\), got {rank}; choose"):
            low_rank(nn.Linear(3, 4), Split(rank))
