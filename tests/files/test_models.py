import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from openwork.files import read_model, write_bytes, write_model
from openwork.files.models import DTYPES

ABOUT = {"plan": {"cut": [1, 2], "of": "0.weight"}, "certificate": {"difference": 1e-7}, "nothing": None}


def as_bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], density: float, signed: bool) -> Tensor:
    """Any bits at all where an entry is not zero; some zeros are negative if ``signed``."""
    zeros = torch.zeros(shape, dtype=dtype)
    octets = torch.randint(0, 2 if dtype == torch.bool else 256, (zeros.numel(), zeros.element_size()))
    octets *= torch.rand(zeros.numel(), 1) < density
    if signed and dtype != torch.bool:
        octets[(octets == 0).all(1) & (torch.rand(zeros.numel()) < 0.5), -1] = 128
    return octets.to(torch.uint8).flatten().view(dtype).reshape(shape)


@given(
    dtype=st.sampled_from(sorted(DTYPES, key=str)),
    shape=st.lists(st.sampled_from([0, 1, 3, 7, 40]), max_size=3).map(tuple),
    density=st.sampled_from([0.0, 0.01, 0.3, 0.9, 1.0]),
    signed=st.booleans(),
    sparse=st.booleans(),
    name=st.text(max_size=4),
)
def test_every_bit_comes_back(tmp_path_factory, dtype, shape, density, signed, sparse, name):
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    tensor = random_tensor(dtype, shape, density, signed)
    write_model(path, {name: tensor}, ABOUT, sparse=sparse)
    back, about = read_model(path)
    assert [*back] == [name] and about == ABOUT
    assert back[name].dtype == dtype and back[name].shape == shape
    assert torch.equal(as_bytes(back[name]), as_bytes(tensor))


