"""Attention whose heads, and their widths, are free of the embedding size."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, pad, scaled_dot_product_attention
from torch.nn.utils.parametrize import is_parametrized

Splits = tuple[Tensor, Tensor, Tensor]


class Attention(nn.Module):
    """``nn.MultiheadAttention``, with any number of heads and any width of queries, keys and values.

    ``softmax(scale Q K' + mask) V`` for each head, side by side, and a linear map of the result. It has the parameters
    of ``nn.MultiheadAttention`` under the same names, and takes and gives the same, with these shapes: E is the size of
    the embedding, H the number of heads, q the width of a query and a key, v the width of a value.

    - ``in_proj_weight`` is ``(H (2 q + v), E)``, queries first, then keys, then values; or ``q_proj_weight`` and
      ``k_proj_weight`` are ``(H q, E)`` and ``(H q, kdim)``, and ``v_proj_weight`` is ``(H v, vdim)``,
    - ``in_proj_bias`` is ``(H (2 q + v),)``; ``bias_k`` is ``(1, 1, H q)``, and ``bias_v`` is ``(1, 1, H v)``,
    - ``out_proj.weight`` is ``(E, H v)``.

    The widths are read off these shapes at each call, so whoever cuts a head changes the parameters and ``num_heads``,
    and whoever cuts an entry of queries and keys, or of values, changes the parameters alone.

    Args:
        num_heads: H, > 0.
        scale: What products of queries and keys are multiplied by; it does not follow their width, so that cutting
            entries that are zero changes nothing.
        dropout: Fraction of attention weights that is dropped in training, in [0, 1].
        add_zero_attn: Whether one more key and value, both zero, are attended to.
        batch_first: Whether inputs are ``(batch, tokens, features)`` and not ``(tokens, batch, features)``.
    """

    # What nn.TransformerEncoderLayer asks before it takes a kernel that knows equal widths only.
    _qkv_same_embed_dim = False

    in_proj_weight: nn.Parameter | None
    q_proj_weight: nn.Parameter | None
    k_proj_weight: nn.Parameter | None
    v_proj_weight: nn.Parameter | None
    in_proj_bias: nn.Parameter | None
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None
    out_proj: nn.Linear

    def __init__(
        self,
        num_heads: int,
        scale: float,
        *,
        dropout: float = 0.0,
        add_zero_attn: bool = False,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.dropout = dropout
        self.add_zero_attn = add_zero_attn
        self.batch_first = batch_first

    @classmethod
    def like(cls, mha: nn.MultiheadAttention) -> "Attention":
        """The same attention with the same parameters, which are shared and not copied.

        Args:
            mha: What to replace; it is not changed.

        Returns:
            The replacement, in the same mode (training or evaluation).

        Raises:
            TypeError: If ``mha`` is something else, or has a forward of its own.
            ValueError: If a parameter is parametrized.
        """
        if not isinstance(mha, nn.MultiheadAttention) or type(mha).forward is not nn.MultiheadAttention.forward:
            raise TypeError(
                f"Attention.like: mha must compute what nn.MultiheadAttention computes, got {type(mha).__name__}; "
                "leave this module as it is"
            )
        if is_parametrized(mha) or is_parametrized(mha.out_proj):
            raise ValueError(
                "Attention.like: a parameter of the nn.MultiheadAttention is parametrized, and would no longer be "
                "computed; remove the parametrization first"
            )
        attention = cls(
            mha.num_heads,
            (mha.embed_dim // mha.num_heads) ** -0.5,
            dropout=mha.dropout,
            add_zero_attn=mha.add_zero_attn,
            batch_first=mha.batch_first,
        )
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
            attention.register_parameter(name, getattr(mha, name))
        for name in ("bias_k", "bias_v"):
            attention.register_parameter(name, cast("nn.Parameter | None", getattr(mha, name)))
        features, inner = mha.out_proj.weight.shape
        attention.out_proj = nn.Linear(inner, features, bias=mha.out_proj.bias is not None, device="meta")
        attention.out_proj.weight, attention.out_proj.bias = mha.out_proj.weight, mha.out_proj.bias
        return attention.train(mha.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of ``nn.MultiheadAttention``.

        Args:
            query: Shape ``(L, N, E)``, or ``(N, L, E)`` if ``batch_first``, or ``(L, E)``.
            key: Shape ``(S, N, kdim)``, likewise.
            value: Shape ``(S, N, vdim)``, likewise.
            key_padding_mask: Keys that nobody attends to, shape ``(N, S)`` or ``(S,)``: True there, or a float that is
                added to the scores.
            need_weights: Whether the attention weights are returned.
            attn_mask: Keys that a query does not attend to, shape ``(L, S)`` or ``(N H, L, S)``, bool or float.
            average_attn_weights: Whether the weights are averaged over heads.
            is_causal: Says that ``attn_mask`` is the causal mask.

        Returns:
            The result, shaped like ``query``, and the weights, shape ``(N, L, S)`` or ``(N, H, L, S)`` (without N if
            there is none in ``query``); None if they are not needed.

        Raises:
            ValueError: If ``is_causal`` comes without ``attn_mask``, or a mask has another shape.
        """
        if is_causal and attn_mask is None:
            raise ValueError(
                "Attention: is_causal says what attn_mask is, and there is none; pass the causal attn_mask"
            )
        if query.is_nested:
            return self._nested(query, key, value), None
        same = query is key and key is value
        batched = query.dim() == 3
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._project_all(query) if same else self._project_each(query, key, value)
        # A causal mask that nothing else is added to is left to the kernel.
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else _additive(attn_mask, q.dtype)
        mask = self._per_head(mask, len(q), q.shape[1], k.shape[1])
        padding = self._padding(key_padding_mask, q.dtype, len(k), k.shape[1])
        k, v, added = self._with_more_keys(k, v)
        if added:
            mask, padding = (None if m is None else pad(m, (0, added)) for m in (mask, padding))
        if padding is not None:
            mask = padding if mask is None else mask + padding
        q, k, v = self._split(q), self._split(k), self._split(v)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = dropout(weights, p) if p > 0 else weights
            heads = weights @ v
            weights = weights.mean(dim=1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            heads = scaled_dot_product_attention(q, k, v, mask, p, causal, scale=self.scale)
        result = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return result.squeeze(0), weights
        return result if self.batch_first else result.transpose(0, 1), weights

    def extra_repr(self) -> str:
        """Heads and the widths of their queries and values."""
        query, _, value = self._rows()
        return f"num_heads={self.num_heads}, query={query // self.num_heads}, value={value // self.num_heads}"

    def _rows(self) -> tuple[int, int, int]:
        """Rows that make queries, keys and values."""
        values = self.out_proj.weight.shape[1]
        if self.in_proj_weight is None:
            queries = cast("Tensor", self.q_proj_weight).shape[0]
        else:
            queries = (self.in_proj_weight.shape[0] - values) // 2
        return queries, queries, values

    def _project_all(self, x: Tensor) -> Splits:
        """Queries, keys and values of one tensor ``(N, L, E)``."""
        if self.in_proj_weight is None:
            return self._project_each(x, x, x)
        return cast("Splits", linear(x, self.in_proj_weight, self.in_proj_bias).split(self._rows(), dim=-1))

    def _project_each(self, query: Tensor, key: Tensor, value: Tensor) -> Splits:
        rows = self._rows()
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.split(rows)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.split(rows)
        inputs = (query, key, value)
        projected = [linear(x, cast("Tensor", w), b) for x, w, b in zip(inputs, weights, biases, strict=True)]
        return projected[0], projected[1], projected[2]

    def _with_more_keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values ``(N, S, ...)`` with what the module itself adds, and how many that are."""
        added = 0
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                torch.cat([x, bias.expand(len(x), -1, -1)], dim=1) for x, bias in ((k, self.bias_k), (v, self.bias_v))
            )
            added += 1
        if self.add_zero_attn:
            k, v = (pad(x, (0, 0, 0, 1)) for x in (k, v))
            added += 1
        return k, v, added

    # One operation a line below: wiring takes a number that is written beside a view for a length of that view.
    def _split(self, x: Tensor) -> Tensor:
        """Heads ``(N, H, L, width)`` of ``(N, L, H width)``."""
        x = x.unflatten(-1, (self.num_heads, -1))
        return x.transpose(1, 2)

    def _per_head(self, mask: Tensor | None, batch: int, queries: int, keys: int) -> Tensor | None:
        """A mask that broadcasts with scores ``(N, H, L, S)``.

        Raises:
            ValueError: If it has another shape than documented.
        """
        if mask is None:
            return None
        both = (queries, keys), (batch * self.num_heads, queries, keys)
        if mask.shape not in both:
            raise ValueError(
                f"Attention: attn_mask must have shape {both[0]} or {both[1]}, got {tuple(mask.shape)}; "
                f"there are {self.num_heads} heads"
            )
        return mask if mask.dim() < 3 else mask.unflatten(0, (batch, self.num_heads))

    def _padding(self, mask: Tensor | None, dtype: torch.dtype, batch: int, keys: int) -> Tensor | None:
        """Padding of keys, shape ``(N, 1, 1, S)``.

        Raises:
            ValueError: If it has another shape than documented.
        """
        if mask is None:
            return None
        if mask.shape != (batch, keys):
            raise ValueError(
                f"Attention: key_padding_mask must have shape {(batch, keys)}, got {tuple(mask.shape)}; "
                "pass one entry for each key"
            )
        padding = _additive(mask, dtype)
        return None if padding is None else padding[:, None, None]

    def _nested(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Nested tensors, which nn.TransformerEncoder makes of padded ones in evaluation mode.

        Raises:
            ValueError: If queries, keys and values are not the same.
        """
        if query is not key or key is not value:
            raise ValueError(
                "Attention: nested tensors must be query, key and value at once; pad them to plain tensors"
            )
        lengths = torch.tensor([len(row) for row in query.unbind()], device=query.device)
        x = torch.nested.to_padded_tensor(query, 0.0)
        padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        x = x if self.batch_first else x.transpose(0, 1)
        result, _ = self(x, x, x, key_padding_mask=padding, need_weights=False)
        rows = result if self.batch_first else result.transpose(0, 1)
        return torch.nested.as_nested_tensor([row[:n] for row, n in zip(rows, lengths.tolist(), strict=True)])


def _additive(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A mask to be added to scores: of a bool one, -inf where it is True."""
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, float("-inf"))


__all__ = ["Attention"]
