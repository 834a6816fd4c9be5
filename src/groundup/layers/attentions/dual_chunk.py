"""Dual Chunk Attention (An et al. 2024): texts longer than those of the training, without training.

A model that knows distances up to C is at a loss beyond them. Here rows are cut into chunks of L < C tokens, and a key
is turned by its place in its chunk, j mod L. A query is turned in one of three ways, so that no distance exceeds C:

    same chunk        i mod L                    the distance as it is: i - j
    next chunk        min(i mod L + L, C)        as it is for the last C - L tokens, and at most C
    further chunks    min(2 L - 1, C)            the same for all: far away, in order of the keys' places

Within the first chunk this is plain attention. C is `chunk_size`, and C - L `local_size`, in the configs of Qwen 2 and
2.5-1M, whose numbers these are; the paper's own cap is C - 1, the last position of the training.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.attention import Attention
from groundup.layers.attentions.rows import places
from groundup.layers.context import Context
from groundup.layers.flash.decoding import attend_part, merge
from groundup.layers.flash.tiles import TileMask, by_group
from groundup.layers.masks import Causal, Mask
from groundup.layers.rope import Rope
from groundup.layers.rotary_scaling import DynamicNTKScaling, LongRopeScaling

Where = Literal["key", "same", "next", "further"]


@dataclass(frozen=True)
class ChunkRope(Rope):
    """Rotary positions counted anew in each chunk.

    Attributes:
        chunk: L.
        longest: C.
        where: what is turned: keys, or queries that look at keys of the same, the next or further chunks.
    """

    chunk: int = 1
    longest: int = 1
    where: Where = "key"

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        inside = positions % self.chunk
        if self.where == "next":
            inside = (inside + self.chunk).clamp(max=self.longest)
        elif self.where == "further":
            inside = torch.full_like(inside, min(2 * self.chunk - 1, self.longest))
        return super().tables(inside, dtype)


@dataclass(frozen=True)
class ChunkMask:
    """Causal, and of those pairs the ones whose chunks are so far apart.

    Attributes:
        chunk: L.
        where: "same", "next" or "further".
    """

    chunk: int
    where: Where

    def build(self, context: Context) -> Mask:
        query, key = places(context)
        apart = (query // self.chunk)[:, None, :, None] - (key // self.chunk)[:, None, None, :]
        wanted = {"same": apart == 0, "next": apart == 1, "further": apart >= 2}[self.where]
        causal = context.mask(Causal()).dense(query.shape[1], key.shape[1], query.device)
        return Mask(allowed=causal & wanted)


class DualChunkAttention(Attention):
    """Attention whose queries are turned in three ways; weights are those of Attention.

    Args:
        args, settings: as in Attention; it needs `rope` and a Causal() mask, and nothing can be dropped.
        chunk_size: C, the longest distance.
        local_size: C - L, the distances that are kept exact across the border of a chunk.
    """

    def __init__(self, *args: Any, chunk_size: int, local_size: int, **settings: Any):
        super().__init__(*args, **settings)
        if self.rope is None or self.mask != Causal():
            raise UsageError("dual chunk attention turns queries and keys, causally: it needs rope= and mask=Causal()")
        if type(self.rope) is not Rope or isinstance(self.rope.scaling, DynamicNTKScaling | LongRopeScaling):
            raise UsageError("dual chunk attention counts positions anew: it needs a plain Rope of fixed frequencies")
        if self.core.dropout:
            raise UsageError("dual chunk attention is for long texts after the training: dropout=0")
        if not 0 < local_size < chunk_size:
            raise UsageError(f"local_size lies between 0 and chunk_size, {chunk_size}; got {local_size}")
        self.chunk, self.scale = chunk_size - local_size, self.core.scale or self.head_dim**-0.5
        names: tuple[Where, ...] = ("key", "same", "next", "further")
        r = self.rope
        self.ropes: dict[Where, ChunkRope] = {
            name: ChunkRope(r.dim, r.theta, r.interleaved, r.scaling, self.chunk, chunk_size, name) for name in names
        }
        self.rope = None  # `heads` leaves queries and keys as they are
        del self.core  # three softmaxes are merged: no single one to observe

    def heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().heads(x, context)
        return q, self._turn("key", k, context), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        results = []
        for where in ("same", "next", "further"):
            mask = context.mask(ChunkMask(self.chunk, where))
            tiles = TileMask(mask, q.shape[2], k.shape[2], k.shape[1])
            wide = by_group(self._turn(where, q, context), k, v)
            results.append(attend_part(*wide, tiles, self.scale, slice(0, k.shape[2])))
        o, _ = merge(*zip(*results, strict=True))
        return o.flatten(1, 2).to(q.dtype)

    def _turn(self, where: Where, t: Tensor, context: Context) -> Tensor:
        """(B, H or K, T, d) -> the same shape."""
        rope = self.ropes[where]
        return rope.rotate(t.transpose(1, 2), context.rotation(rope, t.dtype)).transpose(1, 2)
