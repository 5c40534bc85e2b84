import copy
import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from openwork.optim import RAMDA, RMDA, ProxAdamW, ProximalOptimizer, ProxSGD, Stages, regularize, unwrap
from openwork.penalties import GroupLasso
from tests.sketches.launch import forked


def averaging(optimizer: ProximalOptimizer) -> float:
    return float(optimizer.averaging_now(optimizer.param_groups[0]))


def test_equals_restarts_by_hand(weight, follow) -> None:
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizer, by_hand = (RAMDA([p], lr=0.05, penalty=GroupLasso(0.1)) for p in (ours, theirs))
    Stages(optimizer, [10, 15], gamma=0.5)
    for t in range(30):
        if t in (10, 15):
            by_hand.param_groups[0]["lr"] *= 0.5
            by_hand.param_groups[0]["eps"] *= 0.5
            by_hand.restart()
        if t >= 15:
            # c grows with the steps since the restart, t - 14 = 1, 2, ...
            by_hand.param_groups[0]["averaging"] = min(0.1 * (t - 14) ** 0.5, 1.0)
        follow(optimizer, ours, t)
        follow(by_hand, theirs, t)
        assert torch.equal(ours, theirs)


def test_averaging_is_constant_and_then_grows_to_one(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=0.25, penalty=GroupLasso(0.5))
    stages = Stages(optimizer, [3, 5])
    seen: list[float] = []
    for t in range(25):
        assert stages.in_last_stage is (t >= 5)
        follow(optimizer, param, t)
        seen.append(averaging(optimizer))
    assert seen == [0.25] * 5 + [min(0.25 * i**0.5, 1.0) for i in range(1, 21)]
    assert seen[-5:] == [1.0] * 5  # from i = 16 = 0.25 ** -2


def test_in_the_end_the_zeros_are_in_the_weights(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=0.25, penalty=GroupLasso(0.5))
    Stages(optimizer, [5], total=25)
    for t in range(25):
        if t == 10:
            assert (param != 0).all()
        follow(optimizer, param, t)
    kept = (param != 0).any(0)
    assert 0 < kept.sum() < 6
    assert torch.equal(kept, optimizer.structures()[param].kept)
    before = param.detach().clone()
    optimizer.settle_()  # without a warning
    assert torch.equal(param, before)


def test_without_milestones_the_first_stage_is_the_last(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=0.5)
    assert Stages(optimizer, []).in_last_stage
    for t in range(5):
        follow(optimizer, param, t)
        assert averaging(optimizer) == min(0.5 * (t + 1) ** 0.5, 1.0)


def test_acts_at_the_beginning_of_a_step(weight, follow) -> None:
    """What is evaluated after the last step of a stage still has its prox points."""
    param = nn.Parameter(weight)
    optimizer = RMDA([param], lr=0.1, averaging=0.25, penalty=GroupLasso(0.5))
    Stages(optimizer, [20])
    for t in range(20):
        follow(optimizer, param, t)
    group = optimizer.param_groups[0]
    assert group["lr"] == 0.1 and group["step"] == 20
    with optimizer.structured():
        assert 0 < (param != 0).any(0).sum() < 6
    anchor = param.detach().clone()
    follow(optimizer, param, 20)
    assert group["lr"] == pytest.approx(0.01) and group["step"] == 1
    assert torch.equal(optimizer.state[param]["anchor"], anchor)


def test_decays_every_group_by_itself() -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    lr = torch.tensor(0.5)
    groups = [
        {"params": params[:1], "lr": 0.1, "eps": 1e-3},
        {"params": params[1:2], "lr": lr},
        {"params": params[2:], "lr": lr},
    ]
    optimizer = RAMDA(groups, eps=1e-6)
    Stages(optimizer, [1], gamma=0.5)
    for _ in range(3):
        for param in params:
            param.grad = torch.ones(2)
        optimizer.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.05, 0.25, 0.25]
    assert [group["eps"] for group in optimizer.param_groups] == [5e-4, 5e-7, 5e-7]
    assert lr == 0.5


