import bz2
import gzip

import pytest
import torch

from openwork.data import svmlight

TEN = "".join(f"{'+1' if i % 2 else '-1'} 1:{i} 3:0.5\n" for i in range(10)).encode()


@pytest.fixture
def put(tmp_path):
    def write(name: str, content: bytes):
        (tmp_path / "libsvm").mkdir(exist_ok=True)
        (tmp_path / "libsvm" / name).write_bytes(content)
        return tmp_path

    return write


@pytest.mark.parametrize(("name", "pack"), [("mine", bytes), ("mine.gz", gzip.compress), ("mine.bz2", bz2.compress)])
def test_reads_packed_and_bare_files_alike(put, name, pack):
    data = svmlight("mine", put(name, pack(TEN)), valid=2)
    assert (len(data.train), len(data.valid), len(data.test)) == (6, 2, 2)
    rows = torch.cat([data.train.inputs, data.valid.inputs, data.test.inputs])
    labels = torch.cat([data.train.targets, data.valid.targets, data.test.targets])
    assert sorted(rows[:, 0].tolist()) == list(range(10))
    assert torch.equal(rows[:, 0].long() % 2, labels)
    assert rows[0, 1:].tolist() == [0.0, 0.5]
    assert data.note == "no official split: the test samples are a fixed random 20%"


def test_labels_become_0_and_1_in_rising_order(put):
    data = svmlight("mine", put("mine", b"2 1:1\n1 1:2\n2 1:1\n1 1:2\n1 1:2\n2 1:1\n"), valid=0)
    assert data.classes == 2
    assert torch.equal(data.train.inputs[:, 0] == 1, data.train.targets == 1)


def test_a_test_file_is_the_test_set_with_the_features_of_training(put):
    put("mine.t", b"+1 2:7\n")
    data = svmlight("mine", put("mine", TEN), valid=0)
    assert len(data.train) == 10
    assert data.test.inputs.tolist() == [[0.0, 7.0, 0.0]]
    assert data.test.targets.tolist() == [1]
    assert data.note == ""


def test_features_may_be_given(put):
    assert svmlight("mine", put("mine", TEN), features=5).train.inputs.shape == (7, 5)


def test_sparse_inputs_hold_the_same_numbers(put):
    folder = put("mine", TEN)
    dense, sparse = svmlight("mine", folder), svmlight("mine", folder, dense=False)
    assert sparse.train.inputs.is_sparse
    assert torch.equal(sparse.train.inputs.to_dense(), dense.train.inputs)
    assert torch.equal(sparse.test.inputs.to_dense(), dense.test.inputs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello world\n", r"mine is no svmlight file of any number of features \(.*\); check its name"),
        (b"1 0:1\n", r"mine is no svmlight file of any number of features \(.*0.*\); check its name"),
    ],
)
def test_another_file_is_one_sentence(put, content, message):
    with pytest.raises(ValueError, match=message):
        svmlight("mine", put("mine", content))


def test_more_features_than_said_are_one_sentence(put):
    with pytest.raises(ValueError, match=r"mine is no svmlight file of 2 features \(.*\); check its name, or give"):
        svmlight("mine", put("mine", TEN), features=2)


def test_a_strange_label_in_the_test_file_is_one_sentence(put):
    put("mine.t", b"3 2:7\n")
    with pytest.raises(ValueError, match=r"mine\.t has labels that the training file lacks; put both files of mine"):
        svmlight("mine", put("mine", TEN))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^libsvm: .*libsvm has no file a9a \(nor a9a\.gz or \.bz2\); put it"):
        svmlight("a9a", tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "nonzeros", "counts"),
    [
        ("a1a", (1605, 123), 22_249, [1210, 395]),
        ("a5a", (6414, 123), 88_939, [4845, 1569]),
        ("a9a", (32_561 + 16_281, 123), 451_592 + 225_731, [24_720 + 12_435, 7841 + 3846]),
        ("w1a", (2477, 300), 28_410, [2405, 72]),
        ("w8a", (49_749, 300), 579_586, [48_270, 1479]),
        ("mushrooms", (8124, 112), 170_604, [3916, 4208]),
        ("phishing", (11_055, 68), 331_650, [4898, 6157]),
    ],
)
def test_the_real_files_are_what_their_origin_says(real_data, name, shape, nonzeros, counts):
    data = svmlight(name, real_data)
    inputs = torch.cat([data.train.inputs, data.valid.inputs, data.test.inputs])
    labels = torch.cat([data.train.targets, data.valid.targets, data.test.targets])
    assert inputs.shape == shape
    assert int(inputs.count_nonzero()) == nonzeros
    assert labels.bincount().tolist() == counts


def test_the_real_a9a_has_its_official_test_set(real_data):
    data = svmlight("a9a", real_data, valid=0)
    assert (len(data.train), len(data.test)) == (32_561, 16_281)


def test_the_real_news20_has_twenty_classes(real_data):
    data = svmlight("news20", real_data, valid=0, dense=False)
    counts = torch.cat([data.train.targets, data.test.targets]).bincount()
    assert (len(counts), int(counts.min()), int(counts.max()), int(counts.sum())) == (20, 780, 800, 15_935)
    assert data.train.inputs.shape[1] == 62_061
