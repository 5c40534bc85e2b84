import numpy as np
import pytest
import torch

from openwork.data import california_housing, letter_recognition


@pytest.fixture
def put(tmp_path):
    def write(name: str, file: str, content: str):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
        return tmp_path

    return write


def houses(count: int) -> str:
    rows = np.random.default_rng(0).uniform(1, 10, (count, 9))
    return "\n".join(",".join(f"{x:.6f}" for x in row) for row in rows)


def test_houses_are_standardized_by_the_training_samples(put):
    data = california_housing(put("california-housing", "cal_housing.data", houses(50)), valid=0.25)
    assert (len(data.train), len(data.valid), len(data.test)) == (30, 10, 10)
    torch.testing.assert_close(data.train.inputs.mean(0), torch.zeros(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.inputs.std(0), torch.ones(8))
    assert data.train.targets.shape == (30, 1)
    assert data.classes == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"cal_housing\.data has 0 columns, expected 9; fetch it anew$"),
        ("1,2,3\n4,5,6\n", r"cal_housing\.data has 3 columns, expected 9; fetch it anew$"),
        ("1,2,3\n4,5\n", r"cal_housing\.data is no table of 9 columns \(.*\); fetch it anew$"),
        ("<html></html>", r"cal_housing\.data is no table of 9 columns \(.*\); fetch it anew$"),
    ],
)
def test_another_table_is_one_sentence(put, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        california_housing(put("california-housing", "cal_housing.data", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "A,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,0\n",
            r"\.data has 1 rows, expected 20000 that begin with A to Z; fetch",
        ),
        ("", r"\.data has 0 columns, expected 17; fetch it anew$"),
        (
            "a,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,0\n" * 20_000,
            r"\.data has 20000 rows, expected 20000 that begin with A",
        ),
    ],
)
def test_other_letters_are_one_sentence(put, content, message):
    with pytest.raises(ValueError, match=message):
        letter_recognition(put("letter-recognition", "letter-recognition.data", content))


def test_the_real_letters_have_the_usual_split(real_data):
    data = letter_recognition(real_data, valid=0)
    assert (len(data.train), len(data.test)) == (16_000, 4000)
    counts = torch.cat([data.train.targets, data.test.targets]).bincount()
    assert (len(counts), int(counts.min()), int(counts.max())) == (26, 734, 813)
    assert data.train.targets[:2].tolist() == [ord("T") - ord("A"), ord("I") - ord("A")]


def test_least_squares_on_the_real_houses_explains_what_it_should(real_data):
    data = california_housing(real_data)
    inputs = torch.cat([data.train.inputs, data.valid.inputs, data.test.inputs]).double()
    targets = torch.cat([data.train.targets, data.valid.targets, data.test.targets]).double()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    residual = targets - inputs @ torch.linalg.lstsq(inputs, targets).solution
    assert 1 - (residual.var() / targets.var()).item() == pytest.approx(0.637, abs=5e-4)
    assert len(targets) == 20_640
    assert [targets.min().item(), targets.max().item()] == pytest.approx([0.14999, 5.00001])
