"""Deltas: what comes back is what was exported, from a file of the size that was promised."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import openwork as ow
from openwork import models
from openwork.files import read_model, write_model
from openwork.sketches import Key, RandK, SketchedModule, export_delta, export_submodel, load_delta
from openwork.sketches.choosing import Granularity
from openwork.sketches.delta import Format
from openwork.sketches.export import Rule

Tuned = tuple[SketchedModule, nn.Module, Tensor]


def tuned(granularity: Granularity = "tensor", make: Callable[[], nn.Module] = lambda: models.mlp((6, 40, 3))) -> Tuned:
    """A sketched model after some change, its base, and inputs."""
    generator = torch.Generator().manual_seed(0)
    base = make()
    x = torch.randn(5, *((6,) if isinstance(base[1], nn.Linear) else (1, 8, 8)), generator=generator)  # pyright: ignore[reportIndexIssue]
    module = deepcopy(base)
    sketched = SketchedModule(module, RandK(0.5), granularity=granularity, example_inputs=x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)
    return sketched, base, x


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )


CASES: list[tuple[Format, Rule, Granularity]] = [
    ("seed", "random", "tensor"),
    ("seed", "random", "model"),
    ("seed", "nested", "tensor"),
    ("seed", "best_of", "tensor"),
    ("coo", "random", "tensor"),
    ("coo", "magnitude", "model"),
    ("coo", "random", "units"),
    ("bitmask", "magnitude", "tensor"),
    ("bitmask", "best_of", "units"),
]


@pytest.mark.parametrize(("format", "rule", "granularity"), CASES)
def test_the_very_model_comes_back(format: Format, rule: Rule, granularity: Granularity, tmp_path: Path) -> None:
    sketched, base, x = tuned(granularity)
    key = Key(4, step=3, backend="hash")
    chosen = {"rule": rule, "n": 3, "evaluate": lambda m: float(m(x).detach().sum()), "key": key}
    exported = export_submodel(sketched, 0.1, **chosen)
    size = export_delta(sketched, base, tmp_path / "a", 0.1, base_id="mlp", format=format, **chosen)
    before = deepcopy(base)
    loaded = load_delta(tmp_path / "a", base)
    assert torch.equal(loaded.eval()(x), exported(x))
    for (name, a), b in zip(loaded.named_parameters(), exported.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), before.parameters(), strict=True))
    assert not torch.equal(base(x), exported(x))
    assert size.file_bytes == (tmp_path / "a").stat().st_size


@pytest.mark.parametrize("ratio", [0.01, 0.1, 1.0])
def test_a_seed_costs_16_bytes_besides_the_values(ratio: float, tmp_path: Path) -> None:
    sketched, base, _ = tuned()
    size = export_delta(sketched, base, tmp_path / "a", ratio, base_id="mlp")
    count = sum(RandK(ratio).kept(x.numel()) for x in base.parameters())
    content = (tmp_path / "a").read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == size.payload_bytes == 16 + 4 * count
    assert size.values == count
    assert f"{count:,} of 403 values" in str(size)


def test_places_cost_four_bytes_and_bits_an_eighth(tmp_path: Path) -> None:
    sketched, base, _ = tuned("model")
    coo = export_delta(sketched, base, tmp_path / "a", 0.1, base_id="mlp", format="coo", rule="magnitude")
    bits = export_delta(sketched, base, tmp_path / "b", 0.1, base_id="mlp", format="bitmask", rule="magnitude")
    assert coo.values == bits.values == 41
    # 240 + 40 + 120 + 3 entries; the last tensor is cheaper whole, or not there, in either format.
    stored = read_model(tmp_path / "a")[0]
    assert coo.payload_bytes == sum(x.nbytes for x in stored.values()) <= 8 * 41
    assert bits.payload_bytes <= 4 * 41 + 30 + 5 + 15 + 1


def test_what_is_not_sketched_is_stored_whole(tmp_path: Path) -> None:
    sketched, base, x = tuned("tensor", conv)
    batches = [(x, torch.zeros(5))]
    export_delta(sketched, base, tmp_path / "a", 0.2, base_id="conv", batches=batches)
    entries = read_model(tmp_path / "a")[1]["entries"]
    assert isinstance(entries, dict)
    assert (entries["0.weight"], entries["1.running_mean"]) == ("kept", "whole")
    exported = export_submodel(sketched, 0.2, batches=batches, key=Key(0, backend="hash"))
    assert torch.equal(load_delta(tmp_path / "a", base.eval())(x), exported(x))


def test_a_negative_zero_of_the_base_stays(tmp_path: Path) -> None:
    base = nn.Linear(4, 4)
    nn.init.constant_(base.weight, -0.0)
    sketched = SketchedModule(deepcopy(base), RandK(0.25))
    nn.init.ones_(sketched.module.get_parameter("weight"))
    export_delta(sketched, base, tmp_path / "a", 0.25, base_id="zeros")
    weight = load_delta(tmp_path / "a", base).weight.detach()
    assert int(weight.signbit().sum()) == 12
    assert int((weight == 4).sum()) == 4


def test_a_delta_for_another_base_changes_nothing(tmp_path: Path) -> None:
    sketched, base, _ = tuned()
    export_delta(sketched, base, tmp_path / "a", 0.1, base_id="mlp-1")
    other = deepcopy(base)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-6
    before = deepcopy(other)
    with pytest.raises(ValueError, match=r"changes the base model 'mlp-1' of checksum \w{12}, and into is another one"):
        load_delta(tmp_path / "a", other)
    with pytest.raises(ValueError, match="another one"):
        load_delta(tmp_path / "a", base.double())
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), before.parameters(), strict=True))


def test_a_mask_that_comes_out_otherwise_is_noticed(tmp_path: Path) -> None:
    sketched, base, _ = tuned()
    export_delta(sketched, base, tmp_path / "a", 0.1, base_id="mlp", key=Key(0))
    stored, about = read_model(tmp_path / "a")
    draw = about["draw"]
    assert isinstance(draw, dict)
    write_model(tmp_path / "a", stored, {**about, "draw": {**draw, "backend": "hash", "torch": "1.0"}})
    base = models.mlp((6, 40, 3))
    with pytest.raises(ValueError, match=r"its mask was drawn by torch 1.0 and comes out otherwise here; export it"):
        load_delta(tmp_path / "a", base)


def test_a_seed_is_any_whole_number(tmp_path: Path) -> None:
    sketched, base, x = tuned()
    for seed in (-1, 1 << 63):
        key = Key(seed, draw=5, backend="hash")
        export_delta(sketched, base, tmp_path / "a", 0.1, base_id="mlp", key=key)
        assert torch.equal(load_delta(tmp_path / "a", base)(x), export_submodel(sketched, 0.1, key=key)(x))


def test_bad_input(tmp_path: Path) -> None:
    sketched, base, _ = tuned()
    units, _, _ = tuned("units")
    path = tmp_path / "a"
    with pytest.raises(TypeError, match=r"^export_delta: sketched must be a SketchedModule, got Sequential"):
        export_delta(base, base, path, 0.1, base_id="b")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"^export_delta: model must be a torch.nn.Module, got dict"):
        export_delta(sketched, {}, path, 0.1, base_id="b")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^export_delta: format must be one of 'seed', 'coo', 'bitmask', got 'zip'$"):
        export_delta(sketched, base, path, 0.1, base_id="b", format="zip")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"^export_delta: a keep ratio must be above 0"):
        export_delta(sketched, base, path, 0, base_id="b")
    with pytest.raises(ValueError, match=r"rule='magnitude' depends on the weights; take format='bitmask' or 'coo'$"):
        export_delta(sketched, base, path, 0.1, base_id="b", rule="magnitude")
    with pytest.raises(ValueError, match=r"masks of entries, and '1.weight' has units; take format='bitmask' or 'coo'"):
        export_delta(units, base, path, 0.1, base_id="b")
    with pytest.raises(ValueError, match=r"'1.weight' is of shape \(40, 6\) .* in the model and .*\(41, 6\)"):
        export_delta(sketched, models.mlp((6, 41, 3)), path, 0.1, base_id="b")
    with pytest.raises(
        ValueError, match=r"^export_delta: '1.weight' differs from the base where its mask keeps nothing"
    ):
        export_delta(sketched, models.mlp((6, 40, 3), seed=1), path, 0.1, base_id="b")
    with pytest.raises(OSError, match="cannot write"):
        export_delta(sketched, base, tmp_path / "none" / "a", 0.1, base_id="b")
    assert not list(tmp_path.iterdir())


def test_bad_files(tmp_path: Path) -> None:
    sketched, base, _ = tuned()
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_delta(path, base)
    ow.save(base, path)
    with pytest.raises(ValueError, match=r"a is no delta; read it with ow.load, or name what export_delta wrote"):
        load_delta(path, base)
    export_delta(sketched, base, path, 0.1, base_id="b")
    with pytest.raises(TypeError, match=r"^load_delta: model must be a torch.nn.Module, got function"):
        load_delta(path, lambda: base)  # pyright: ignore[reportArgumentType]
    stored, about = read_model(path)
    write_model(path, stored, {**about, "schema": 2})
    with pytest.raises(ValueError, match=r"has schema 2, and this version of openwork reads 1; use the version that"):
        load_delta(path, base)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        load_delta(path, base)
    assert b"pickle" not in content
    assert json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
