import gzip

import pytest
import torch

from openwork.data import shakespeare, text, wikitext2


def test_characters_become_tokens_and_back(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress("hübsch, aber hübsch".encode()))
    corpus = text(tmp_path / "a.gz", valid=0.25, test=0.25)
    tokens = torch.cat([corpus.train, corpus.valid, corpus.test]).tolist()
    assert "".join(corpus.vocabulary[i] for i in tokens) == "hübsch, aber hübsch"
    assert list(corpus.vocabulary) == sorted(set("hübsch, aber hübsch"))
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (9, 5, 5)


def test_windows_predict_the_next_token_and_do_not_overlap(tmp_path):
    (tmp_path / "a").write_text("abcdefghijklmnopqrst")
    data = text(tmp_path / "a", valid=0.2, test=0.2).windows(3)
    assert data.train.inputs.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert data.train.targets.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert data.test.inputs.tolist() == [[16, 17, 18]]
    assert data.classes == 20


def test_an_empty_part_gives_no_windows(tmp_path):
    (tmp_path / "a").write_text("abcdefghij")
    data = text(tmp_path / "a", valid=0.0, test=0.0).windows(3)
    assert (data.train.inputs.shape, data.valid.inputs.shape, len(data.test)) == ((3, 3), (0, 3), 0)


@pytest.mark.parametrize("length", [0, 4])
def test_windows_that_do_not_fit_are_one_sentence(tmp_path, length):
    (tmp_path / "a").write_text("abcdefghijklmnopqrst")
    with pytest.raises(
        ValueError, match=rf"^a: length must be in 1 to 3, since the shortest part has 4 .*got {length}$"
    ):
        text(tmp_path / "a", valid=0.2, test=0.2).windows(length)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a is empty; choose a text to learn from$"),
        (b"ab\xff", r"a is not UTF-8 text: byte 2 is 0xff; save it as UTF-8$"),
        (gzip.compress(b"text" * 99, mtime=0)[:-9], r"a is damaged or was cut short"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text(tmp_path / "a")


def test_fractions_of_everything_are_one_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"^text: valid and test must be fractions with a sum below 1, got 0.5 and 0.5$"
    ):
        text(tmp_path / "a", valid=0.5, test=0.5)


def test_words_get_an_end_of_line(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    (folder / "train.txt").write_text(" a b \n\n c <unk> \n")
    (folder / "valid.txt").write_text("b a\n")
    (folder / "test.txt").write_text("c\n")
    corpus = wikitext2(tmp_path)
    assert corpus.vocabulary == ("a", "b", "<eos>", "c", "<unk>")
    assert corpus.train.tolist() == [0, 1, 2, 2, 3, 4, 2]
    assert (corpus.valid.tolist(), corpus.test.tolist()) == ([1, 0, 2], [3, 2])


def test_a_word_that_training_lacks_is_one_sentence(tmp_path):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    for file, content in {"train.txt": "a\n", "valid.txt": "b\n", "test.txt": "a\n"}.items():
        (folder / file).write_text(content)
    with pytest.raises(
        ValueError, match=r"valid\.txt has the word 'b', which the training text lacks; fetch both anew$"
    ):
        wikitext2(tmp_path)


def test_the_real_shakespeare_has_65_characters(real_data):
    corpus = shakespeare(real_data)
    assert len(corpus.vocabulary) == 65
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (1_003_854, 55_770, 55_770)
    assert "".join(corpus.vocabulary[i] for i in corpus.train[:14].tolist()) == "First Citizen:"


def test_the_real_wikitext_has_its_official_sizes(real_data):
    corpus = wikitext2(real_data)
    assert len(corpus.vocabulary) == 33_278
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (2_088_628, 217_646, 245_569)
