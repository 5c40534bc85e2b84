import copy
from math import inf

import pytest
import torch
from torch import Tensor, nn

from openwork.altmin import Elementwise, Piece, PiecewiseLinear, Quantizer, Sign, activation_of

MODULES = {
    "relu": nn.ReLU(),
    "leaky": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(init=0.3).double(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(),
    "identity": nn.Identity(),
    "elu": nn.ELU(),
    "elu_sharp": nn.ELU(2.0),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(),
    "softplus_sharp": nn.Softplus(3.0),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "sign": Sign(0.5),
    "sign_without_margin": Sign(0.0),
    "quantizer": Quantizer([-1.5, -0.5, 0.2, 2.0]),
    "own": Elementwise(PiecewiseLinear([Piece(-1.0, 0.0, -inf, 0.0), Piece(1.0, 0.0, 0.0, inf)])),  # abs
}
NOT_MONOTONE = ("gelu", "gelu_tanh", "silu", "own")
STEPS = ("sign", "sign_without_margin", "quantizer")


def allowed(name: str, z: Tensor) -> Tensor:
    return torch.where(z >= 0, z.clamp(min=0.5), z.clamp(max=-0.5)) if name == "sign" else z


@pytest.mark.parametrize("name", MODULES)
def test_forward_is_that_of_the_module(name: str) -> None:
    z = torch.cat([torch.linspace(-30, 30, 4001).double(), torch.tensor([0.0, -0.0, -1.0, 1.0, 6.0, -0.65])]).view(
        -1, 1
    )
    activation = activation_of(MODULES[name])
    torch.testing.assert_close(activation.forward(z), MODULES[name](z), rtol=0, atol=1e-15)
    for s in (0.3, 7.0):
        same = torch.allclose(activation.forward(s * z), s * activation.forward(z), rtol=1e-12, atol=0)
        assert same == activation.homogeneous


@pytest.mark.parametrize("name", MODULES)
def test_no_point_of_a_fine_grid_is_better(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    draws, width = 500, 1.5
    c, d, start = torch.randn(3, draws, 1, dtype=torch.float64, generator=generator) * width
    r, k = (6 * torch.rand(2, draws, 1, dtype=torch.float64, generator=generator) - 3).exp()
    activation = activation_of(MODULES[name])
    start = activation.project(start)

    def cost(z: Tensor) -> Tensor:
        return r / 2 * (z - c) ** 2 + k / 2 * (activation.forward(z) - d) ** 2

    z = activation.solve(c, d, r, k, start)
    assert (allowed(name, z) == z).all()
    assert (cost(z) <= cost(start) + 1e-12).all()
    grid = torch.linspace(-12, 12, 6001, dtype=torch.float64)
    best = torch.stack([cost(allowed(name, part)).amin(1) for part in grid.split(500)]).amin(0)
    assert (cost(z)[:, 0] <= best + 1e-8).all()


@pytest.mark.parametrize("name", MODULES)
def test_without_the_second_term_c_is_returned(name: str) -> None:
    c, d = torch.linspace(-4, 4, 41).double()[:, None], torch.full((41, 1), 0.3).double()
    z = activation_of(MODULES[name]).solve(c, d, 2.0, 0.0, torch.zeros_like(c))
    torch.testing.assert_close(z, allowed(name, c), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODULES)
def test_without_the_first_term_the_nearest_value_is_taken(name: str) -> None:
    d = torch.linspace(-3, 7, 101).double()[:, None]
    activation = activation_of(MODULES[name])
    z = activation.solve(torch.zeros_like(d), d, 1e-9, 1e3, torch.zeros_like(d))
    values = activation.forward(allowed(name, torch.linspace(-60, 60, 60001).double()))
    nearest = (values - d).abs().amin(1, keepdim=True)
    assert ((activation.forward(z) - d).abs() <= nearest + 1e-4).all()


@pytest.mark.parametrize("name", ["relu", "leaky", "prelu", "tanh", "sign", "gelu"])
def test_many_entries_at_a_time_give_the_same(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    c, d, z = torch.randn(3, 1400, 3, 11, dtype=torch.float64, generator=generator)
    given = [x.clone() for x in (c, d, z)]
    activation = activation_of(MODULES[name])
    together = activation.solve(c, d, 0.1, 0.4, z)
    one_by_one = [activation.solve(c[i : i + 1], d[i : i + 1], 0.1, 0.4, z[i : i + 1]) for i in range(0, 1400, 50)]
    if name == "tanh":  # the last digit of torch's own tanh depends on where in memory an entry is
        torch.testing.assert_close(together[::50], torch.cat(one_by_one), rtol=0, atol=1e-12)
    else:
        assert torch.equal(together[::50], torch.cat(one_by_one))
    assert all(torch.equal(now, before) for now, before in zip((c, d, z), given, strict=True))
    weights = torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    torch.testing.assert_close(activation.solve(c, d, *weights, z), together)
    single = activation.solve(c.float(), d.float(), *weights, z.float())
    assert single.dtype == torch.float32


def test_slopes_per_channel() -> None:
    module = nn.PReLU(3).double()
    module.weight.data = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    activation = activation_of(module)
    generator = torch.Generator().manual_seed(0)
    for shape in ((50, 3), (9, 3, 4, 2)):
        c, d, z = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
        assert torch.equal(activation.forward(z), module(z))
        solved = activation.solve(c, d, 1.0, 2.0, z)
        for i, slope in enumerate((0.1, 0.5, 0.9)):
            alone = activation_of(nn.LeakyReLU(slope)).solve(c[:, i], d[:, i], 1.0, 2.0, z[:, i])
            torch.testing.assert_close(solved[:, i], alone)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NOT_MONOTONE])
def test_the_band_is_the_set_of_the_grid(name: str) -> None:
    eps = 0.3
    activation = activation_of(MODULES[name])
    grid = allowed(name, torch.linspace(-12, 12, 48001).double())
    values = activation.forward(grid)
    present = torch.linspace(-3.3, 3.1, 40).double()
    a = activation.forward(present) + torch.linspace(-0.99, 0.99, 40).double().flip(0) * eps
    low, high = activation.interval(a - eps, a + eps)
    for i in range(40):
        inside = grid[(values >= a[i] - eps) & (values <= a[i] + eps)]
        for end, found in ((low[i], inside.min()), (high[i], inside.max())):
            if end.isinf():
                assert abs(found) > 11.9
            else:
                assert abs(end - found) < 1e-3
    # Every point between the ends is feasible, whatever c wants.
    wanted = torch.linspace(-20, 20, 40).double()
    z = torch.minimum(torch.maximum(wanted, low), high)
    assert ((activation.forward(z) - a).abs() <= eps + 1e-9).all()


@pytest.mark.parametrize("name", [name for name in MODULES if name not in (*NOT_MONOTONE, *STEPS)])
def test_a_bound_out_of_reach_is_none(name: str) -> None:
    activation = activation_of(MODULES[name])
    low, high = activation.interval(*torch.tensor([[-1e3], [1e3]], dtype=torch.float64))
    bounded_below = name in ("leaky", "prelu", "identity")
    assert low.isinf().item() != bounded_below
    assert high.isinf().item() == (name in ("relu6", "hardtanh", "tanh", "sigmoid"))


def test_the_present_code_stays_feasible_when_rounding_touches_the_bound() -> None:
    activation = activation_of(Sign(0.5))
    a = torch.tensor([-1.0 + 0.1, 1.0 - 0.1], dtype=torch.float32)
    low, high = activation.interval(a - 0.1, a + 0.1)
    assert low.tolist() == [-inf, 0.5] and high[1] == inf and high[0] < -0.49


@pytest.mark.parametrize("name", NOT_MONOTONE)
def test_no_band_without_monotony(name: str) -> None:
    bounds = torch.zeros(1), torch.ones(1)
    with pytest.raises(ValueError, match=r"not monotone, so a band around it is no interval; use coupling='exact'"):
        activation_of(MODULES[name]).interval(*bounds)
    with pytest.raises(ValueError, match=r"LeakyReLU: the band coupling needs slopes > 0"):
        activation_of(nn.LeakyReLU(-0.1)).interval(*bounds)


def test_sign_on_the_way_is_a_ramp() -> None:
    module = Sign(0.5)
    activation = module.activation
    z = torch.linspace(-2, 2, 41).double()[:, None]
    assert torch.equal(module(torch.tensor([-0.0, 0.0, -1e-30, 2.0])), torch.tensor([1.0, 1.0, -1.0, 1.0]))
    activation.slope = 4.0
    torch.testing.assert_close(module(z), (4 * z).clamp(-1, 1))
    assert torch.equal(activation.project(z), z)
    c = torch.full_like(z, 0.1)
    solved = activation.solve(c, torch.full_like(z, 0.8), 1.0, 1e6, z)
    torch.testing.assert_close(solved, torch.full_like(z, 0.2), rtol=0, atol=1e-5)
    activation.slope = inf
    assert (activation.project(z).abs() >= 0.5).all()
    assert activation.project(torch.tensor([-0.1, 0.0, 3.0])).tolist() == [-0.5, 0.5, 3.0]
    with pytest.raises(ValueError, match=r"Sign: slope must be > 0, got 0"):
        activation.slope = 0.0
    assert copy.deepcopy(module).activation.slope == inf


@pytest.mark.parametrize("module", [Sign(), Quantizer([0.0, 0.1, 0.3])], ids=["sign", "quantizer"])
def test_the_derivative_of_steps_is_zero_and_not_absent(module: nn.Module) -> None:
    z = torch.randn(20, generator=torch.Generator().manual_seed(0)).requires_grad_()
    module(z).sum().backward()
    assert z.grad is not None and not z.grad.any()


def test_quantizer_takes_the_nearest_level_exactly() -> None:
    levels = [-1.0, 0.1, 0.3, 0.9]
    z = torch.linspace(-2, 2, 999).double()
    expected = torch.tensor(levels, dtype=torch.float64)[(z[:, None] - torch.tensor(levels)).abs().argmin(1)]
    assert torch.equal(Quantizer(levels)(z), expected)


class Doubled(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: activation_of(nn.Softmax(1)),
            r"Softmax is not an elementwise activation that can be solved; use ReLU,",
        ),
        (lambda: activation_of(Doubled()), r"Doubled is not an elementwise activation"),
        (lambda: Sign(-1.0), r"Sign: margin must be >= 0 and finite, got -1.0"),
        (lambda: Quantizer([1.0]), r"Quantizer: levels must be two or more finite increasing numbers, got \[1.0\]"),
        (lambda: Quantizer([1.0, 0.0]), r"increasing numbers, got \[1.0, 0.0\]"),
        (lambda: activation_of(nn.ELU(0.0)), r"ELU: alpha must be > 0, got 0.0; use ReLU for 0"),
        (lambda: activation_of(nn.Softplus(-1.0)), r"Softplus: beta must be > 0, got -1.0"),
        (lambda: PiecewiseLinear([Piece(1.0, 0.0, 0.0, inf)]), r"the first with low=-inf and the last with high=inf"),
    ],
    ids=["softmax", "subclass", "margin", "one_level", "order", "elu", "softplus", "half_line"],
)
def test_what_cannot_be_solved_is_refused(make, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
