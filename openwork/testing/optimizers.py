"""What every optimizer of the package must do, as one call per class."""

import copy
import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openwork.optim import ProximalOptimizer
from openwork.penalties import GroupLasso

Factory = Callable[[list[dict[str, Any]]], ProximalOptimizer]

STRENGTH = 0.1


def check_optimizer(factory: Factory) -> None:
    """Run torch's generic optimizer cases, and those of exact zeros, over one optimizer.

    Args:
        factory: Builds the optimizer from param groups, whose keys may set any of its options: a class, or
            ``functools.partial(RAMDA, averaging=0.5)``.

    Raises:
        AssertionError: If the optimizer does not do what a case asks; a note names the case.
    """
    for case in CASES:
        try:
            case(factory)
        except Exception as error:
            error.add_note(f"check_optimizer: {case.__name__[1:]}")
            raise


# -- the problem ----------------------------------------------------------------------------------------------------


def _params(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    """Two matrices of equal shape (solved as a stack), a convolution and a bias; every other input slice is small."""
    generator = torch.Generator().manual_seed(0)
    params: list[nn.Parameter] = []
    for shape in ((5, 4), (5, 4), (3, 4, 2, 2), (3,)):
        start = torch.randn(shape, generator=generator, dtype=torch.float64)
        if start.ndim > 1:
            start[:, ::2] *= 0.01
        params.append(nn.Parameter(start.to(dtype)))
    return params


def _groups(params: Sequence[Tensor], lam: float = STRENGTH, **options: Any) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in params if p.ndim > 1], "penalty": GroupLasso(lam), **options},
        {"params": [p for p in params if p.ndim == 1], **options},
    ]


def _loss(params: Sequence[Tensor], time: int) -> Tensor:
    """A quadratic that changes with time, whose minimizer is zero in every other input slice."""
    total = torch.zeros((), dtype=torch.float64)
    for param in params:
        target = torch.linspace(-1, 1, param.numel(), dtype=torch.float64).view(param.shape) * (1 + 0.1 * time)
        if param.ndim > 1:
            target[:, ::2] = 0
        total = total + (param - target).square().sum()
    return total / 2


def _train(optimizer: ProximalOptimizer, params: Sequence[Tensor], times: Sequence[int] = range(5)) -> None:
    for time in times:
        optimizer.zero_grad()
        _loss(params, time).backward()
        optimizer.step()


def _trained(factory: Factory, **options: Any) -> list[nn.Parameter]:
    params = _params()
    _train(factory(_groups(params, **options)), params)
    return params


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def _expect_close(got: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float = 1e-12) -> None:
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), rtol=tolerance, atol=tolerance)


def _expect_same(got: object, wanted: object, where: str = "") -> None:
    """Tensors equal bit for bit, numbers equal wherever they live, and so on inside containers."""
    match got, wanted:
        case dict(), dict():
            _expect(got.keys() == wanted.keys(), f"{where} has {list(got)}, wanted {list(wanted)}")
            for key in got:
                _expect_same(got[key], wanted[key], f"{where}[{key!r}]")
        case ((list() | tuple()), (list() | tuple())):
            _expect(len(got) == len(wanted), f"{where} has {len(got)} items, wanted {len(wanted)}")
            for i, pair in enumerate(zip(got, wanted, strict=True)):
                _expect_same(*pair, where=f"{where}[{i}]")
        case ((Tensor() | float() | int()), (Tensor() | float() | int())):
            a, b = torch.as_tensor(got), torch.as_tensor(wanted)
            _expect(torch.equal(a, b), f"{where} is {got}, wanted {wanted}")
        case _:
            _expect(got == wanted, f"{where} is {got}, wanted {wanted}")


def _snapshot(optimizer: ProximalOptimizer) -> dict[str, Any]:
    """Weights, state and counters, without the count of skipped steps."""
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        del group["skipped"]
    saved["weights"] = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    return saved


def _settle(optimizer: ProximalOptimizer) -> None:
    with warnings.catch_warnings():
        # That averaging has not grown to 1 is not the point here.
        warnings.simplefilter("ignore", UserWarning)
        optimizer.settle_()


# -- torch's own cases ----------------------------------------------------------------------------------------------


