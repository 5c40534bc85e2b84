"""What every baseline must do, as one call."""

from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, AdamW, Optimizer

from openwork.baselines import Baseline, Pruning

# Where trainings are cut and gone on with, as fractions of their steps.
CUTS = (0.0, 0.1, 0.35, 0.8)


def check_baseline(baseline: Baseline, *, steps: int = 40, period: int = 8) -> None:
    """Train a small network in float64 under a baseline, and check what masks promise.

    Args:
        baseline: Any; its schedule must fit.
        steps: Of the training.
        period: Steps of an epoch.

    Raises:
        AssertionError: If it breaks the contract; a note names the case.
    """
    for case in (_trainings_fill_the_steps, _zeros_hold, _the_end_can_be_looked_at, _it_goes_on, _it_has_no_state):
        try:
            case(baseline, steps, period)
        except Exception as error:
            error.add_note(f"check_baseline: {case.__name__[1:]} for {baseline}")
            raise


def _network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) - 0.4)
    return model


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(12, 6, generator=generator, dtype=torch.float64), torch.arange(12) % 3


def _sgd(model: nn.Module) -> Optimizer:
    return SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def _adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01, weight_decay=0.1, amsgrad=True)


def _built(baseline: Baseline, steps: int, period: int, make: Callable[[nn.Module], Optimizer] = _sgd) -> Pruning:
    model = _network()
    return Pruning(baseline, model, make(model), steps=steps, period=period)


def _begun(baseline: Baseline, steps: int, period: int, make: Callable[[nn.Module], Optimizer] = _sgd) -> Pruning:
    pruning = _built(baseline, steps, period, make)
    pruning.begin(cross_entropy, *_batch(0))
    return pruning


def _step(pruning: Pruning) -> None:
    inputs, targets = _batch(pruning.step)
    cross_entropy(pruning.model(inputs), targets).backward()
    pruning.optimizer.step()
    pruning.optimizer.zero_grad()


def _trainings_fill_the_steps(baseline: Baseline, steps: int, period: int) -> None:
    trainings = baseline.trainings(steps)
    _true(trainings[0].start == 0 and trainings[-1].stop == steps, "trainings do not go from step 0 to the last")
    _true(all(a.stop == b.start for a, b in pairwise(trainings)), "trainings overlap, or leave steps out")
    _true(all(t.start < t.stop for t in trainings), "a training has no step")


def _zeros_hold(baseline: Baseline, steps: int, period: int) -> None:
    for make in (_sgd, _adamw):
        pruning = _begun(baseline, steps, period, make)
        for _ in range(steps):
            _step(pruning)
            _check_zeros(pruning)
        pruning.settle_()
        _check_zeros(pruning)
        kept = pruning.masks.kept
        pruning.settle_()
        _true(_equal(kept, pruning.masks.kept), "settling twice masks more than settling once")


def _check_zeros(pruning: Pruning) -> None:
    for name, weight in pruning.masks.weights.items():
        gone = ~pruning.masks.kept[name]
        _true(bool((weight[gone] == 0).all()), f"a masked entry of {name} is not zero after step {pruning.step}")
        for key, value in pruning.optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                zero = bool((value[gone] == 0).all())
                _true(zero, f"{key} of a masked entry of {name} is not zero after step {pruning.step}")


def _the_end_can_be_looked_at(baseline: Baseline, steps: int, period: int) -> None:
    pruning = _begun(baseline, steps, period)
    for _ in range(steps // 2):
        _step(pruning)
    before = deepcopy(pruning.model.state_dict())
    with pruning.settled():
        seen = deepcopy(pruning.model.state_dict())
    _true(_equal(before, pruning.model.state_dict()), "looking at the end changes the model")
    pruning.settle_()
    _true(_equal(seen, pruning.model.state_dict()), "the end is not what it was when it was looked at")


def _it_goes_on(baseline: Baseline, steps: int, period: int) -> None:
    whole = _begun(baseline, steps, period)
    cuts: dict[int, dict[str, object]] = {round(cut * steps): {} for cut in CUTS}
    for number in range(steps):
        if number in cuts:
            states = (whole.model.state_dict(), whole.optimizer.state_dict(), whole.state_dict())
            cuts[number] = deepcopy(dict(zip(("model", "optimizer", "pruning"), states, strict=True)))
        _step(whole)
    for number, state in cuts.items():
        again = _built(baseline, steps, period)
        again.model.load_state_dict(state["model"])  # pyright: ignore[reportArgumentType]
        again.optimizer.load_state_dict(state["optimizer"])  # pyright: ignore[reportArgumentType]
        again.load_state_dict(state["pruning"])  # pyright: ignore[reportArgumentType]
        for _ in range(number, steps):
            _step(again)
        same = _equal(whole.model.state_dict(), again.model.state_dict()) and _equal(whole.masks.kept, again.masks.kept)
        _true(same, f"it does not go on from its state after step {number} to the same bits")


def _it_has_no_state(baseline: Baseline, steps: int, period: int) -> None:
    """Neither a training before it nor the global random state changes what it does."""
    models: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        with torch.random.fork_rng([]):
            pruning = _built(baseline, steps, period)
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            pruning.begin(cross_entropy, *_batch(0))
            for _ in range(steps):
                _step(pruning)
            _true(torch.equal(before, torch.get_rng_state()), "it changes the global random state")
        models.append(pruning.model.state_dict())
    _true(_equal(*models), "two trainings with the same seed differ")


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


def _true(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
