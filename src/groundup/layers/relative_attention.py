"""Attention whose scores meet the distance of query and key inside the product, not beside it.

    ShawAttention            q_i (k_j + a^K_(j-i))^T, and a^V_(j-i) beside the values     Shaw et al. 2018
    TransformerXLAttention   (q_i + u) k_j^T + (q_i + v) (W_R R_(i-j))^T                  Dai et al. 2019

Distances are those of the tokens' places in their rows, see `position_bias`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.attention import Attention, AttentionCore
from groundup.layers.context import Context
from groundup.layers.masks import Mask, key_slots, query_slots
from groundup.layers.positions import sinusoid


class ShawCore(AttentionCore):
    """A core that adds vectors of the distances to the values: z_i = sum_j w_ij (v_j + a^V_ij)."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, *, table: Tensor | None = None, index: Tensor | None = None
    ) -> Tensor:
        """As AttentionCore; table (N, d), index (B or 1, T, S) int64: which row of it stands for a^V_ij. Keys before
        those of the index are at no distance: their values stay as they are.
        """
        if table is None or index is None:
            return super().forward(q, k, v, mask)
        weights = F.dropout(self.weights(q, k, mask), self.dropout, self.training)  # (B, H, T, S)
        values = weights @ v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        # The weights of equal distances first make one sum, so that no (T, S, d) tensor is built.
        shares = weights.new_zeros(*weights.shape[:-1], len(table))
        weights = weights[..., weights.shape[-1] - index.shape[-1] :]
        shares = shares.scatter_add(-1, index[:, None].expand_as(weights), weights)  # (B, H, T, N)
        return values + shares @ table


class ShawAttention(Attention):
    """Vectors for the distances -k .. k, shared by the heads, are added to the keys and to the values (Shaw et al.
    2018). Farther tokens count as k away.

        e_ij = q_i (k_j + a^K_n)^T / sqrt(d),     z_i = sum_j softmax(e)_ij (v_j + a^V_n),     n = clip(j - i, -k, k)

    Args:
        dim, num_heads: see Attention, as all its keywords.
        max_distance: k.
        relative_values: whether values get vectors too.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *args: int | None,
        max_distance: int = 16,
        relative_values: bool = True,
        **keywords,
    ):
        super().__init__(dim, num_heads, *args, **keywords)
        self.max_distance = max_distance
        self.core = ShawCore(self.core.dropout, self.core.scale)
        self.relative_keys = nn.Embedding(2 * max_distance + 1, self.head_dim)
        self.relative_values = nn.Embedding(2 * max_distance + 1, self.head_dim) if relative_values else None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        ahead = key_slots(context)[:, None] - query_slots(context)[:, :, None]  # j - i, (B or 1, T, S)
        index = ahead.clamp(-self.max_distance, self.max_distance) + self.max_distance
        scale = q.shape[-1] ** -0.5 if self.core.scale is None else self.core.scale
        by_row = q @ self.relative_keys.weight.T * scale  # (B, H, T, 2k + 1)
        bias = by_row.gather(-1, index[:, None].expand(*q.shape[:3], -1))
        table = None if self.relative_values is None else self.relative_values.weight
        return self.core(q, k, v, context.mask(self.mask).biased(bias), table=table, index=index)


class TransformerXLAttention(Attention):
    """Transformer-XL (Dai et al. 2019): the four terms of absolute positions (`positions.score_terms`) with p_j made
    relative, and the query's own place replaced by learned vectors, since every query is at distance 0 of itself.

        score_ij = [ (q_i + u) k_j^T + (q_i + v) r_(i-j)^T ] / sqrt(d),      r_n = W_R sinusoid(n)

    It needs no positions in the embeddings. With a `state.SegmentMemory` as its part of the state, keys and values are
    made of the hidden vectors of earlier segments too, without gradient into them; with a KVCache it remembers all.

    Args:
        dim, num_heads: see Attention, as all its keywords.
    """

    def __init__(self, dim: int, num_heads: int, *args: int | None, **keywords):
        super().__init__(dim, num_heads, *args, **keywords)
        self.r_proj = nn.Linear(dim, num_heads * self.head_dim, bias=False)
        self.u = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        self.v = nn.Parameter(torch.zeros(num_heads, self.head_dim))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        memory = None if context.state is None else context.state.layers[self.path]
        if not hasattr(memory, "extend"):  # a KVCache, or nothing
            return super().forward(x, context)
        heads = lambda t: t.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # noqa: E731
        seen = memory.extend(x, context.placement)  # type: ignore[union-attr]  (B, M + T, D)
        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(seen)), heads(self.v_proj(seen))
        distance = torch.arange(x.shape[1], device=x.device)[:, None] - torch.arange(seen.shape[1], device=x.device)
        distance = (distance + memory_length(x, seen))[None]  # i - j, (1, T, M + T)
        y = self._attend(q, k, v, distance, Mask(allowed=(distance >= 0)[:, None]))
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        distance = query_slots(context)[:, :, None] - key_slots(context)[:, None]  # i - j, (B or 1, T, S)
        return self._attend(q, k, v, distance, context.mask(self.mask))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, distance: Tensor, mask: Mask) -> Tensor:
        last = k.shape[2] - 1
        waves = sinusoid(torch.arange(-last, last + 1, device=q.device), self.r_proj.in_features, interleaved=False)
        r = self.r_proj(waves.to(q.dtype)).unflatten(-1, (-1, self.head_dim)).transpose(0, 1)  # (H, 2 S - 1, d)
        scale = q.shape[-1] ** -0.5 if self.core.scale is None else self.core.scale
        by_distance = (q + self.v[:, None]) @ r.mT * scale  # (B, H, T, 2 S - 1)
        bias = by_distance.gather(-1, (distance + last)[:, None].expand(*q.shape[:3], -1))
        return self.core(q + self.u[:, None], k, v, mask.biased(bias))


def memory_length(x: Tensor, seen: Tensor) -> int:
    """How many of the vectors seen came before this segment."""
    return seen.shape[1] - x.shape[1]


def relative_shift(scores: Tensor) -> Tensor:
    """The paper's way from scores by distance to scores by key, without an index (Dai et al. 2019, appendix B).

    Row t of T queries that are the last of S keys, column c for distance S - 1 - c -> column j for key j. Entries of
    keys after the query are meaningless: mask them. (..., T, S) -> (..., T, S)
    """
    *front, queries, keys = scores.shape
    padded = F.pad(scores, (1, 0))  # (..., T, S + 1): one column more shifts each row by one more when it is cut anew
    return padded.flatten(-2).unflatten(-1, (keys + 1, queries))[..., 1:, :].reshape(*front, queries, keys)