def _closure_is_called_once_with_gradients(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    losses: list[Tensor] = []

    def closure() -> Tensor:
        _expect(torch.is_grad_enabled(), "the closure runs without gradients")
        optimizer.zero_grad()
        losses.append(_loss(params, len(losses)))
        losses[-1].backward()
        return losses[-1]

    returned = [optimizer.step(closure) for _ in range(5)]
    _expect(len(losses) == 5 and all(a is b for a, b in zip(returned, losses, strict=True)), "step returns the loss")
    _expect_same(params, _trained(factory), "weights")


def _gradients_and_random_numbers_are_left_alone(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    _loss(params, 0).backward()
    before, random = [torch.clone(p.grad) for p in params if p.grad is not None], torch.get_rng_state()
    optimizer.step()
    _expect_same([p.grad for p in params], before, "gradients")
    _expect(torch.equal(random, torch.get_rng_state()), "a step draws random numbers")


def _one_at_a_time_equals_many(factory: Factory) -> None:
    _expect_close(_trained(factory, foreach=False), _trained(factory))


def _maximize_negates_gradients(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params, maximize=True))
    for time in range(5):
        optimizer.zero_grad()
        (-_loss(params, time)).backward()
        optimizer.step()
    _expect_same(params, _trained(factory), "weights")


def _lr_may_be_a_tensor(factory: Factory) -> None:
    lr = torch.tensor(0.02, dtype=torch.float64)
    for group_lr in (lr, lr.float()):
        _expect_close(_trained(factory, lr=group_lr), _trained(factory, lr=float(group_lr)), 1e-12)
    _expect(float(lr) == 0.02, "a step writes lr")


def _lr_may_be_zero(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params, lr=0.0))
    _train(optimizer, params)
    with optimizer.structured():
        _expect_close([p for p in params if p.ndim == 1], [p for p in _params() if p.ndim == 1])
    _expect(all(bool(p.isfinite().all()) for p in params), "weights are not finite at lr=0")
    _expect(0 <= optimizer.read_out().residual < 1e-6, f"residual is {optimizer.read_out().residual} at lr=0")


def _lr_schedulers_are_obeyed(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params, lr=0.02))
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    by_hand = _params()
    same = factory(_groups(by_hand, lr=0.02))
    for time in range(4):
        _train(optimizer, params, [time])
        scheduler.step()
        _train(same, by_hand, [time])
        for group in same.param_groups:
            group["lr"] *= 0.5
    _expect_same(params, by_hand, "weights")