@given(
    values=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_plain_values_come_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("models") / "a.safetensors"
    write_model(path, {}, values)
    assert read_model(path) == ({}, values)


def test_names_keep_their_order(tmp_path):
    tensors = {name: torch.zeros(size) for name, size in [("b", 3), ("c", 400), ("a", 2)]}
    write_model(tmp_path / "a.safetensors", tensors, {}, sparse=True)
    assert [*read_model(tmp_path / "a.safetensors")[0]] == ["b", "c", "a"]


def test_what_is_tied_is_stored_once_and_stays_tied(tmp_path):
    words, head = nn.Embedding(100, 8), nn.Linear(8, 100, bias=False)
    head.weight = words.weight
    model = nn.ModuleDict({"words": words, "head": head})
    for sparse in (False, True):
        write_model(tmp_path / "a.safetensors", model.state_dict(), {}, sparse=sparse)
        back, _ = read_model(tmp_path / "a.safetensors")
        assert back["head.weight"] is back["words.weight"]
        assert torch.equal(back["head.weight"], words.weight)
        assert [*load_file(tmp_path / "a.safetensors")] == ["words.weight"]


def test_what_merely_overlaps_is_stored_in_full(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"whole": whole, "part": whole[:2], "turned": whole.t(), "column": whole[:, 1], "none": whole[:0]}
    write_model(tmp_path / "a.safetensors", tensors, {})
    back, _ = read_model(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    back["whole"].zero_()
    assert torch.equal(back["part"], tensors["part"])


def test_parameters_and_views_with_a_sign(tmp_path):
    z = torch.randn(3, dtype=torch.complex64)
    tensors = {"weight": nn.Parameter(torch.randn(2)), "conjugate": z.conj(), "negative": z.conj().imag, "z": z}
    write_model(tmp_path / "a.safetensors", tensors, {})
    back, _ = read_model(tmp_path / "a.safetensors")
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert not back["weight"].requires_grad


@pytest.mark.parametrize("negative", [False, True])
def test_sparse_files_are_smaller_only_where_that_pays(tmp_path, negative):
    kept = torch.rand(1000, 32) < 0.1
    # What masking by multiplication leaves: half of the zeros are negative.
    weight = torch.randn(1000, 32) * kept if negative else torch.randn(1000, 32).where(kept, 0.0)
    tensors = {"w": weight, "w.mask": torch.randn(100, 32), "bias": torch.zeros(8), "keep": torch.ones(64, 64)}
    for sparse in (False, True):
        write_model(tmp_path / f"{sparse}.safetensors", tensors, {}, sparse=sparse)
    dense, sparse = ((tmp_path / f"{sparse}.safetensors").stat().st_size for sparse in (False, True))
    zeros = int((~kept).sum())
    assert dense - sparse == pytest.approx(4 * zeros - 32_000 / 8 - negative * zeros / 8, abs=400)
    stored = {*load_file(tmp_path / "True.safetensors")}
    assert stored == {"w", "w.mask", "w.mask_", "bias", "keep", *(["w.signs"] if negative else [])}
    back, _ = read_model(tmp_path / "True.safetensors")
    assert all(torch.equal(as_bytes(back[name]), as_bytes(tensors[name])) for name in tensors)


def test_a_dense_file_is_an_ordinary_safetensors_file(tmp_path):
    tensors = {"a": torch.randn(3), "b": torch.ones(2, dtype=torch.int64)}
    write_model(tmp_path / "a.safetensors", tensors, ABOUT)
    plain = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(plain[name], tensors[name]) for name in tensors)


def test_one_flipped_bit_anywhere_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    weight = torch.zeros(40, 20)
    weight[3, 4] = 1.5
    write_model(path, {"w": weight, "tied": weight, "b": torch.arange(3)}, ABOUT, sparse=True)
    content = path.read_bytes()
    for at in range(len(content)):
        for bit in (0, 5):  # the next letter, and the other case
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            with pytest.raises(ValueError, match=r"a\.safetensors (is damaged|is not a|is a safetensors|has schema)"):
                read_model(path)


@pytest.mark.parametrize("left", [0, 1, 8, 100, 0.5, -1])
def test_a_cut_file_is_one_sentence(tmp_path, left):
    path = tmp_path / "a.safetensors"
    write_model(path, {"w": torch.randn(1000)}, ABOUT)
    whole = path.read_bytes()
    write_bytes(path, whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(ValueError, match=r"a\.safetensors is (not a safetensors file, or|damaged, was cut short or)"):
        read_model(path)


def test_a_longer_file_is_damaged(tmp_path):
    path = tmp_path / "a.safetensors"
    write_model(path, {"w": torch.randn(3)}, ABOUT)
    write_bytes(path, path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged, was cut short or edited: its content is not"):
        read_model(path)


def edited(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change our part of the header, and keep the rest."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    outer = json.loads(content[8 : 8 + size])
    ours = json.loads(outer["__metadata__"]["openwork"])
    edit(ours)
    outer["__metadata__"]["openwork"] = json.dumps(ours)
    text = json.dumps(outer, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as safetensors does
    write_bytes(path, struct.pack("<Q", len(text)) + text + content[8 + size :])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ours: ours["about"]["plan"].update(cut=[1, 3]), r"is damaged, was cut short or edited: its content"),
        (lambda ours: ours["tensors"].update(extra={"same_as": "w"}), r"is damaged, was cut short or edited: its"),
        (lambda ours: ours.pop("about"), r"is damaged, was cut short or edited: its content"),
        (lambda ours: ours.update(sha256=""), r"is damaged, was cut short or edited: its content"),
        (lambda ours: ours.update(schema=7), r"has schema 7 and this openwork reads schema 1; upgrade openwork, or"),
    ],
)
def test_an_edited_header_is_one_sentence(tmp_path, edit, message):
    path = tmp_path / "a.safetensors"
    write_model(path, {"w": torch.randn(3)}, ABOUT)
    edited(path, lambda ours: None)
    read_model(path)  # written anew, word by word
    edited(path, edit)
    with pytest.raises(ValueError, match=r"a\.safetensors " + message):
        read_model(path)


def test_files_of_others_are_one_sentence(tmp_path):
    save_file({"w": torch.randn(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors is a safetensors file without a model's description by"):
        read_model(tmp_path / "a.safetensors")
    torch.save({"w": torch.randn(3)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is not a safetensors file, or its beginning is damaged"):
        read_model(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*b\.safetensors; check the path$"):
        read_model(tmp_path / "b.safetensors")
    with pytest.raises(OSError, match=r"^cannot read .*; choose a file you can read$"):
        read_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("__metadata__", torch.ones(1), r"safetensors keeps the name '__metadata__' for itself; rename that tensor$"),
        ("w", torch.ones(1).to_sparse(), r"'w' has layout torch.sparse_coo; call its to_dense\(\) before$"),
        ("w", torch.ones(1, dtype=torch.complex128), r"'w' has type torch.complex128, which safetensors cannot hold"),
        ("w", torch.ones(1, device="meta"), r"'w' is on the meta device and has no entries; load it before$"),
    ],
)
def test_what_cannot_be_stored_is_one_sentence(tmp_path, name, tensor, message):
    with pytest.raises(ValueError, match=r"^cannot write .*a\.safetensors: " + message):
        write_model(tmp_path / "a.safetensors", {name: tensor}, {})
    assert [*tmp_path.iterdir()] == []


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file size are POSIX")
    import signal

    path = tmp_path / "a.safetensors"
    write_model(path, {}, {"number": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(OSError, match=r"^cannot write .*a\.safetensors: File too large; free some space there"):
            write_model(path, {"w": torch.ones(100_000)}, {"number": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert read_model(path) == ({}, {"number": 1})
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