def test_other_methods_decay_only_their_rate(weight, follow) -> None:
    for kind in (ProxSGD, ProxAdamW):
        param = nn.Parameter(weight.clone())
        optimizer = kind([param], lr=0.1, penalty=GroupLasso(0.1))
        before = dict(optimizer.param_groups[0])
        Stages(optimizer, [2])
        for t in range(4):
            follow(optimizer, param, t)
        after = optimizer.param_groups[0]
        assert after["lr"] == pytest.approx(0.01)
        assert after["step"] == 4
        assert all(after[name] == before[name] for name in ("eps", "averaging", "betas") if name in before)


def test_a_group_added_in_the_last_stage_grows_too() -> None:
    first, late = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = RMDA([first], averaging=0.5)
    Stages(optimizer, [])
    first.grad = late.grad = torch.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": [late]})
    for _ in range(3):
        optimizer.step()
    assert [optimizer.averaging_now(group) for group in optimizer.param_groups] == [1.0, 0.5 * 3**0.5]


def test_milestones_may_be_epochs(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param])
    stages = Stages(optimizer, [2], steps_per_epoch=3)
    for t in range(8):
        assert stages.in_last_stage is (t >= 6)
        follow(optimizer, param, t)


def test_a_skipped_step_counts_for_milestones_and_not_for_growth(weight, follow) -> None:
    param = nn.Parameter(weight)
    optimizer = RMDA([param], averaging=0.25)
    stages = Stages(optimizer, [2])
    for t in range(3):
        follow(optimizer, param, t)
    param.grad = torch.full_like(param, torch.nan)
    optimizer.step()
    follow(optimizer, param, 4)
    assert stages.state_dict()["position"] == 5
    assert averaging(optimizer) == 0.25 * 2**0.5


