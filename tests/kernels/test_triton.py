"""Fused steps in Triton are the plain ones to rounding: on CUDA where there is a device, else in Triton's interpreter.

tests/conftest.py chooses the interpreter, which takes milliseconds for what a kernel does with one tile: so little of
everything here; that tables fit every layout is in test_device_tables.py, without kernels.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openwork.factorizations import product
from openwork.kernels import Plan, cuda, fused_kernels
from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW, ProximalOptimizer, ProximalReadOut, regularize
from openwork.optim.fused import warn_once
from openwork.partitions import Slices
from openwork.penalties import L1, GroupLasso, Penalty, SparseGroupLasso
from openwork.structure import Support

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROXIMAL: list[Callable[..., ProximalOptimizer]] = [RAMDA, RMDA, ProxAdamW]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which is not installed"),
    # The interpreter computes with numpy, which warns of infinities that kernels are meant to meet.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> cuda.CUDAKernels:
    """Those for CUDA, also on the CPU."""
    found = cuda.CUDAKernels()
    monkeypatch.setattr("openwork.optim.fused.fused_kernels", lambda device: found)
    return found


def weights(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, scale: float = 1.0) -> list[nn.Parameter]:
    """Random weights, every other input of which is small."""
    found: list[nn.Parameter] = []
    for shape in shapes:
        x = scale * torch.randn(shape, dtype=dtype)
        if len(shape) > 1:
            x[:, ::2] *= 0.02
        found.append(nn.Parameter(x.to(DEVICE)))
    return found


def distance(ones: list[nn.Parameter], others: list[nn.Parameter]) -> float:
    """Largest distance of two entries, in units of the largest entry of the weight; NaN counts as far away."""
    pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(ones, others, strict=True) if a.numel()]
    distances = [
        float(((a - b).abs().max() / b.abs().max()).nan_to_num(nan=inf)) if b.any() else float(a.any())
        for a, b in pairs
    ]
    return max(distances, default=0.0)


def step_both(one: Any, other: Any, ones: list[nn.Parameter], others: list[nn.Parameter], scale: float = 1.0) -> None:
    """One step of two optimizers with the same random gradients, which lie elsewhere each time."""
    for a, b in zip(ones, others, strict=True):
        a.grad = scale * (0.3 * torch.randn_like(a) + a.detach() / scale)
        b.grad = a.grad.clone()
    one.step()
    other.step()


def both(
    kind: Any, params: list[nn.Parameter], penalty: Penalty | None = None, **options: Any
) -> tuple[Any, Any, list[nn.Parameter]]:
    """A fused optimizer, a plain one, and the parameters of that."""
    others = copy.deepcopy(params)
    options |= {} if penalty is None else {"penalty": penalty}
    one, other = kind(params, fused=True, **options), kind(others, fused=False, **options)
    group = one.param_groups[0]
    for param in params:
        param.grad = torch.zeros_like(param)
    step = one._fused_step(group, params)
    assert step is not None
    assert isinstance(step.kernels, cuda.CUDAKernels)
    return one, other, others


# -- the same numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "penalty", "dtype"),
    [
        (RAMDA, GroupLasso(0.3), torch.float32),
        (RAMDA, SparseGroupLasso(0.3, 0.3, Slices(0)), torch.float64),
        (RMDA, GroupLasso(1.0), torch.float64),
        (RMDA, SparseGroupLasso(2.5, 0.3, Slices(0)), torch.float32),
        (ProxAdamW, GroupLasso(0.3), torch.float64),
        (ProxAdamW, SparseGroupLasso(0.3, 0.3, Slices(0)), torch.float32),
        *((kind, L1(0.1), torch.float32) for kind in PROXIMAL),
        *((kind, None, torch.float64) for kind in PROXIMAL),
    ],
)
def test_agrees_with_plain_torch(kind: Any, penalty: Penalty | None, dtype: torch.dtype) -> None:
    params = weights((6, 9), (2, 8, 3, 3), (2, 70), dtype=dtype)
    one, other, others = both(kind, params, penalty, lr=0.1)
    for _ in range(3):
        step_both(one, other, params, others)
    assert distance(params, others) < TOLERANCE[dtype]
    found, expected = one.read_out(), other.read_out()
    assert (found.alive, found.total, found.steps_unchanged) == (
        expected.alive,
        expected.total,
        expected.steps_unchanged,
    )
    assert found.residual < 100 * TOLERANCE[dtype]
    if penalty is not None:
        assert 0 < found.alive < found.total
    for a, b in zip(one.structures().values(), other.structures().values(), strict=True):
        assert torch.equal(a.kept, b.kept)
    with one.structured(), other.structured():
        assert distance(params, others) < TOLERANCE[dtype]
        for param, structure in one.structures().items():
            assert isinstance(structure, Support)
            assert torch.equal(structure.kept, structure.groups.any(param))
            if kind is not RMDA and "root" in one.state[param]:
                # Where the next solve starts.
                norms = structure.groups.sum(param.detach().square()).sqrt()
                torch.testing.assert_close(one.state[param]["root"], norms.flatten(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_metric_of_numbers_of_any_size(dtype: torch.dtype) -> None:
    sizes = torch.logspace(-16, 16, 1000, dtype=torch.float64).to(DEVICE)
    param = nn.Parameter(torch.zeros(1000, dtype=dtype, device=DEVICE))
    optimizer = RAMDA([param], lr=1.0, averaging=1.0, eps=0.0, fused=True)
    param.grad = sizes.to(dtype)
    optimizer.step()
    # g / cbrt(g^2), at anchor 0.
    expected = -param.grad.double() / param.grad.double().square().pow(1 / 3)
    torch.testing.assert_close(param.detach().double(), expected, rtol=10 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("kind", PROXIMAL)
def test_long_groups_and_many_rows(kind: Any) -> None:
    params = weights((2, 4200), (140, 3))
    for penalty in (GroupLasso(0.05, Slices(0)), GroupLasso(0.05)):
        one, other, others = both(kind, params[:1] if penalty.groups == Slices(0) else params[1:], penalty, lr=0.1)
        ones = one.param_groups[0]["params"]
        step_both(one, other, ones, others)
        assert distance(ones, others) < 1e-12


def test_weights_in_any_order_of_memory() -> None:
    kernel = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    ones = [
        nn.Parameter(kernel.clone(memory_format=torch.channels_last).to(DEVICE)),
        nn.Parameter(kernel[0, :, 0].clone().to(DEVICE).t()),
    ]
    one, other, others = both(ProxAdamW, ones, GroupLasso(0.3), lr=0.1)
    for _ in range(2):
        step_both(one, other, ones, others)
    assert distance(ones, others) < 1e-12


@pytest.mark.parametrize("kind", [RAMDA, RMDA])
@pytest.mark.parametrize("penalty", [GroupLasso(0.2), None])
def test_options_of_the_gradient(kind: Any, penalty: Penalty | None) -> None:
    params = weights((6, 5))
    options: dict[str, Any] = {"maximize": True, "averaging": 0.7, "lr": torch.tensor(0.05, device=DEVICE)}
    one, other, others = both(kind, params, penalty, **options | ({} if penalty else {"weight_decay": 0.1}))
    for _ in range(2):
        step_both(one, other, params, others)
    assert distance(params, others) < 1e-12


@pytest.mark.parametrize("kind", PROXIMAL)
def test_numbers_may_be_tensors_on_the_device(kind: Any) -> None:
    params = weights((6, 5))
    one, other, others = both(kind, params, GroupLasso(0.2), lr=0.1, capturable=True)
    for _ in range(3):
        step_both(one, other, params, others)
    assert isinstance(one.param_groups[0]["residual"], Tensor)
    assert distance(params, others) < 1e-12
    assert one.read_out().alive == other.read_out().alive


@pytest.mark.parametrize("side", ["consumers", "producers"])
def test_couplings(side: Any) -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 2)
    ).to(DEVICE, torch.float64)  # fmt: skip
    models = model, copy.deepcopy(model)
    example = torch.zeros(2, 2, 6, 6, dtype=torch.float64, device=DEVICE)
    one, other = (
        RAMDA(regularize(each, GroupLasso(0.2), example, side), lr=0.1, fused=fused)
        for each, fused in zip(models, (True, False), strict=True)
    )
    ones, others = (list(each.parameters()) for each in models)
    for _ in range(2):
        step_both(one, other, ones, others)
    assert distance(ones, others) < 1e-12
    assert one.read_out().alive == other.read_out().alive < one.read_out().total


@pytest.mark.parametrize(
    ("kind", "dtype", "scales"),
    [
        (partial(RAMDA, eps=0.0), torch.float32, (1e-12, 1e12)),
        (partial(ProxAdamW, eps=0.0), torch.float32, (1e-18, 1e18)),
        (RMDA, torch.float32, (1e-25, 1e25)),
        (partial(RAMDA, eps=0.0), torch.float64, (1e-90, 1e90)),
        (partial(ProxAdamW, eps=0.0), torch.float64, (1e-120, 1e120)),
        (RMDA, torch.float64, (1e-180, 1e180)),
    ],
)
def test_huge_and_tiny_numbers(kind: Any, dtype: torch.dtype, scales: tuple[float, ...]) -> None:
    for scale in scales:
        params = weights((7, 6), dtype=dtype, scale=scale)
        lam = 0.3 * (scale if kind is RMDA else 1.0)
        one, other, others = both(kind, params, GroupLasso(lam), lr=0.1 * (1.0 if kind is RMDA else scale))
        for _ in range(2):
            step_both(one, other, params, others, scale)
        assert distance(params, others) < TOLERANCE[dtype], scale
        assert bool(params[0].isfinite().all())


@pytest.mark.parametrize(("kind", "dtype"), [(RAMDA, torch.float64), (ProxAdamW, torch.float32)])
def test_groups_that_the_passes_leave_are_solved_alone(
    kind: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "PASSES", 0)
    params = weights((9, 6), (2, 3, 2, 2), dtype=dtype)
    one, other, others = both(kind, params, GroupLasso(0.3), lr=0.1)
    for _ in range(2):
        step_both(one, other, params, others)
    assert distance(params, others) < TOLERANCE[dtype]
    assert 0 < one.read_out().alive == other.read_out().alive < one.read_out().total
    assert one.read_out().residual < 100 * TOLERANCE[dtype]


@pytest.mark.parametrize("kind", PROXIMAL)
@pytest.mark.parametrize("lam", [0.0, 1e30])
def test_no_strength_keeps_and_a_huge_one_drops_everything(kind: Any, lam: float) -> None:
    params = weights((5, 4))
    one, other, others = both(kind, params, GroupLasso(lam))
    for _ in range(2):
        step_both(one, other, params, others)
    assert distance(params, others) < 1e-12
    assert one.read_out().alive == (0 if lam else 4) == other.read_out().alive
    assert one.read_out().residual == 0.0


@pytest.mark.parametrize("kind", PROXIMAL)
def test_dead_groups_single_entries_and_empty_tensors(kind: Any) -> None:
    params = weights((1, 1), (0, 4), (3, 0), (5, 1), (1, 5), (6, 4))
    with torch.no_grad():
        params[-1][:, 0] = 0.0
    one, other, others = both(kind, params, GroupLasso(0.01))
    for _ in range(2):
        for a, b in zip(params, others, strict=True):
            a.grad = torch.randn_like(a)
            if a.numel():
                a.grad[:, 0] = 0.0
            b.grad = a.grad.clone()
        one.step()
        other.step()
    assert distance(params, others) < 1e-12
    assert not params[-1][:, 0].any()
    assert (one.read_out().alive, one.read_out().total) == (other.read_out().alive, other.read_out().total)
    assert [s.kept.shape for s in one.structures().values()] == [s.kept.shape for s in other.structures().values()]


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"momentum": 0.0, "maximize": True}])
def test_factors(depth: int, options: dict[str, Any]) -> None:
    params = weights((7, 5), (1030, 1))
    others = copy.deepcopy(params)
    built: list[FactorizedSGD] = []
    for ws, fused in ((params, True), (others, False)):
        torch.manual_seed(1)
        built.append(FactorizedSGD(ws, lr=0.05, depth=depth, lam=1e-3, fused=fused, **options))
    for _ in range(2):
        step_both(built[0], built[1], params, others)
    assert distance(params, others) < 1e-12
    for a, b in zip(built[0].factors().values(), built[1].factors().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all(torch.equal(product(*factors), weight) for weight, factors in built[0].factors().items())


# -- the promises ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*PROXIMAL, FactorizedSGD])
@pytest.mark.parametrize("bad", [nan, inf])
def test_a_closed_gate_changes_nothing(kind: Any, bad: float) -> None:
    params = weights((4, 3), (2, 2))
    penalty = {} if kind is FactorizedSGD else {"penalty": GroupLasso(0.1)}
    optimizer = kind([{"params": params[:1], **penalty}, {"params": params[1:]}], capturable=True, fused=True)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    before = copy.deepcopy((params, list(optimizer.state.values())))
    assert params[0].grad is not None
    params[0].grad[0, 0] = bad
    optimizer.step()
    for now, then in zip(params, before[0], strict=True):
        assert torch.equal(now, then)
    for now, then in zip(optimizer.state.values(), before[1], strict=True):
        assert all(torch.equal(now[name], then[name]) for name in then)
    assert optimizer.skipped == 1


@pytest.mark.parametrize("kind", PROXIMAL)
def test_a_closed_gate_at_the_first_step_drops_nothing(kind: Any) -> None:
    (param,) = params = weights((4, 5))
    with torch.no_grad():
        param[:, 0] = 0.0
    optimizer = kind(params, penalty=GroupLasso(0.1), capturable=True, fused=True)
    param.grad = torch.full_like(param, nan)
    optimizer.step()
    assert optimizer.structures()[param].kept.tolist() == [False, True, True, True, True]
    assert optimizer.read_out() == ProximalReadOut(alive=4, total=5, skipped=1, residual=0.0, steps_unchanged=0)
    param.grad.fill_(0.1)
    optimizer.step()
    assert optimizer.read_out().alive == 4 + int(param.detach()[:, 0].any())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RAMDA, {"penalty": GroupLasso(0.1)}),
        (RMDA, {"penalty": L1(0.1)}),
        (FactorizedSGD, {}),
    ],
)
def test_torch_is_asked_for_no_more_where_there_are_more_weights(
    kind: Any,
    options: dict[str, Any],
    operations: Callable[[Callable[[], object]], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda, "PASSES", 0)
    counts: list[int] = []
    for number in (2, 12):
        params = weights(*[(2, 3)] * number)
        optimizer = kind(params, capturable=True, fused=True, **options)
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        counts.append(operations(optimizer.step))
    assert counts[0] == counts[1]


def test_launches_do_not_grow_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[dict[str, int]] = []
    # Which kernels work is found out once, by launches.
    assert cuda.CUDAKernels().obstacle("ramda", torch.float64, Plan(())) is None
    real, entries = cuda._loops("groups"), cuda._loops("entries")

    class Counting:
        def __getattr__(self, name: str) -> Any:
            found = getattr(real, name)
            if not hasattr(found, "fn"):
                return found
            counts[-1][name] = counts[-1].get(name, 0) + 1
            return found

    monkeypatch.setattr(cuda, "_loops", lambda what: Counting() if what == "groups" else entries)
    for shapes in ([(2, 3)], [(2, 3)] * 5):
        params = weights(*shapes)
        optimizer = RAMDA(params, penalty=GroupLasso(0.1), fused=True)
        for param in params:
            param.grad = torch.ones_like(param)
        counts.append({})
        optimizer.step()
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == 5 + 2 * cuda.PASSES


def test_tables_of_addresses_are_sent_once_and_stay_for_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device(DEVICE)
    known = cuda._Addresses(device)
    tensors = [torch.zeros(1, device=device) for _ in range(2 * cuda.MOST_ADDRESSES)]
    addresses = [[tensor.data_ptr()] for tensor in tensors]
    first = known.of(addresses[0])
    assert known.of(addresses[0]) is first
    assert first.tolist() == [tensors[0].data_ptr()]
    capturing = True
    monkeypatch.setattr(cuda, "capturing", lambda device: capturing)
    assert known.of(addresses[0]) is first
    # An address that is new in a capture takes the spare table, and takes it again in the next one.
    new = known.of(addresses[1])
    assert new.tolist() == addresses[1]
    assert known.of(addresses[1]) is new
    with pytest.raises(RuntimeError, match="captured without a step just before; take one step outside"):
        known.of(addresses[2])
    capturing = False
    for address in addresses:
        assert known.of(address).tolist() == address
    assert len(known.known) == cuda.MOST_ADDRESSES
    capturing = True
    # What a graph reads is never given back.
    assert known.of(addresses[0]) is first
    assert known.of(addresses[1]) is new


def test_groups_that_share_a_penalty_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    params = weights((2, 3), (4, 2))
    optimizer = RAMDA([{"params": [param]} for param in params], penalty=GroupLasso(0.1), fused=True, capturable=True)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    plans = len(cuda._plans)
    optimizer.step()
    monkeypatch.setattr(cuda, "capturing", lambda device: True)
    optimizer.step()
    assert optimizer.param_groups[1]["step"] == 3
    assert len(cuda._plans) == plans


def test_a_capture_comes_after_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    params = weights((2, 3))
    optimizer = RAMDA(params, penalty=GroupLasso(0.1), fused=True)
    params[0].grad = torch.ones_like(params[0])
    monkeypatch.setattr(cuda, "capturing", lambda device: True)
    with pytest.raises(RuntimeError, match="a fused step was captured without a step just before"):
        optimizer.step()


# -- when -----------------------------------------------------------------------------------------------------------


def test_cuda_has_these_kernels() -> None:
    assert isinstance(fused_kernels("cuda"), cuda.CUDAKernels)


def test_half_precision_has_no_fused_step() -> None:
    warn_once.cache_clear()
    with pytest.warns(
        UserWarning, match=r"^RAMDA: there is no fused step of torch.bfloat16 on CUDA; steps are taken in"
    ):
        RAMDA(weights((2, 2), dtype=torch.bfloat16), fused=True)


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Nothing is tried or said yet."""
    for function in (cuda._failure, warn_once):
        function.cache_clear()
    yield
    for function in (cuda._failure, warn_once):
        function.cache_clear()


