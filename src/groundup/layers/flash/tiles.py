"""Tiles of the score matrix, and the softmax that meets them one after another.

    T queries                S keys ->          A tile is rows x columns of the (T, S) matrix of scores. Only tiles are
        |     +-----+-----+---+                 ever held: the matrix itself, T * S numbers a head, is not.
        v     | 0,0 | 0,1 |   |
              +-----+-----+---+                 The last tile of a row or column is as small as what is left.
              | 1,0 | 1,1 |   |
              +-----+-----+---+

Letters: B rows of the batch, K key-value heads, G = H / K query heads for each, r rows and c columns of a tile.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.masks import Mask


@dataclass(frozen=True)
class Blocks:
    """Sizes of a tile.

    Attributes:
        rows: queries.
        columns: keys.
    """

    rows: int = 64
    columns: int = 64

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise UsageError(f"a tile has at least one row and one column, not {self.rows} x {self.columns}")


def spans(length: int, size: int) -> list[slice]:
    """0 .. length cut into slices of `size`, the last one maybe shorter."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def by_group(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, H, T, d) beside the keys and values (B, K, S, d) that they share, in float32 or better.

    -> (B, K, G, T, d), (B, K, 1, S, d), (B, K, 1, S, d)
    """
    if q.shape[1] % k.shape[1]:
        raise UsageError(f"{q.shape[1]} query heads cannot share {k.shape[1]} key-value heads evenly")
    q = q.unflatten(1, (k.shape[1], -1))
    wide = torch.promote_types(q.dtype, torch.float32)
    return q.to(wide), k[:, :, None].to(wide), v[:, :, None].to(wide)


@dataclass(frozen=True, eq=False)
class TileMask:
    """A `Mask` cut into tiles.

    Args:
        mask: who sees whom.
        queries, keys: T and S.
        kv_heads: K.
        bias: what is added to the scores, (B or 1, H, T, S), minus infinity at hidden keys already; or None.
    """

    mask: Mask
    queries: int
    keys: int
    kv_heads: int
    bias: Tensor | None = None

    def unseen(self, rows: slice, columns: slice) -> bool:
        """Whether no query of the tile sees any of its keys, so that the tile need not be computed."""
        if self.mask.causal:
            return columns.start >= rows.stop
        # block-sparse FlashAttention (Dao et al. 2022, section 3.3): patterns with holes are cheaper by their holes
        return self.mask.allowed is not None and not bool(self._tile(rows, columns).any())

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        """Of a mask given pair by pair, (B or 1, 1 or H, r, c)."""
        return self.mask.allowed.expand(-1, -1, self.queries, self.keys)[:, :, rows, columns]  # type: ignore[union-attr]

    def apply(self, scores: Tensor, rows: slice, columns: slice) -> Tensor:
        """Minus infinity where a query does not see a key. (B, K, G, r, c) -> (B, K, G, r, c)"""
        if self.bias is not None:
            return scores + self._by_group(self.bias[:, :, rows, columns]).to(scores.dtype)
        if self.mask.causal:
            if columns.stop <= rows.start + 1:  # every key lies before every query
                return scores
            q, k = (torch.arange(span.start, span.stop, device=scores.device) for span in (rows, columns))
            return scores.masked_fill(q[:, None] < k, -torch.inf)
        if self.mask.allowed is None:
            return scores
        return scores.masked_fill(~self._by_group(self._tile(rows, columns)), -torch.inf)

    def _by_group(self, tile: Tensor) -> Tensor:
        """(B or 1, 1 or H, r, c) -> (B or 1, 1 or K, 1 or G, r, c)"""
        return tile[:, :, None] if tile.shape[1] == 1 else tile.unflatten(1, (self.kv_heads, -1))

    def add_slope(self, gradient: Tensor | None, ds: Tensor, rows: slice, columns: slice) -> None:
        """Add a tile's gradient by its scores, (B, K, G, r, c), to that of the bias, if it has one."""
        if gradient is not None:
            slope = ds.flatten(1, 2)
            gradient[:, :, rows, columns] += slope.sum_to_size(gradient.shape[0], gradient.shape[1], *slope.shape[2:])


def finite(maximum: Tensor) -> Tensor:
    """A maximum to subtract: 0 for -inf, that of a query that sees nothing yet, because -inf - -inf is NaN."""
    return torch.where(maximum == -torch.inf, 0.0, maximum)


def divide(x: Tensor, total: Tensor) -> Tensor:
    """X / total, and 0 where a query saw nothing."""
    return x / torch.where(total == 0, 1.0, total)


class OnlineSoftmax:
    """softmax(s) v for scores that come block by block (Milakov & Gimelshein 2018; Dao et al. 2022).

    m is the largest score so far, z the sum of e^(s - m), o the sum of e^(s - m) v. When a block raises m, what was
    summed before is scaled by e^(m_old - m_new); the division by z happens once, at the end.
    """

    def __init__(self, like: Tensor, width: int):
        """Like (..., r, any): where the results live; width: features of a value."""
        self.m = like.new_full((*like.shape[:-1], 1), -torch.inf)
        self.z = torch.zeros_like(self.m)
        self.o = like.new_zeros(*like.shape[:-1], width)

    def add(self, scores: Tensor, values: Tensor, keep: Tensor | None = None) -> None:
        """A further block: scores (..., r, c), values (..., c, d); keep (..., r, c) is what dropout multiplies by."""
        m = torch.maximum(self.m, scores.amax(-1, keepdim=True).detach())  # results do not depend on it
        p, old = torch.exp(scores - finite(m)), torch.exp(self.m - finite(m))
        self.z = old * self.z + p.sum(-1, keepdim=True)
        self.o = old * self.o + (p if keep is None else p * keep) @ values
        self.m = m

    def result(self) -> tuple[Tensor, Tensor]:
        """The mean of the values (..., r, d), and log sum e^s (..., r, 1): 0 and -inf where nothing was seen."""
        seen = self.z > 0
        return divide(self.o, self.z), torch.where(seen, self.m + torch.where(seen, self.z, 1.0).log(), -torch.inf)


def dropped(p: float, seed: int, shape: torch.Size, rows: slice, columns: slice, device: torch.device) -> Tensor | None:
    """What dropout multiplies a tile's weights by: 0, or 1 / (1 - p). The same seed and tile give the same numbers, so
    that the backward pass draws them anew instead of keeping T * S of them.
    """
    if p == 0:
        return None
    generator = torch.Generator(device).manual_seed(hash((seed, rows.start, columns.start)) % 2**63)
    return (torch.rand(shape, generator=generator, device=device) >= p) / (1 - p)
