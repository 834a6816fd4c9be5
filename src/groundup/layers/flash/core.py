"""Cores of an attention module that compute in tiles. Put one in with `groundup.replace`:

    replace(model, "blocks.*.attn.core", FlashCore.like)

They are to read, to measure memory with, and to change; torch's own kernels are faster.
"""

import math
from typing import Literal, Self

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.attention import AttentionCore
from groundup.layers.flash.decoding import split_attention
from groundup.layers.flash.tiles import Blocks
from groundup.layers.flash.v1 import FlashAttention1
from groundup.layers.flash.v2 import FlashAttention2
from groundup.layers.masks import Mask

BLOCKS = Blocks()


class FlashCore(AttentionCore):
    """FlashAttention 1 or 2, forward and backward.

    Args:
        dropout, scale: as in AttentionCore. Dropout draws from torch's generator one seed a call.
        version: 1 or 2.
        blocks: the size of a tile.
    """

    def __init__(
        self,
        dropout: float = 0.0,
        scale: float | None = None,
        *,
        version: Literal[1, 2] = 2,
        blocks: Blocks = BLOCKS,
    ):
        super().__init__(dropout, scale)
        if version not in (1, 2):
            raise UsageError(f"FlashCore computes FlashAttention 1 or 2, not {version}")
        self.version, self.blocks = version, blocks

    @classmethod
    def like(cls, core: AttentionCore, **settings: object) -> Self:
        """One with the dropout and scale of another core."""
        return cls(core.dropout, core.scale, **settings)  # type: ignore[arg-type]

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        seed = int(torch.randint(2**62, ())) if dropout else 0
        attend = FlashAttention1 if self.version == 1 else FlashAttention2
        return attend.apply(q, k, v, mask.bias, mask, self.factor(q), self.blocks, dropout, seed)  # type: ignore[return-value]

    def factor(self, q: Tensor) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale


class SplitCore(FlashCore):
    """Flash-Decoding: the keys of a short call, as a decoding step is, are cut into parts; a longer one is FlashCore's.

    Args:
        parts: of the keys.
        most_queries: the longest call that is cut so.
    """

    def __init__(
        self,
        dropout: float = 0.0,
        scale: float | None = None,
        *,
        parts: int = 8,
        most_queries: int = 16,
        blocks: Blocks = BLOCKS,
    ):
        super().__init__(dropout, scale, blocks=blocks)
        self.parts, self.most_queries = parts, most_queries

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        if q.shape[2] > self.most_queries or (self.training and self.dropout):
            return super().forward(q, k, v, mask)
        return split_attention(q, k, v, mask, self.factor(q), self.parts)