def test_without_triton_it_says_so(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openwork.kernels.triton_entries", None)
    with pytest.warns(
        UserWarning,
        match=r"^RAMDA: there is no fused step on this machine, since Triton, .*, is missing or broken "
        r"\(ModuleNotFoundError: .*\); steps are taken in plain torch$",
    ):
        RAMDA(weights((2, 2)), fused=True)


class Broken:
    """A kernel that does not run."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **named: Any) -> None:
            raise RuntimeError("no such instruction")

        return launch


@pytest.mark.parametrize(
    ("kind", "file", "name"),
    [(RAMDA, "groups", "certify"), (ProxAdamW, "entries", "entries"), (FactorizedSGD, "factors", "factors")],
)
def test_a_kernel_that_does_not_run_is_said_once_and_plain_steps_go_on(
    forgetful: None, kind: Any, file: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda._loops(file), name, Broken())
    (param,) = params = weights((2, 3))
    with pytest.warns(UserWarning, match=r"is missing or broken \(RuntimeError: no such instruction\); steps are"):
        optimizer = kind(params, fused=True)
    before, param.grad = param.detach().clone(), torch.ones_like(param)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1
    assert not torch.equal(before, param)
    # Warnings are errors.
    kind(weights((2, 3)), fused=True)


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "precision"), [(80, "float32"), (90, "float64")])
def test_every_kernel_compiles(capability: int, precision: str, tmp_path: Path) -> None:
    """What the interpreter accepts, a compiler may not: all launches of all steps, for devices that are not here."""
    backends = pytest.importorskip("triton.backends")
    if "nvidia" not in backends.backends:
        pytest.skip("this Triton has no assembler for NVIDIA devices")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(Path(__file__).parent / "compile_triton.py"), str(capability), precision]
    told = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    compiled = told.stdout.split()
    assert set(compiled) == {
        "first_pass", "next_pass", "last_pass", "solve", "solve_alone", "certify", "entries", "factors",
    }  # fmt: skip
    # In all methods: 8 for RAMDA and ProxAdamW, 5 or 6 for RMDA, 7 for factors.
    assert len(compiled) == {"float32": 28, "float64": 29}[precision]