def _deepcopy_goes_on_alone(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    _train(optimizer, params, range(3))
    twins, twin = copy.deepcopy((params, optimizer))
    _train(optimizer, params, range(3, 6))
    _train(twin, twins, range(3, 6))
    _expect_same(twins, params, "weights")
    _expect_same(_snapshot(twin), _snapshot(optimizer))


def _saved_state_goes_on_bit_for_bit(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    _train(optimizer, params, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twins = copy.deepcopy(params)
    twin = factory(_groups(twins))
    twin.load_state_dict(saved)
    _expect_same(twin.state_dict(), optimizer.state_dict())
    for time in range(3, 8):
        _train(optimizer, params, [time])
        _train(twin, twins, [time])
        _expect_same(_snapshot(twin), _snapshot(optimizer))


def _loading_copies(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    _train(optimizer, params)
    saved = optimizer.state_dict()
    frozen = copy.deepcopy(saved)
    twins = copy.deepcopy(params)
    twin = factory(_groups(twins))
    twin.load_state_dict(saved)
    _train(twin, twins)
    _expect_same(saved, frozen, "the loaded state")


def _groups_may_be_added(factory: Factory) -> None:
    params = _params()
    first, *others = _groups(params)
    optimizer = factory([first])
    for group in others:
        optimizer.add_param_group(group)
    _train(optimizer, params)
    _expect_same(params, _trained(factory), "weights")


def _hooks_run_around_a_step(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    seen: list[Tensor] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(params[0].detach().clone()))
    optimizer.register_step_post_hook(lambda *_: seen.append(params[0].detach().clone()))
    _train(optimizer, params, [0])
    _expect_same(seen, [_params()[0], params[0]], "what the hooks saw")


def _empty_and_frozen_parameters_are_fine(factory: Factory) -> None:
    params = _params()
    penalized, free = _groups(params)
    empty = [nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for shape in ((0, 4), (5, 0), (0,))]
    frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
    penalized["params"] = [*empty[:2], *penalized["params"]]
    free["params"] = [frozen, *free["params"], empty[2]]
    optimizer = factory([penalized, free])
    _train(optimizer, [*params, *empty])
    optimizer.load_state_dict(optimizer.state_dict())
    with optimizer.structured():
        _expect([tuple(p.shape) for p in empty] == [(0, 4), (5, 0), (0,)], "empty parameters change shape")
    _expect_same([*params, frozen], [*_trained(factory), torch.ones(2)], "weights")
    _expect(frozen not in optimizer.state, "a frozen parameter has state")


def _only_empty_gradients_are_no_step(factory: Factory) -> None:
    empty = nn.Parameter(torch.zeros(0, 4))
    optimizer = factory(_groups([empty]))
    optimizer.step()
    empty.sum().backward()
    optimizer.step()
    _expect(optimizer.skipped == 0, "a step without gradients counts as skipped")


def _parameters_without_gradients_wait(factory: Factory) -> None:
    params, waiting = _params(), nn.Parameter(torch.ones(5, 4, dtype=torch.float64))
    optimizer = factory(_groups([*params, waiting]))
    _train(optimizer, params)
    _expect_same([*params, waiting], [*_trained(factory), torch.ones(5, 4)], "weights")
    _expect(waiting not in optimizer.state, "a parameter without gradients has state")
    before = _snapshot(optimizer)
    optimizer.zero_grad()
    optimizer.step()
    _expect_same(_snapshot(optimizer), before)
    _train(optimizer, [*params, waiting], [5])
    _expect(not torch.equal(waiting, torch.ones(5, 4)), "a parameter whose first gradient comes late does not train")


def _complex_and_sparse_are_refused(factory: Factory) -> None:
    _expect_raises(TypeError, "is complex", lambda: factory([{"params": [torch.ones(2, dtype=torch.complex64)]}]))
    params = _params()
    optimizer = factory(_groups(params))
    _train(optimizer, params)
    before = _snapshot(optimizer)
    params[1].grad = torch.ones(5, 4, dtype=torch.float64).to_sparse()
    _expect_raises(ValueError, "is sparse", optimizer.step)
    _expect_same(_snapshot(optimizer), before)


def _expect_raises(kind: type[Exception], words: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind as error:
        _expect(words in str(error), f"the message is {error}, wanted {words!r} in it")
    else:
        raise AssertionError(f"no {kind.__name__} that says {words!r}")


def _memory_format_does_not_matter(factory: Factory) -> None:
    params = _params()
    with torch.no_grad():
        params[0].data = params[0].t().contiguous().t()
        params[2].data = params[2].to(memory_format=torch.channels_last)
    optimizer = factory(_groups(params))
    _train(optimizer, params)
    _expect_close(params, _trained(factory))
    for param in params:
        for name, tensor in optimizer.state[param].items():
            if tensor.shape == param.shape:
                _expect(tensor.stride() == param.stride(), f"{name} is not laid out as its weight")
    with optimizer.structured():
        _expect(params[2].is_contiguous(memory_format=torch.channels_last), "structured() changes the memory format")


# -- numbers --------------------------------------------------------------------------------------------------------


def _half_precision_keeps_float32_state(factory: Factory) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        params = _params(dtype)
        optimizer = factory(_groups(params))
        _train(optimizer, params)
        twins = copy.deepcopy(params)
        twin = factory(_groups(twins))
        twin.load_state_dict(optimizer.state_dict())
        for o in (optimizer, twin):
            for param, state in o.state.items():
                floating = {name: x.dtype for name, x in state.items() if x.is_floating_point()}
                _expect(set(floating.values()) == {torch.float32}, f"state of a {dtype} weight is {floating}")
                _expect_same(param, state["master"].to(dtype), "weight")
        _train(optimizer, params, range(5, 8))
        _train(twin, twins, range(5, 8))
        _expect_same(_snapshot(twin), _snapshot(optimizer))
        optimizer.init_state()
        with optimizer.structured():
            pass
        _expect_same(params, twins, "weights after structured()")


def _float32_state_loads_into_half_precision(factory: Factory) -> None:
    params = _params(torch.float32)
    optimizer = factory(_groups(params))
    _train(optimizer, params)
    halves = [nn.Parameter(p.detach().bfloat16()) for p in params]
    half = factory(_groups(halves))
    half.load_state_dict(optimizer.state_dict())
    _train(half, halves, [5])
    _train(optimizer, params, [5])
    _expect_close([half.state[p]["master"] for p in halves], params, 0.02)


def _bad_gradients_change_nothing(factory: Factory) -> None:
    for capturable in (False, True):
        for bad in (float("nan"), float("inf"), -float("inf")):
            params = _params()
            optimizer = factory(_groups(params, capturable=capturable))
            for time in range(4):
                before = _snapshot(optimizer)
                _loss(params, time).backward()
                last = params[-1].grad
                if last is not None:
                    last[1] = bad
                optimizer.step()
                after = _snapshot(optimizer)
                if time == 0:
                    # The state may have been made, but nothing has moved.
                    before["state"] = after["state"]
                _expect_same(after, before)
                _expect(optimizer.skipped == time + 1, f"skipped is {optimizer.skipped} after {time + 1} bad steps")
                optimizer.zero_grad()
                _train(optimizer, params, [time])
            clean = _params()
            _train(factory(_groups(clean, capturable=capturable)), clean, range(4))
            _expect_same(params, clean, "weights")


def _huge_gradients_are_finite(factory: Factory) -> None:
    params = [nn.Parameter(torch.ones(3, 2, dtype=torch.float64))]
    optimizer = factory([{"params": params}])
    params[0].grad = torch.full((3, 2), 1e100, dtype=torch.float64)
    optimizer.step()
    _expect(optimizer.skipped == 0, "a finite float64 gradient beyond float32 is skipped")
    _expect(bool(params[0].isfinite().all()), "a finite gradient makes weights that are not")


def _the_step_that_never_waits_is_the_same(factory: Factory) -> None:
    _expect_close(_trained(factory, capturable=True), _trained(factory))


# -- zeros ----------------------------------------------------------------------------------------------------------


def _some_groups_vanish(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    _train(optimizer, params)
    seen = optimizer.read_out()
    _expect(seen.total == 12 and 0 < seen.alive < 12, f"{seen.alive} of {seen.total} groups are alive")
    _expect(seen.residual <= 1e-6, f"residual is {seen.residual}")
    with optimizer.structured():
        for param, structure in optimizer.structures().items():
            present = param.detach().flatten(2).abs().amax((0, 2)) if param.ndim > 2 else param.detach().abs().amax(0)
            _expect_same(structure.kept, present > 0, "kept")


def _structured_weights_come_and_go(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params))
    with optimizer.structured():
        _expect_same(params, _params(), "weights before the first step")
    _train(optimizer, params)
    before = _snapshot(optimizer)
    with optimizer.structured():
        points = [p.detach().clone() for p in params]
        identities = [p.data_ptr() for p in params]
    _expect_same(_snapshot(optimizer), before)
    try:
        with optimizer.structured():
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    _expect_same(_snapshot(optimizer), before)
    _expect([p.data_ptr() for p in params] == identities, "structured() replaces the storage of weights")
    _settle(optimizer)
    _expect_same(params, points, "settled weights")
    _settle(optimizer)
    _expect_same(params, points, "weights settled twice")


def _no_strength_kills_nothing(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params, lam=0.0))
    _train(optimizer, params)
    seen = optimizer.read_out()
    _expect(seen.alive == seen.total == 12, f"{seen.alive} of {seen.total} groups are alive without a penalty")
    free = _params()
    _train(factory([{"params": free}]), free)
    _expect_close(params, free)


def _great_strength_kills_all_for_good(factory: Factory) -> None:
    params = _params()
    optimizer = factory(_groups(params, lam=1e6))
    _train(optimizer, params, range(3))
    _expect(optimizer.read_out().alive == 0, "a group survives a great strength")
    _settle(optimizer)
    _train(optimizer, params, range(3, 10))
    _expect(not any(bool(p.any()) for p in params[:3]), "zeros do not stay")
    _expect(bool(params[3].isfinite().all()), "a free parameter is not finite beside zeros")
    _expect(optimizer.read_out().alive == 0, "a group comes back")
    _expect(optimizer.read_out().steps_unchanged >= 8, "the structure changes although all is zero")


CASES: list[Callable[[Factory], None]] = [
    _closure_is_called_once_with_gradients,
    _gradients_and_random_numbers_are_left_alone,
    _one_at_a_time_equals_many,
    _maximize_negates_gradients,
    _lr_may_be_a_tensor,
    _lr_may_be_zero,
    _lr_schedulers_are_obeyed,
    _deepcopy_goes_on_alone,
    _saved_state_goes_on_bit_for_bit,
    _loading_copies,
    _groups_may_be_added,
    _hooks_run_around_a_step,
    _empty_and_frozen_parameters_are_fine,
    _only_empty_gradients_are_no_step,
    _parameters_without_gradients_wait,
    _complex_and_sparse_are_refused,
    _memory_format_does_not_matter,
    _half_precision_keeps_float32_state,
    _float32_state_loads_into_half_precision,
    _bad_gradients_change_nothing,
    _huge_gradients_are_finite,
    _the_step_that_never_waits_is_the_same,
    _some_groups_vanish,
    _structured_weights_come_and_go,
    _no_strength_kills_nothing,
    _great_strength_kills_all_for_good,
]
