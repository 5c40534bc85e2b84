import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from openwork.altmin import LinearLink, Sign, links_of

D = torch.float64


@torch.no_grad()
def run(model: nn.Sequential, x: Tensor) -> Tensor:
    links, activations = links_of(model)
    assert len(activations) == len(links) - 1
    for link, activation in zip(links, activations, strict=False):
        x = activation.forward(link.bias_add(link.forward(x)))
    return links[-1].bias_add(links[-1].forward(x))


MODELS = {
    "mlp": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)), (3, 4)),
    "nested": (nn.Sequential(nn.Sequential(nn.Linear(4, 5), Sign()), nn.Identity(), nn.Linear(5, 2)), (4,)),
    "two_in_a_row": (nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)), (4,)),
    "images": (
        nn.Sequential(
            *(nn.Conv2d(1, 3, 3), nn.ELU(), nn.AvgPool2d(2)),
            *(nn.Conv2d(3, 4, 2), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3)),
        ),
        (1, 8, 8),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_links_and_activations_are_the_model(name: str) -> None:
    model, shape = MODELS[name]
    x = torch.randn(5, *shape, dtype=D, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(model.to(D), x), model(x))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_a_normalization_in_evaluation_mode_is_folded(bias: bool, affine: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 2, bias=bias), nn.BatchNorm2d(3, affine=affine), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(27, 4, bias=bias), nn.BatchNorm1d(4, affine=affine)),
    ).to(D)
    x = torch.randn(20, 2, 4, 4, dtype=D)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    model(x)
    model.eval()
    before = model(x)
    links, _ = links_of(model)
    torch.testing.assert_close(model(x), before)
    torch.testing.assert_close(run(model, x), before)
    assert all(link.bias is not None for link in links)


def test_max_pooling_keeps_its_selection_and_warns() -> None:
    model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)).to(D)
    with pytest.warns(UserWarning, match=r"max-pooling is trained with its selection fixed during a sweep"):
        (link,), _ = links_of(model)
    torch.manual_seed(0)
    x, y, r = torch.randn(5, 3, 4, 4, dtype=D), torch.randn(5, 3, 4, 4, dtype=D), torch.randn(5, 3, dtype=D)
    with torch.no_grad():
        link.refresh(x)
        torch.testing.assert_close(link.bias_add(link.forward(x)), model(x))
        torch.testing.assert_close(link.forward(x + y), link.forward(x) + link.forward(y))
        torch.testing.assert_close((link.forward(y) * r).sum(), (y * link.adjoint(r)).sum())
        link.refresh(y)
        torch.testing.assert_close(link.bias_add(link.forward(y)), model(y))


SHARED = nn.Linear(4, 4)


class Doubled(nn.Sequential):
    """A model that is more than its layers in turn."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def twin(layer: nn.Linear) -> nn.Linear:
    """Another layer with other parameters, but the same numbers."""
    other = nn.Linear(layer.in_features, layer.out_features)
    other.weight = nn.Parameter(layer.weight.data)
    return other


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "module": (nn.Linear(3, 2), r"model must be a torch.nn.Sequential, got Linear"),
    "empty": (nn.Sequential(), r"the model has no Linear or convolution layer to train"),
    "training": (
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
        r"1 \(BatchNorm1d\) is in training mode, where it mixes samples; call model.eval\(\)",
    ),
    "norm_behind": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval(),
        r"2 \(BatchNorm1d\) must stand right behind a weight layer",
    ),
    "no_statistics": (
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval(),
        r"1 \(BatchNorm1d\) keeps no running statistics",
    ),
    "dropout": (
        nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)),
        r"1 \(Dropout\) is random, and blocks are not; replace it by nn.Identity\(\)",
    ),
    "attention": (nn.Sequential(nn.MultiheadAttention(4, 2)), r"0 \(MultiheadAttention\) is not supported; use Linear"),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(1, 1, 2)), r"0 \(ConvTranspose2d\) is not supported"),
    "softmax": (
        nn.Sequential(nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 2)),
        r"Softmax is not an elementwise activation that can be solved",
    ),
    "activation_at_the_end": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU()),
        r"must end with a weight layer.*an activation",
    ),
    "pooling_at_the_end": (
        nn.Sequential(nn.Conv2d(1, 1, 2), nn.AvgPool2d(2)),
        r"must end with a weight layer.*pooling",
    ),
    "activation_first": (
        nn.Sequential(nn.ReLU(), nn.Linear(4, 4)),
        r"0 \(ReLU\) stands with no weight layer before it",
    ),
    "activation_twice": (
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Tanh(), nn.Linear(4, 2)),
        r"2 \(Tanh\) stands with no weight layer before it; put it right behind a weight layer",
    ),
    "pooling_before": (
        nn.Sequential(nn.Conv2d(1, 1, 2), nn.AvgPool2d(2), nn.ReLU(), nn.Conv2d(1, 1, 2)),
        r"2 \(ReLU\) stands behind 1 \(AvgPool2d\); put it right behind a weight layer",
    ),
    "shared": (nn.Sequential(SHARED, nn.ReLU(), SHARED), r"2 is used twice, and shared weights cannot be trained"),
    "shared_numbers": (nn.Sequential(SHARED, nn.ReLU(), twin(SHARED)), r"2 is used twice, and shared weights cannot"),
    "parametrized": (
        nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))),
        r"0 is parametrized, and its weight cannot be set; remove or collapse it first",
    ),
    "pruned": (
        nn.Sequential(prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)),
        r"0 computes its weight or bias anew before every call, as pruning .* so that it cannot be set; remove that",
    ),
    "own_forward": (Doubled(nn.Linear(4, 4)), r"Doubled has a forward of its own, which blocks do not follow; list"),
    "reflect": (nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="reflect")), r"0 pads with 'reflect'; only padding_mode"),
    "one_side": (nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), r"0 pads one side more than the other"),
    "part": (nn.Sequential(nn.Flatten(2), nn.Linear(4, 4)), r"0 must flatten whole samples, nn.Flatten\(1, -1\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_models_that_cannot_be_trained_are_refused_untouched(name: str) -> None:
    model, message = REFUSED[name]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises((TypeError, ValueError), match=message), warnings.catch_warnings():
        links_of(model)  # pyright: ignore[reportArgumentType]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_flat_input_is_a_plain_linear_link() -> None:
    (link,), activations = links_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert isinstance(link, LinearLink) and activations == []
