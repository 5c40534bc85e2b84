import pickle
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from openwork.files import read_tensors, write_bytes, write_tensors


def state():
    return {
        "weights": {"0.weight": torch.arange(600.0)},
        "unit": 7,
        "groups": [{"lr": 0.1, "names": ["a"]}],
        "none": None,
    }


def test_round_trip_is_bit_for_bit(tmp_path):
    write_tensors(tmp_path / "a.pt", state())
    back = read_tensors(tmp_path / "a.pt")
    weights = cast("dict[str, Tensor]", back.pop("weights"))
    assert torch.equal(weights["0.weight"], torch.arange(600.0))
    assert back == {"unit": 7, "groups": [{"lr": 0.1, "names": ["a"]}], "none": None}


@pytest.mark.parametrize("left", [0, 1, 10, 0.5, -1])
def test_a_cut_checkpoint_is_one_sentence(tmp_path, left):
    write_tensors(tmp_path / "a.pt", state())
    whole = (tmp_path / "a.pt").read_bytes()
    write_bytes(tmp_path / "a.pt", whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(ValueError, match=r"a\.pt is damaged or was cut short \(at .*\), so it cannot be read"):
        read_tensors(tmp_path / "a.pt")


def test_one_flipped_bit_in_a_weight_is_found(tmp_path):
    write_tensors(tmp_path / "a.pt", state())
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[len(content) // 2] ^= 1
    write_bytes(tmp_path / "a.pt", bytes(content))
    with pytest.raises(ValueError, match=r"a\.pt is damaged"):
        read_tensors(tmp_path / "a.pt")


def test_no_object_of_another_kind_is_loaded(tmp_path):
    torch.save({"path": Path("x")}, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=r"a\.pt holds something other than tensors and plain values; nothing in it was"
    ):
        read_tensors(tmp_path / "a.pt")


def test_a_bare_pickle_is_not_opened(tmp_path):
    write_bytes(tmp_path / "a.pt", pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"a\.pt is damaged or was cut short"):
        read_tensors(tmp_path / "a.pt")


def test_a_bare_tensor_is_one_sentence(tmp_path):
    torch.save(torch.ones(2), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds a Tensor, not named values"):
        read_tensors(tmp_path / "a.pt")


def test_a_missing_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no file .*a\.pt; check the path$"):
        read_tensors(tmp_path / "a.pt")


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file size are POSIX")
    import signal

    write_tensors(tmp_path / "a.pt", {"unit": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        with pytest.raises(OSError, match=r"^cannot write .*a\.pt: File too large; free some space there or choose"):
            write_tensors(tmp_path / "a.pt", {"weights": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert read_tensors(tmp_path / "a.pt") == {"unit": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
