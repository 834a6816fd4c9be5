"""Linformer (Wang et al. 2020): attention to r mixtures of the tokens in place of the tokens.

    softmax(q (E k)^T / sqrt(d)) (F v)          E, F (r, n) learned, n the longest row

Cost and memory are T * r instead of T * T. Each mixture holds later tokens too, so it cannot be causal and has no
cache: it is for encoders.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.rows import real_tokens
from groundup.layers.context import Context
from groundup.layers.masks import Bidirectional, Mask

Sharing = Literal["none", "headwise", "key-value"]


class LowRank(nn.Module):
    """The matrices E and F. Layers that are given the same module share them (the paper's layerwise sharing).

    Args:
        max_len: n.
        rank: r.
        heads: key-value heads that have matrices of their own.
        sharing: "none", "headwise" (all heads share them) or "key-value" (and E is F).
    """

    def __init__(self, max_len: int, rank: int, heads: int, sharing: Sharing = "headwise"):
        super().__init__()
        count = heads if sharing == "none" else 1
        shape = (1 if sharing == "key-value" else 2, count, rank, max_len)
        # entries of variance 1/r keep lengths of projected columns on average (Johnson & Lindenstrauss 1984)
        self.weight = nn.Parameter(torch.randn(shape) * rank**-0.5)

    def forward(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """K and v (B, K, T, d) -> (B, K, r, d) each, by the first T columns."""
        if k.shape[2] > self.weight.shape[-1]:
            raise UsageError(f"{k.shape[2]} tokens arrive, but Linformer's projection is for {self.weight.shape[-1]}")
        weight = self.weight[..., : k.shape[2]].to(k.dtype)
        return weight[0] @ k, weight[-1] @ v


class Linformer(Attention):
    """Attention to r mixtures of keys and values.

    Args:
        args, settings: as in Attention; `mask` must be Bidirectional.
        max_len: the longest row, where `projection` is not given.
        rank: r, where `projection` is not given.
        sharing: see LowRank.
        projection: one that several layers share.
    """

    memory = "none"

    def __init__(
        self,
        *args: Any,
        max_len: int = 512,
        rank: int = 128,
        sharing: Sharing = "headwise",
        projection: LowRank | None = None,
        **settings: Any,
    ):
        super().__init__(*args, **{"mask": Bidirectional()} | settings)
        if self.mask != Bidirectional():
            raise UsageError("Linformer mixes later tokens into its keys and cannot be causal: mask=Bidirectional()")
        heads = self.k_proj.out_features // self.head_dim
        self.low_rank = LowRank(max_len, rank, heads, sharing) if projection is None else projection

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        if context.state is not None:
            raise UsageError("Linformer sees later tokens and has no cache: give whole rows without a state")
        return super().heads(x, context)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        real = real_tokens(context, "Linformer")
        if real is not None:  # padding has no share in the mixtures
            k, v = (t * real[:, None, :, None] for t in (k, v))
        return self.core(q, *self.low_rank(k, v), Mask())  # (B, H, T, d)
