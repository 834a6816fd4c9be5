"""Flash-Decoding (Dao, Haziza, Massa & Sizov 2023): one query, many keys, and all of the GPU at work.

A decoding step has a single block of queries, so FlashAttention-2 would give it one worker a head, which walks over
all keys alone. Here the keys are cut, each part is attended to as if it were all there is, and the results are joined
by the logarithms of their softmax sums:

    L_s = log sum_j e^(q k_j)   over part s          L = log sum_s e^(L_s)          o = sum_s e^(L_s - L) o_s

This is exact, for any cut, in any order, and parts may lie on different machines. Some notes call it "FlashAttention
v3"; the paper of that name is another thing (`flash/v3.py`).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.flash.tiles import OnlineSoftmax, TileMask, by_group, finite
from groundup.layers.masks import Mask


def attend_part(q: Tensor, k: Tensor, v: Tensor, mask: TileMask, scale: float, part: slice) -> tuple[Tensor, Tensor]:
    """Attention to the keys of one part: o_s (B, K, G, T, d) and L_s (B, K, G, T, 1).

    q (B, K, G, T, d), k and v (B, K, 1, S, d)
    """
    softmax = OnlineSoftmax(q, v.shape[-1])
    scores = q @ k[..., part, :].mT * scale
    softmax.add(mask.apply(scores, slice(0, q.shape[-2]), part), v[..., part, :])
    return softmax.result()


def merge(outputs: Sequence[Tensor], logs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Join results o_s (..., d) of disjoint sets of keys by their L_s (..., 1): o and L of all keys together."""
    o, lse = torch.stack(list(outputs)), torch.stack(list(logs))
    total = torch.logsumexp(lse, dim=0)
    return (torch.exp(lse - finite(total)) * o).sum(0), total


def split_attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, parts: int) -> Tensor:
    """Attention with the keys in so many parts. q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d)"""
    if parts < 1:
        raise UsageError(f"keys are cut into at least one part, not {parts}")
    tiles = TileMask(mask, q.shape[2], k.shape[2], k.shape[1], mask.bias)
    wide, length = by_group(q, k, v), k.shape[2]
    edges = [length * s // parts for s in range(parts + 1)]
    cuts = [slice(a, b) for a, b in pairwise(edges) if a < b]
    o, _ = merge(*zip(*(attend_part(*wide, tiles, scale, part) for part in cuts), strict=True))
    return o.flatten(1, 2).to(q.dtype)
