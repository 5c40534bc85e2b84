"""Saved models come back as they were, as small as they were, and can be trained; what is wrong is one sentence."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork.files import read_model, write_model
from openwork.shrinking import Shrunk
from openwork.wiring import inspect
from tests.wiring.zoo import ZOO, LeNet, mlp

SAVED = ["mlp", "lenet", "residual", "mobile", "gated_rms", "encoder", "our_gpt", "llama"]


def zeroed(model: nn.Module, x: Any) -> nn.Module:
    """The model with half of the units of every coupling zero, on both sides."""
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for coupling in inspect(model, x).removable:
            dead = torch.randperm(coupling.width)[: coupling.width // 2]
            for part in coupling.slices():
                if part.name in tensors:
                    tensors[part.name].index_fill_(part.dim, torch.isin(part.units, dead).nonzero().flatten(), 0)
    return model


def first(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else next(iter(outputs.values()))


def run(model: nn.Module, x: Any) -> Tensor:
    model.eval()
    return first(model(**x)) if isinstance(x, dict) else model(x)


def shrunk_mlp() -> tuple[nn.Module, Shrunk]:
    model = zeroed(mlp(), torch.randn(2, 4))
    return model, ow.shrink(model, torch.randn(2, 4))


@pytest.mark.parametrize("name", SAVED)
def test_a_shrunk_model_comes_back_and_trains(name: str, tmp_path: Path) -> None:
    model, x = ZOO[name]()
    # Another model of the class, which has other weights.
    other = ZOO[name]()[0]
    before = deepcopy(other.state_dict())
    shrunk = ow.shrink(zeroed(model, x), x)
    ow.save(shrunk, tmp_path / "small.safetensors")
    loaded = ow.load(tmp_path / "small.safetensors", into=other)

    assert all(torch.equal(a, b) for a, b in zip(before.values(), other.state_dict().values(), strict=True))
    assert type(loaded) is type(other)
    expected = dict([*shrunk.model.named_parameters(), *shrunk.model.named_buffers()])
    found = dict([*loaded.named_parameters(), *loaded.named_buffers()])
    assert list(found) == list(expected)
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert torch.equal(run(loaded, x), run(shrunk.model, x))
    assert sum(p.numel() for p in loaded.parameters()) == shrunk.report.params[1] < shrunk.report.params[0]
    loaded.train()
    (first(loaded(**x)) if isinstance(x, dict) else loaded(x)).square().mean().backward()
    torch.optim.SGD(loaded.parameters(), lr=1.0).step()
    assert not torch.equal(run(loaded, x), run(shrunk.model, x))


def test_ties_survive(tmp_path: Path) -> None:
    model, x = ZOO["llama"]()
    shrunk = ow.shrink(zeroed(model, x), x)
    ow.save(shrunk, tmp_path / "small.safetensors")
    loaded: Any = ow.load(tmp_path / "small.safetensors", into=lambda: ZOO["llama"]()[0])
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def low_rank() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))


def recurrent() -> nn.Module:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0])

    return Reader()


def branches() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 5))
            self.stem, self.head = nn.Linear(4, 5), nn.Linear(5, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(torch.tanh(x + self.inner(x)))

    return Block()


def test_layers_in_place_of_others_come_back(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    model: Any = low_rank()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(32, 2) @ torch.randn(2, 32))
    shrunk = ow.shrink(model, torch.randn(2, 32))
    assert shrunk.report.ranks
    ow.save(shrunk, file)
    loaded: Any = ow.load(file, into=low_rank)
    assert [tuple(layer.weight.shape) for layer in loaded[0]] == [(2, 32), (32, 2)]
    x = torch.randn(5, 32)
    assert torch.equal(loaded(x), shrunk.model(x))

    model = branches()
    with torch.no_grad():
        model.inner[2].weight.zero_()
    shrunk = ow.shrink(model, torch.randn(2, 4))
    assert shrunk.report.constant == ("inner.2",) or shrunk.report.constant == ("inner",)
    ow.save(shrunk, file)
    assert torch.equal(ow.load(file, into=branches)(x[:, :4]), shrunk.model(x[:, :4]))

    model = recurrent()
    shrunk = ow.shrink(zeroed(model, torch.randn(2, 3, 4)), torch.randn(2, 3, 4), split_recurrent=True)
    ow.save(shrunk, file)
    assert torch.equal(ow.load(file, into=recurrent)(x.view(5, 8, 4)), shrunk.model(x.view(5, 8, 4)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_survive(dtype: torch.dtype, tmp_path: Path) -> None:
    model = zeroed(mlp(), torch.randn(2, 4)).to(dtype)
    shrunk = ow.shrink(model, torch.randn(2, 4, dtype=dtype))
    ow.save(shrunk, tmp_path / "small.safetensors")
    loaded = ow.load(tmp_path / "small.safetensors", into=mlp)
    assert {p.dtype for p in loaded.parameters()} == {dtype}


def test_buffers_that_a_state_dict_leaves_out_survive(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)
            self.register_buffer("scale", torch.ones(3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.get_buffer("scale")

    model = Scaled()
    model.get_buffer("scale").fill_(7)
    ow.save(model, tmp_path / "model.safetensors")
    assert ow.load(tmp_path / "model.safetensors", into=Scaled).get_buffer("scale").tolist() == [7, 7, 7]


def test_what_is_loaded_into_decides_mode_and_what_is_frozen(tmp_path: Path) -> None:
    _, shrunk = shrunk_mlp()
    ow.save(shrunk, tmp_path / "small.safetensors")
    into: Any = mlp().eval()
    into[0].requires_grad_(False)
    loaded: Any = ow.load(tmp_path / "small.safetensors", into=into)
    assert not loaded.training
    assert [p.requires_grad for p in loaded.parameters()] == [False, False, True, True, True, True]
    assert ow.load(tmp_path / "small.safetensors", into=mlp).training


def test_any_module_can_be_saved_and_a_class_is_enough(tmp_path: Path) -> None:
    model = LeNet()
    ow.save(model, str(tmp_path / "model.safetensors"))
    loaded = ow.load(str(tmp_path / "model.safetensors"), into=LeNet)
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(loaded(x), model(x))


def test_shrinking_again_loads_in_two_steps(tmp_path: Path) -> None:
    _, once = shrunk_mlp()
    twice = ow.shrink(zeroed(once.model, torch.randn(2, 4)), torch.randn(2, 4))
    ow.save(once, tmp_path / "once.safetensors")
    ow.save(twice, tmp_path / "twice.safetensors")
    loaded = ow.load(tmp_path / "twice.safetensors", into=ow.load(tmp_path / "once.safetensors", into=mlp))
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), twice.model(x))


def test_single_zeros_make_a_file_smaller_and_come_back(tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Linear(100, 100))
    with torch.no_grad():
        model[0].weight.mul_(torch.rand(100, 100) < 0.1)
    ow.save(model, tmp_path / "dense")
    ow.save(model, tmp_path / "sparse", sparse=True)
    assert (tmp_path / "sparse").stat().st_size < 0.25 * (tmp_path / "dense").stat().st_size
    loaded: Any = ow.load(tmp_path / "sparse", into=lambda: nn.Sequential(nn.Linear(100, 100)))
    assert torch.equal(loaded[0].weight, model[0].weight)


def test_the_file_says_what_is_in_it(tmp_path: Path) -> None:
    _, shrunk = shrunk_mlp()
    ow.save(shrunk, tmp_path / "small.safetensors")
    _, about = read_model(tmp_path / "small.safetensors")
    assert about["certificate"] == shrunk.report.certificate.to_json()
    assert about["plan"] == shrunk.plan.to_json()
    assert about["model"] == "Sequential"
    assert about["shapes"] == {name: list(p.shape) for name, p in shrunk.model.named_parameters()}


# -- what is wrong --------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A shrunk 4-8-6-3 network."""
    _, shrunk = shrunk_mlp()
    ow.save(shrunk, tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def needs_a_width(width: int) -> nn.Module:
    return nn.Linear(width, width)


def wider() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 3))


