"""Wrong input of factorize and collapse: one clear sentence, and nothing has changed."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from openwork.factorizations import Entries, Handle, Split, collapse, factorize, param_groups, plan_budget


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def refused(model: nn.Module, words: str, call: Callable[[], object], kind: type[Exception] = ValueError) -> None:
    before = [(n, id(p), p.requires_grad, p._version) for n, p in model.named_parameters(remove_duplicate=False)]
    kinds, state = [type(module) for module in model.modules()], torch.get_rng_state()
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    after = [(n, id(p), p.requires_grad, p._version) for n, p in model.named_parameters(remove_duplicate=False)]
    assert after == before
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(torch.get_rng_state(), state)


NUMBERS = [
    ({"depth": 1}, "depth must be an integer of at least 2, got 1; 3 is a good choice"),
    ({"depth": True}, "depth must be an integer of at least 2, got True"),
    ({"depth": 2.5}, "depth must be an integer of at least 2, got 2.5"),
    ({"lam": -1.0}, "lam must be at least 0 and finite, got -1.0"),
    ({"lam": float("nan")}, "lam must be at least 0 and finite, got nan"),
    ({"lam": float("inf")}, "lam must be at least 0 and finite, got inf"),
    ({"depths": {"0.weight": 1}}, "depth must be an integer of at least 2, got 1"),
    ({"lams": {"0.weight": -2.0}}, "lam must be at least 0 and finite, got -2.0"),
    ({"depths": {"9.*": 3}}, "depths '9.*' matches no parameter of Sequential"),
    ({"include": "nothing.*"}, "include 'nothing.*' matches no parameter of Sequential"),
    ({"include": ["0.weight", "2.wieght"]}, "include '2.wieght' matches no parameter of Sequential; nearest"),
    ({"exclude": "nothing.*"}, "exclude 'nothing.*' matches no parameter of Sequential"),
    ({"exclude": nn.Linear}, "Sequential has no weight left to factorize: 0.weight (in exclude)"),
]


@pytest.mark.parametrize(("options", "words"), NUMBERS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("function", [factorize, param_groups])
def test_numbers_and_selections(function, options: dict[str, Any], words: str) -> None:
    model = net()
    refused(model, f"{function.__name__}: {words}", lambda: function(model, **options))


def frozen() -> nn.Module:
    return net().requires_grad_(False)


def half_seen() -> nn.Module:
    """A weight is a view of one that stays as it is."""
    table, layer = nn.Embedding(4, 4), nn.Linear(4, 4)
    layer.weight = nn.Parameter(table.weight.detach())
    return nn.Sequential(table, layer)


def views() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    whole = torch.randn(6, 4)
    model[0].weight, model[1].weight = nn.Parameter(whole[:4]), nn.Parameter(whole[2:])
    return model


def normalized() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))


def factorized() -> nn.Module:
    model = net()
    factorize(model)
    return model


MODELS: list[tuple[Callable[[], nn.Module], dict[str, Any], str]] = [
    (frozen, {}, "no weight left to factorize: 0.weight (frozen), 0.bias (frozen)"),
    (frozen, {"include": "0.weight"}, "include names '0.weight', which does not train (requires_grad is False"),
    (nn.Sequential, {}, "Sequential has no weight left to factorize: it has none"),
    (nn.ReLU, {}, "ReLU has no weight left to factorize: it has none"),
    (lambda: nn.LayerNorm(4), {}, "LayerNorm has no weight left to factorize: weight ("),
    (lambda: nn.Embedding(5, 4), {}, "Embedding has no weight left to factorize: weight (table)"),
    (lambda: nn.Sequential(nn.LazyLinear(3)), {}, "'0.weight' has no shape yet; call the model on one batch first"),
    (lambda: nn.Linear(4, 3, dtype=torch.complex64), {}, "no weight left to factorize: weight (complex64)"),
    (
        lambda: nn.Linear(4, 3, dtype=torch.complex64),
        {"include": "weight"},
        "does not train (requires_grad is True, dty",
    ),
    (normalized, {"include": "weight"}, "weight has a parametrization already; remove it, or leave it out of include"),
    (normalized, {"include": "parametrizations.weight.original1"}, "belongs to a parametrization; remove that"),
    (factorized, {}, "0.weight is factorized already; call collapse(model) first"),
    (views, {}, "1.weight shares memory with 0.weight"),
    (half_seen, {}, "1.weight shares memory with 0.weight"),
]


@pytest.mark.parametrize(("build", "options", "words"), MODELS, ids=[words[:40] for *_, words in MODELS])
def test_models(build: Callable[[], nn.Module], options: dict[str, Any], words: str) -> None:
    model = build()
    refused(model, words, lambda: factorize(model, **options))


def test_no_model_and_not_factorized() -> None:
    with pytest.raises(TypeError, match=r"factorize: model must be a torch\.nn\.Module, got list"):
        factorize([nn.Linear(2, 2)])  # pyright: ignore[reportArgumentType]
    model = net()
    refused(model, "collapse: nothing in this Sequential is factorized; call factorize first", lambda: collapse(model))
    refused(model, "Handle: nothing in this Sequential is factorized", lambda: Handle(model))
    handle = factorize(model)
    for value in (-1.0, float("nan")):
        refused(model, f"collapse: threshold must be at least 0, got {value}", lambda v=value: collapse(model, v))
    refused(
        model, "collapse: Sequential does not run on example_inputs", lambda: handle.collapse(0.0, torch.ones(1, 9))
    )
    handle.collapse()
    refused(model, "collapse: nothing in this Sequential is factorized", handle.collapse)


def test_checkpoints_of_other_depths() -> None:
    model, other, plain = net(), net(), net()
    factorize(model, 3)
    factorize(other, 2)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.parametrizations\.weight\.original2"'):
        other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key.*"0\.parametrizations\.weight\.original2"'):
        model.load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key.*parametrizations"):
        model.load_state_dict(plain.state_dict())


# -- optimizers -----------------------------------------------------------------------------------------------------


def take_a_step(model: nn.Module, optimizer: Any) -> None:
    optimizer.zero_grad()
    model(torch.ones(3, 4)).square().sum().backward()
    optimizer.step()


def refuses_to_step(model: nn.Module, optimizer: Any, words: str) -> None:
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(3, 4)).square().sum().backward()
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


DECOUPLED: list[Callable[[Any], torch.optim.Optimizer]] = [
    lambda groups: torch.optim.AdamW(groups),
    lambda groups: torch.optim.Adam(groups, decoupled_weight_decay=True),
    lambda groups: torch.optim.NAdam(groups, decoupled_weight_decay=True),
    lambda groups: torch.optim.RAdam(groups, decoupled_weight_decay=True),
    lambda groups: torch.optim.Adafactor(groups),
]


@pytest.mark.parametrize("build", [*DECOUPLED, lambda groups: torch.optim.Muon(groups[:1])])
def test_decoupled_decay_is_another_penalty(build) -> None:
    model = net()
    handle = factorize(model, 3, 0.01)
    words = (
        r"decoupled weight decay is not the L2 that makes .*; take torch\.optim\.Adam, or say handle\.param_groups\(d"
    )
    refuses_to_step(model, build(handle.param_groups()), words)
    take_a_step(model, build(handle.param_groups(decoupled=True)))


def test_wrong_decay() -> None:
    model = net()
    handle = factorize(model, 4, 0.01)
    words = r"the weight decay of the factors of 0\.weight is {}, and lam asks for 2 lam / depth = 0\.005 \(depth"
    refuses_to_step(model, torch.optim.SGD(model.parameters(), lr=0.1), words.format("0"))
    refuses_to_step(model, torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01), words.format(r"0\.01"))
    take_a_step(model, torch.optim.SGD(handle.param_groups(), lr=0.1))
    # Without a strength there is no L2 to insist on.
    other = net()
    factorize(other, 4)
    take_a_step(other, torch.optim.SGD(other.parameters(), lr=0.1, weight_decay=0.1))


OLD = (
    r"SGD: this optimizer was built before factorize\(\), and its 0\.weight is not in the model any more; build the opt"
)


@pytest.mark.parametrize("stepped", [False, True])
def test_an_optimizer_from_before(stepped: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer)
    if stepped:
        take_a_step(model, optimizer)
        scheduler.step()
    handle = factorize(model, 3, 0.01)
    refuses_to_step(model, optimizer, OLD)
    # After pre-training, a new one is right, and it may even be a group of the same.
    take_a_step(model, torch.optim.SGD(handle.param_groups(), lr=0.1))


def test_an_optimizer_from_before_that_is_wrapped() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = net()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    factorize(accelerator.unwrap_model(model), 3, 0.01)
    refuses_to_step(model, optimizer, OLD)


def test_an_optimizer_from_before_collapse() -> None:
    model = net()
    handle = factorize(model, 3, 0.01)
    optimizer = torch.optim.SGD(handle.param_groups(), lr=0.1)
    take_a_step(model, optimizer)
    collapse(model)
    words = (
        r"built before collapse\(\), and its factor 0 of 0\.weight is not in the model any more; build the optimizer a"
    )
    refuses_to_step(model, optimizer, words)
    take_a_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
    # And once more.
    handle = factorize(model, 2, 0.01, form=Entries(Split()))
    take_a_step(model, torch.optim.SGD(handle.param_groups(), lr=0.1))


def test_groups_that_are_added_later_are_looked_at() -> None:
    model = net()
    first, second = Handle.param_groups(factorize(model, 3, 0.01))
    optimizer = torch.optim.SGD([second], lr=0.1)
    take_a_step(model, optimizer)
    optimizer.add_param_group({"params": first["params"], "weight_decay": 0.5, "names": first["names"]})
    refuses_to_step(model, optimizer, "the weight decay of the factors of 0.weight is 0.5, and lam asks for")


def test_no_false_alarm() -> None:
    shared, other = nn.Linear(4, 4), nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Linear(4, 2))
    optimizer = torch.optim.SGD([*other.parameters(), *shared.parameters()], lr=0.1)
    twin = copy.deepcopy(model)
    factorize(twin, 3, 0.01)
    # Neither a factorized copy is an alarm, nor a factorized model that is gone.
    take_a_step(nn.Sequential(other, model), optimizer)
    weight = shared.weight
    factorize(model, 3, 0.01)
    del model, shared
    gc.collect()
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_later_steps_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    from openwork.factorizations import watching

    model = net()
    optimizer = torch.optim.SGD(factorize(model, 3, 0.01).param_groups(), lr=0.1)
    take_a_step(model, optimizer)
    monkeypatch.setattr(watching, "parts_of", lambda _: pytest.fail("it was looked at again"))
    take_a_step(model, optimizer)


# -- budget ---------------------------------------------------------------------------------------------------------


def test_budgets() -> None:
    for options, words in (
        ({"lam": -1.0}, "plan_budget: lam must be at least 0, got -1.0"),
        ({"lr": 0.0}, "plan_budget: lr must be above 0, got 0.0"),
        ({"steps": 0}, "plan_budget: steps must be at least 1, got 0"),
        ({"momentum": 1.0}, "plan_budget: momentum must be at least 0 and below 1, got 1.0"),
        ({"warmup": 11}, "plan_budget: warmup must be at most the 10 steps of the training, got 11"),
        ({"steps": 10.5}, "plan_budget: steps must be an integer, got 10.5"),
        ({"lam": None}, "plan_budget: lam must be a number, got None"),
        ({"schedule": "step"}, "plan_budget: schedule must be 'constant', 'cosine' or a function, got 'step'"),
    ):
        with pytest.raises(ValueError) as caught:
            plan_budget(**{"lam": 0.1, "lr": 0.1, "steps": 10, **options})
        assert str(caught.value) == words


def test_budgets_of_nothing_and_of_numbers_of_torch() -> None:
    said = str(plan_budget(1e-3, 0.1, 10, schedule=lambda step: 0.0))
    assert said.endswith("take a schedule whose learning rate is above 0")
    lam, steps = torch.tensor(0.25, dtype=torch.float64), torch.tensor(10)
    assert plan_budget(lam, 0.1, steps) == plan_budget(0.25, 0.1, 10)  # pyright: ignore[reportArgumentType]


def test_a_strength_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="factorize: lam must be at least 0 and finite, got None"):
        factorize(nn.Linear(4, 3), 3, None)  # pyright: ignore[reportArgumentType]
