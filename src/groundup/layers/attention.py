"""Multi-head attention with grouped keys and values.

    MHA  K = H   every query head has its own key-value head   (Vaswani et al. 2017)
    GQA  K < H   H / K query heads share one                   (Ainslie et al. 2023)
    MQA  K = 1   all share one                                 (Shazeer 2019)

`layers/attention_steps.py` climbs to this file from the simplest form.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.masks import Causal, Mask, MaskRule
from groundup.layers.position_bias import PositionBias
from groundup.layers.rope import Rope


class AttentionCore(nn.Module):
    """softmax(q k^T / sqrt(d) + mask) v: what `observe` reads and faster kernels replace.

    Args:
        dropout: probability that an attention weight is dropped in training.
        scale: factor of the scores; 1 / sqrt(d) when None.
    """

    def __init__(self, dropout: float = 0.0, scale: float | None = None):
        super().__init__()
        self.dropout, self.scale = dropout, scale

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """Q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d)"""
        dropout = self.dropout if self.training else 0.0
        grouped = q.shape[1] != k.shape[1]
        given = mask.allowed if mask.bias is None else mask.bias.to(q.dtype)
        causal = mask.causal and given is None
        return F.scaled_dot_product_attention(
            q, k, v, given, dropout, is_causal=causal, scale=self.scale, enable_gqa=grouped
        )

    def weights(self, q: Tensor, k: Tensor, mask: Mask) -> Tensor:
        """The attention weights themselves, (B, H, T, S), computed step by step; rows sum to 1."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scale = 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale
        scores = q @ k.mT * scale
        if mask.bias is not None:
            return (scores + mask.bias.to(scores.dtype)).softmax(dim=-1)
        allowed = mask.dense(q.shape[2], k.shape[2], q.device)
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)


class Attention(nn.Module):
    """Project to queries, keys and values, attend, project back. (B, T, D) -> (B, T, D)

    The numbers of heads are read off the projections' outputs, so the module is unchanged under tensor parallelism.

    Args:
        dim: D.
        num_heads: H.
        num_kv_heads: K; H when None.
        head_dim: d; D / H when None.
        bias: biases on the query, key and value projections.
        out_bias: bias on the output projection; as `bias` when None.
        rope: rotary positions, or None.
        mask: who sees whom.
        position_bias: what the distance of query and key adds to their score, or None.
        q_norm, k_norm: applied to each head's queries and keys, or None.
        dropout: of the attention weights.
        scale: of the scores; 1 / sqrt(d) when None.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""
    memory: Literal["keys", "sums", "source", "borrowed", "none"] = "keys"
    """What it remembers: keys and values; tensors of fixed size; what the source gave; nothing, as another layer
    remembers for it; nothing, as it has no state.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        *,
        bias: bool = False,
        out_bias: bool | None = None,
        rope: Rope | None = None,
        mask: MaskRule = Causal(),
        position_bias: PositionBias | None = None,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        dropout: float = 0.0,
        scale: float | None = None,
    ):
        super().__init__()
        kv_heads, d = num_kv_heads or num_heads, head_dim or dim // num_heads
        self.head_dim, self.rope, self.mask = d, rope, mask
        self.q_proj = nn.Linear(dim, num_heads * d, bias)
        self.k_proj = nn.Linear(dim, kv_heads * d, bias)
        self.v_proj = nn.Linear(dim, kv_heads * d, bias)
        self.o_proj = nn.Linear(num_heads * d, dim, bias if out_bias is None else out_bias)
        self.q_norm, self.k_norm = q_norm, k_norm
        self.position_bias = position_bias
        self.core = AttentionCore(dropout, scale)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.o_proj(self.mixed(x, context))

    def mixed(self, x: Tensor, context: Context) -> Tensor:
        """What the heads bring, side by side, before the output projection: (B, T, D) -> (B, T, H d)"""
        q, k, v = self.heads(x, context)
        if context.state is not None:
            memory = context.state.layers[self.path]
            k, v = memory.update(k, v, context.placement)  # (B, K, S, d)
            context = context.through(memory)
        return self.attend(q, k, v, context).transpose(1, 2).flatten(2)

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """This call's queries (B, H, T, d), and keys and values (B, K, T, d), normalised and turned."""
        q, k, v = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        return self.turned(q, self.q_norm, context), self.turned(k, self.k_norm, context), v.transpose(1, 2)

    def turned(self, x: Tensor, norm: nn.Module | None, context: Context) -> Tensor:
        """Queries or keys (B, T, H, d), normalised and turned -> (B, H, T, d)"""
        if norm is not None:
            x = norm(x)
        if self.rope is not None:
            x = self.rope.rotate(x, context.rotation(self.rope, x.dtype))
        return x.transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        """Q (B, H, T, d), all keys and values (B, K, S, d) -> (B, H, T, d); kinds with other scores override it."""
        return self.core(q, k, v, context.mask(self.mask, self.position_bias))


def group_heads(weight: Tensor, num_heads: int, num_kv_heads: int) -> Tensor:
    """Turn the key (or value) projection of MHA into that of GQA: each group's heads become their mean (Ainslie et al.
    2023). (H * d, ...) -> (K * d, ...)
    """
    heads = weight.unflatten(0, (num_kv_heads, num_heads // num_kv_heads, -1))  # (K, H/K, d, ...)
    return heads.mean(dim=1).flatten(0, 1)
