"""A small transformer in the manner of GPT-2."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from typing_extensions import override

from openwork.models.arguments import at_least_one
from openwork.models.seeding import seeded


class Attention(nn.Module):
    """Causal self-attention, with query, key and value as layers of their own so that heads are plain row blocks.

    Args:
        width: Of the tokens, a multiple of ``heads``.
        heads: Each on ``width / heads`` consecutive rows of the three projections.
        dropout: Probability of dropping an attention weight in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """From tokens ``(N, T, width)`` to tokens of the same shape."""
        query, key, value = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two linear layers with GELU between them; each normalized before and added to its input.

    Args:
        width: Of the tokens.
        heads: Of the attention.
        dropout: Probability of dropping an attention weight or an entry of what is added, in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """From tokens ``(N, T, width)`` to tokens of the same shape."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(nn.Module):
    """Token and position embeddings, blocks, a last normalization, and the logits of the next token.

    Build one with ``gpt``, which checks the sizes and seeds the weights.

    Args:
        vocabulary: Different tokens.
        context: Longest sequence.
        width: Of the tokens.
        depth: Number of blocks.
        heads: Of each attention.
        dropout: Probability of dropping, in training.
        tied: The token embedding is the weight of the last layer too.
    """

    def __init__(
        self, vocabulary: int, context: int, width: int, depth: int, heads: int, dropout: float, tied: bool
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim == 2:
                # What is added to the stream is scaled down by the number of additions, two a block.
                added = name.endswith(("attention.out.weight", "mlp.2.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if added else 0.02)
        if tied:
            self.head.weight = self.tokens.weight

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        """From int64 tokens ``(N, T)`` to logits ``(N, T, vocabulary)``.

        Raises:
            ValueError: If T is more than ``context``.
        """
        if tokens.shape[1] > self.positions.num_embeddings:
            raise ValueError(
                f"GPT: sequences of {tokens.shape[1]} tokens do not fit a context of {self.positions.num_embeddings}; "
                "cut them, or build the model with a longer context"
            )
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(places))
        return self.head(self.norm(self.blocks(x)))


def gpt(
    vocabulary: int = 65,
    context: int = 128,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    *,
    dropout: float = 0.0,
    tied: bool = True,
    seed: int = 0,
) -> GPT:
    """A GPT-2 of any size; the default, for the 65 characters of Shakespeare, has 818 048 parameters.

    Args:
        vocabulary: Different tokens.
        context: Longest sequence.
        width: Of the tokens, a multiple of ``heads``.
        depth: Number of blocks.
        heads: Of each attention.
        dropout: Probability of dropping in training, in [0, 1).
        tied: The token embedding is the weight of the last layer too.
        seed: Of the initial weights.

    Returns:
        A module from int64 tokens ``(N, T)`` to logits of the next token ``(N, T, vocabulary)``.

    Raises:
        ValueError: If a size is less than 1, ``width`` is not a multiple of ``heads``, or ``dropout`` is not in [0, 1).

    References:
        Radford et al., Language models are unsupervised multitask learners (2019), section 2.3.
    """
    at_least_one("gpt", vocabulary=vocabulary, context=context, width=width, depth=depth, heads=heads)
    if width % heads:
        raise ValueError(f"gpt: width must be a multiple of heads, got width {width} and {heads} heads")
    if not 0 <= dropout < 1:
        raise ValueError(f"gpt: dropout must be in [0, 1), got {dropout}")
    with seeded(seed):
        return GPT(vocabulary, context, width, depth, heads, dropout, tied)