def deeper() -> nn.Module:
    return nn.Sequential(*mlp().children(), nn.Linear(3, 3))


def shallower() -> nn.Module:
    return nn.Sequential(*list(mlp().children())[:3])


class Needs(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("into", "message"),
    [
        (LeNet, r"small\.safetensors holds a Sequential, and into gives a LeNet; pass the class that was saved"),
        (
            wider,
            r"needs '0\.weight' of shape \(8, 4\) in the Sequential that into gives, where it has shape \(9, 4\); ",
        ),
        (
            shallower,
            r"needs '4\.weight' of shape \(3, 6\) .* where it is not there; build it with the sizes that it had",
        ),
        (deeper, r"has nothing for '5\.weight' of the Sequential that into gives; build it with the sizes that it had"),
        (lambda: mlp().to("meta"), r"into gives a model on the meta device; build it on the device that it shall run"),
    ],
)
def test_a_plan_for_another_model_is_refused(file: Path, into: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=f"load: .*{message}"):
        ow.load(file, into=into)


@pytest.mark.parametrize(
    ("into", "message"),
    [
        (
            Needs,
            r"Needs is called without arguments and needs some \(missing a required argument: 'width'\); pass into=",
        ),
        (needs_a_width, r"needs_a_width is called without arguments and needs some .*pass into=lambda: needs_a_width"),
        (3, r"into must be the class of the model, a function that builds it or such a model, got a int; pass"),
        (lambda: 3, r"<lambda> gives a int; pass a class or function that gives a module"),
    ],
)
def test_into_that_gives_no_model_is_refused(file: Path, into: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"load: .*{message}"):
        ow.load(file, into=into)


