import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from openwork.models import GPT, gpt


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_has_the_size_worked_out_by_hand():
    width, depth, vocabulary, context = 128, 4, 65, 128
    block = 12 * width**2 + 13 * width  # 4 w^2 + 4 w of attention, 8 w^2 + 5 w of the layers, 4 w of the normalizations
    tied = (vocabulary + context) * width + depth * block + 2 * width
    assert count(gpt()) == tied == 818_048
    assert count(gpt(tied=False)) == tied + vocabulary * width


def test_gpt2_small_has_the_published_size():
    with torch.device("meta"):
        model = GPT(50_257, 1024, 768, 12, 12, dropout=0.0, tied=True)
    assert count(model) == 124_439_808


def test_a_token_sees_none_that_come_later():
    model = gpt(vocabulary=11, context=8, width=16, depth=2, heads=2).double()
    tokens = torch.arange(8).reshape(1, 8)
    changed = tokens.clone()
    changed[0, 5] = 10
    same = (model(tokens) == model(changed)).all(dim=-1).squeeze(0)
    assert same.tolist() == [True] * 5 + [False] * 3


def test_attention_is_the_textbook_one():
    attention = gpt(vocabulary=11, context=6, width=12, depth=1, heads=3).double().get_submodule("blocks.0.attention")
    x = torch.randn(2, 6, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query, key, value, out = (attention.get_submodule(name) for name in ("query", "key", "value", "out"))
    query, key, value = query(x), key(x), value(x)
    mixed = torch.empty_like(x)
    for head in (slice(0, 4), slice(4, 8), slice(8, 12)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(4)
        scores = scores.masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
        mixed[..., head] = scores.softmax(-1) @ value[..., head]
    torch.testing.assert_close(attention(x), out(mixed))


def test_starts_near_the_uniform_guess():
    tokens = torch.randint(65, (4, 33), generator=torch.Generator().manual_seed(0))
    loss = cross_entropy(gpt()(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_dropout_acts_in_training_only():
    model = gpt(dropout=0.5)
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"^gpt: depth must be at least 1, got 0$"),
        ({"width": 130}, r"^gpt: width must be a multiple of heads, got width 130 and 4 heads$"),
        ({"dropout": 1.0}, r"^gpt: dropout must be in \[0, 1\), got 1.0$"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        gpt(**arguments)


def test_a_sequence_longer_than_the_context_is_one_sentence():
    with pytest.raises(ValueError, match=r"^GPT: sequences of 9 tokens do not fit a context of 8; cut them, or build"):
        gpt(vocabulary=11, context=8, width=16, depth=1, heads=2)(torch.zeros(1, 9, dtype=torch.int64))