def test_a_scaler_that_skips_a_step_advances_nothing(weight, follow) -> None:
    param = nn.Parameter(weight.float())
    optimizer = RMDA([param], averaging=0.25, penalty=GroupLasso(0.1))
    stages = Stages(optimizer, [])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor in (1.0, torch.inf, 1.0):
        optimizer.zero_grad()
        before = copy.deepcopy((optimizer.state_dict(), stages.state_dict()))
        scaler.scale(factor * param.square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        if factor != 1.0:
            assert str((optimizer.state_dict(), stages.state_dict())) == str(before)
    assert stages.state_dict()["position"] == 2
    assert averaging(optimizer) == 0.25 * 2**0.5
    assert optimizer.skipped == 0


# -- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RMDA, RAMDA])
@pytest.mark.parametrize("stop", [3, 5, 6, 10, 13])
def test_resumes_bit_for_bit(weight, follow, kind, stop: int, tmp_path: Path) -> None:
    """Mid-stage, at a milestone not yet acted on, after a restart, and while averaging grows."""

    def build(param: nn.Parameter) -> tuple[ProximalOptimizer, Stages]:
        optimizer = kind([param], averaging=0.25, penalty=GroupLasso(0.1))
        return optimizer, Stages(optimizer, [5, 10])

    param = nn.Parameter(weight)
    optimizer, stages = build(param)
    for t in range(stop):
        follow(optimizer, param, t)
    torch.save((param.detach(), optimizer.state_dict(), stages.state_dict()), tmp_path / "checkpoint.pt")

    saved, optimizer_state, stages_state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    twin = nn.Parameter(saved)
    resumed, resumed_stages = build(twin)
    resumed_stages.load_state_dict(json.loads(json.dumps(stages_state)))
    resumed.load_state_dict(optimizer_state)
    for t in range(stop, stop + 20):
        assert resumed_stages.in_last_stage == stages.in_last_stage
        follow(optimizer, param, t)
        follow(resumed, twin, t)
        assert torch.equal(param, twin)
        assert averaging(optimizer) == averaging(resumed)
    with optimizer.structured(), resumed.structured():
        assert torch.equal(param, twin)


@pytest.mark.parametrize(("other", "name"), [({"milestones": [6]}, "milestones"), ({"gamma": 0.5}, "gamma")])
def test_state_of_other_stages_is_refused(other, name: str) -> None:
    first, second = (RMDA([nn.Parameter(torch.ones(2))]) for _ in range(2))
    saved = Stages(first, **{"milestones": [5], **other}).state_dict()
    with pytest.raises(ValueError, match=rf"Stages: the state to load has {name} .*; build them as they were"):
        Stages(second, [5]).load_state_dict(saved)


# -- options --------------------------------------------------------------------------------------------------------


def test_a_last_stage_too_short_for_averaging_warns() -> None:
    def build(total: int, **options: int) -> None:
        Stages(RMDA([nn.Parameter(torch.ones(2))], averaging=0.1), [50], total=total, **options)

    with pytest.warns(UserWarning, match=r"the last stage has 99 steps, and averaging=0.1 needs 100 to grow to 1"):
        build(149)
    with pytest.warns(UserWarning, match=r"the last stage has 90 steps"):
        build(59, steps_per_epoch=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(150)
        build(60, steps_per_epoch=10)
        Stages(ProxSGD([nn.Parameter(torch.ones(2))]), [50], total=51)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"milestones": [5, 5]}, r"Stages: milestones must be positive and increase, got \[5, 5\]"),
        ({"milestones": [0]}, r"Stages: milestones must be positive and increase, got \[0\]"),
        ({"milestones": [], "gamma": 0.0}, r"Stages: gamma must be above 0 and at most 1, got 0.0"),
        ({"milestones": [], "gamma": 2.0}, r"Stages: gamma must be above 0 and at most 1, got 2.0"),
        ({"milestones": [], "steps_per_epoch": 0}, r"Stages: steps_per_epoch must be a positive integer, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stages(RMDA([nn.Parameter(torch.ones(2))]), **options)


def test_needs_an_optimizer_of_ours() -> None:
    with pytest.raises(TypeError, match=r"Stages needs an openwork optimizer such as RMDA, got SGD"):
        Stages(torch.optim.SGD([nn.Parameter(torch.ones(2))]), [])


def test_stages_are_no_scheduler() -> None:
    """So that nobody hands them to a wrapper that steps them once per process."""
    assert not hasattr(Stages, "step")


# -- wrapped --------------------------------------------------------------------------------------------------------


def test_unwrap_finds_the_innermost() -> None:
    inner = RMDA([nn.Parameter(torch.ones(2))])

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    assert unwrap(Wrapper(Wrapper(inner))) is inner
    assert unwrap(inner) is inner


def one_of_two(folder: Path) -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, step_scheduler_with_optimizer=True)
    torch.manual_seed(0)
    inner = RMDA(regularize(bare := nn.Linear(6, 4), GroupLasso(0.05)), lr=0.1, averaging=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(bare.parameters()), lambda step: 1.0)
    model, optimizer, scheduler = accelerator.prepare(bare, inner, schedule)
    stages = Stages(optimizer, [3])
    torch.manual_seed(accelerator.process_index)
    for _ in range(5):
        x = torch.randn(8, 6)
        optimizer.zero_grad()
        accelerator.backward(model(x).square().mean())
        optimizer.step()
        scheduler.step()
    found = {
        "processes": accelerator.num_processes,
        "scheduler": schedule.last_epoch,
        "position": stages.state_dict()["position"],
        "step": inner.param_groups[0]["step"],
        "lr": inner.param_groups[0]["lr"],
        "alive": inner.read_out().alive,
        "weights": [p.tolist() for p in bare.parameters()],
    }
    (folder / f"{accelerator.process_index}.json").write_text(json.dumps(found))
    accelerator.wait_for_everyone()


def test_under_two_processes_each_step_counts_once(tmp_path: Path) -> None:
    ended = forked(2, tmp_path, one_of_two, tmp_path)
    assert ended.codes == [0, 0], ended.said
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["processes"] == 2
    # What the wrapper of schedulers does to a scheduler: two steps for one.
    assert first["scheduler"] == 10
    assert first["position"] == 5
    assert first["step"] == 2
    assert first["lr"] == pytest.approx(0.01)
