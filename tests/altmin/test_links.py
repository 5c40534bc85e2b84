import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import ConvLink, LinearLink, Link, links_of

D = torch.float64
# Fronts and layer, and the shape of one input.
CASES: dict[str, tuple[list[nn.Module], tuple[int, ...]]] = {
    "linear": ([nn.Linear(7, 5)], (7,)),
    "no_bias": ([nn.Linear(7, 5, bias=False)], (7,)),
    "flatten": ([nn.Flatten(), nn.Linear(12, 5)], (3, 2, 2)),
    "average_flatten": ([nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 5)], (3, 5, 4)),
    "conv1d": ([nn.Conv1d(3, 4, 3, stride=2, padding=1)], (3, 8)),
    "conv2d": ([nn.Conv2d(2, 4, 3)], (2, 6, 5)),
    "conv2d_all": ([nn.Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 0), dilation=(2, 1), groups=2)], (4, 9, 8)),
    "conv2d_same": ([nn.Conv2d(2, 3, (3, 5), padding="same", bias=False)], (2, 5, 6)),
    "conv3d": ([nn.Conv3d(2, 3, 2, stride=2)], (2, 5, 4, 4)),
    "average_conv": ([nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), nn.Conv2d(2, 3, 2)], (2, 7, 7)),
}


def case(name: str) -> tuple[nn.Sequential, Link, Tensor]:
    modules, shape = CASES[name]
    torch.manual_seed(0)
    model = nn.Sequential(*modules).to(D)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    (link,), activations = links_of(model)
    assert activations == []
    return model, link, torch.randn(6, *shape, dtype=D)


def dense(link: Link, x: Tensor) -> Tensor:
    """The matrix of one sample's input to its output, column by column."""
    size = x[0].numel()
    return link.forward(torch.eye(size, dtype=D).view(size, *x.shape[1:])).flatten(1).T


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_map_is_the_layer_without_its_bias(name: str) -> None:
    model, link, x = case(name)
    z = link.bias_add(link.forward(x))
    torch.testing.assert_close(z, model(x))
    other = torch.randn_like(link.weight)
    torch.testing.assert_close(link.map_with(link.weight + other, x), link.forward(x) + link.map_with(other, x))
    assert link.bias is None or link.bias.data_ptr() == model.get_parameter(f"{len(model) - 1}.bias").data_ptr()
    assert (
        link.weight.data_ptr() == model.get_parameter(f"{len(model) - 1}.weight").data_ptr()
        and not link.weight.requires_grad
    )
    means = torch.stack([z[:, i].mean() for i in range(z.shape[1])])
    torch.testing.assert_close(link.bias_mean(z), means)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_adjoint_and_weight_gradient(name: str) -> None:
    _, link, x = case(name)
    ax = link.forward(x)
    r = torch.randn_like(ax)
    back = link.adjoint(r)
    assert back.shape == x.shape
    inner = (ax * r).sum()
    torch.testing.assert_close((x * back).sum(), inner, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close((link.weight * link.weight_grad(x, r)).sum(), inner, rtol=1e-12, atol=1e-12)
    with torch.enable_grad():
        weight = link.weight.clone().requires_grad_()
        (link.map_with(weight, x) * r).sum().backward()
    torch.testing.assert_close(link.weight_grad(x, r), weight.grad)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_norms_are_within_two_percent_of_the_singular_values(name: str) -> None:
    _, link, x = case(name)
    matrix = dense(link, x)
    expected = torch.linalg.matrix_norm(matrix, 2).square()
    found = link.input_curvature(iterations=40)
    assert 0.98 * expected <= found <= expected * (1 + 1e-9)
    shape = link.weight.shape
    units = torch.eye(link.weight.numel(), dtype=D).view(-1, *shape)
    of_weight = torch.stack([link.map_with(unit, x).flatten() for unit in units], 1)
    expected = torch.linalg.matrix_norm(of_weight, 2).square()
    for _ in range(20):  # warm starts add up
        found = link.weight_curvature(x)
    assert 0.98 * expected <= found <= expected * (1 + 1e-9)


@torch.no_grad()
def test_the_gram_matrix_of_a_linear_link() -> None:
    _, link, x = case("flatten")
    assert isinstance(link, LinearLink)
    torch.testing.assert_close(link.gram(x), x.flatten(1).T @ x.flatten(1))


@torch.no_grad()
def test_a_pointwise_convolution_is_a_linear_layer() -> None:
    conv, linear = nn.Conv2d(4, 3, 1, dtype=D), nn.Linear(4, 3, dtype=D)
    linear.weight.copy_(conv.weight.flatten(1))
    (first,), _ = links_of(nn.Sequential(conv))
    (second,), _ = links_of(nn.Sequential(linear))
    x = torch.randn(5, 4, 2, 3, dtype=D)
    rows = x.movedim(1, -1).reshape(-1, 4)
    r = torch.randn(5, 3, 2, 3, dtype=D)
    torch.testing.assert_close(
        first.weight_grad(x, r).flatten(1), second.weight_grad(rows, r.movedim(1, -1).reshape(-1, 3))
    )
    torch.testing.assert_close(first.weight_curvature(x, 60), second.weight_curvature(rows, 60))
    assert isinstance(first, ConvLink)


@torch.no_grad()
def test_costs() -> None:
    (linear,), _ = links_of(nn.Sequential(nn.Linear(7, 5)))
    assert linear.macs(10) == 350
    _, conv, x = case("conv2d_all")
    out = conv.forward(x)
    assert conv.macs(6) == out.numel() * conv.weight[0].numel()


@torch.no_grad()
def test_zero_weights_and_inputs_have_no_curvature() -> None:
    (link,), _ = links_of(nn.Sequential(nn.Linear(3, 2, dtype=D)))
    link.weight.zero_()
    assert link.weight_curvature(torch.zeros(4, 3, dtype=D)) == 0
    assert link.input_curvature() == 0
    link.weight.fill_(1.0)
    torch.testing.assert_close(link.input_curvature(20), torch.tensor(6.0, dtype=D))


@torch.no_grad()
def test_linear_products_go_through_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    _, link, x = case("linear")
    r = torch.randn(6, 5, dtype=D)
    calls, mm = [], torch.mm
    monkeypatch.setattr(torch, "mm", lambda *args: (calls.append(1), mm(*args))[1])
    link.forward(x)
    link.adjoint(r)
    link.weight_grad(x, r)
    assert len(calls) == 3
    link.weight_curvature(x)
    link.input_curvature()
    assert len(calls) == 3