def test_a_small_model_without_its_plan_says_so(tmp_path: Path) -> None:
    _, shrunk = shrunk_mlp()
    ow.save(shrunk.model, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"or save what ow\.shrink returned rather than its model"):
        ow.load(tmp_path / "small.safetensors", into=mlp)
    loaded = ow.load(tmp_path / "small.safetensors", into=shrunk.model)
    assert torch.equal(loaded(torch.ones(1, 4)), shrunk.model(torch.ones(1, 4)))


def test_a_damaged_file_is_refused(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="was cut short or edited"):
        ow.load(file, into=mlp)
    file.write_bytes(content[:40])
    with pytest.raises(ValueError, match="is not a safetensors file, or its beginning is damaged or was cut short"):
        ow.load(file, into=mlp)
    edited = bytearray(content)
    edited[-1] ^= 1
    file.write_bytes(edited)
    with pytest.raises(ValueError, match="its content is not what its checksum says"):
        ow.load(file, into=mlp)
    # The plan is under the checksum as well.
    file.write_bytes(content.replace(b'\\"model\\": \\"Sequential', b'\\"model\\": \\"Parallel__'))
    with pytest.raises(ValueError, match="its content is not what its checksum says"):
        ow.load(file, into=mlp)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; check the path"):
        ow.load(file.with_name("nothing"), into=mlp)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2, and this version of openwork reads 1; use the version that wrote it"),
        ({"model": None}, "was not written by ow.save, since it names no model"),
        ({"plan": {"schema": 9}}, "the plan has schema 9, and this version of openwork reads 1; use the version that"),
        ({"plan": {"schema": 1, "model": "Sequential"}}, "the plan is incomplete; restore the file from a copy"),
    ],
)
def test_a_file_of_another_version_is_refused(file: Path, change: dict[str, Any], message: str) -> None:
    tensors, about = read_model(file)
    write_model(file, tensors, {**about, **change})
    with pytest.raises(ValueError, match=message):
        ow.load(file, into=mlp)


def test_a_part_of_a_newer_version_is_refused(file: Path) -> None:
    tensors, about = read_model(file)
    plan = json.loads(json.dumps(about["plan"]))
    plan["replacements"] = [{"path": "0", "kind": "wavelet", "numbers": {}}]
    write_model(file, tensors, {**about, "plan": plan})
    with pytest.raises(ValueError, match=r"replaces '0' by 'wavelet', which this version of openwork does not know"):
        ow.load(file, into=mlp)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    model: Any = mlp().state_dict()
    with pytest.raises(
        TypeError, match=r"save: model must be a torch\.nn\.Module or what ow\.shrink returned, got Order"
    ):
        ow.save(model, tmp_path / "model")
    with pytest.raises(OSError, match="cannot write"):
        ow.save(mlp(), tmp_path / "none" / "model")
    assert not any(tmp_path.iterdir())
