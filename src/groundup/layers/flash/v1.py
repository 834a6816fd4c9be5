"""FlashAttention (Dao et al. 2022), algorithms 1 (forward) and 4 (backward), readable.

The idea: attention is slow because the (T, S) matrices of scores and weights travel to the large memory and back.
Computed tile by tile with an online softmax, only queries, keys, values and results travel: T * d numbers.

    for each block of keys and values j:              loaded once
        for each block of queries i:                  q_i, o_i, z_i, m_i are loaded, and o_i, z_i, m_i stored, each time
            add tile (i, j) to o_i, z_i, m_i

The backward pass gets no weights from the forward pass: it computes each tile of them again from q, k and the two
numbers a query that were kept, the maximum m and the sum z. More arithmetic, less traffic, less memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.layers.flash.tiles import Blocks, TileMask, by_group, divide, dropped, finite, spans
from groundup.layers.masks import Mask


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: TileMask, scale: float, blocks: Blocks, dropout: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1. q (B, K, G, T, d), k and v (B, K, 1, S, d) -> o (B, K, G, T, d), m and z (B, K, G, T, 1)"""
    o = q.new_zeros(*q.shape[:-1], v.shape[-1])
    m, z = q.new_full((*q.shape[:-1], 1), -torch.inf), q.new_zeros(*q.shape[:-1], 1)
    for cols in spans(k.shape[-2], blocks.columns):
        k_j, v_j = k[..., cols, :], v[..., cols, :]
        for rows in spans(q.shape[-2], blocks.rows):
            if mask.unseen(rows, cols):
                continue
            m_i, z_i, o_i = m[..., rows, :], z[..., rows, :], o[..., rows, :]
            s = mask.apply(q[..., rows, :] @ k_j.mT * scale, rows, cols)  # (B, K, G, r, c)
            # the tile's own softmax
            m_tile = s.amax(-1, keepdim=True)
            p = torch.exp(s - finite(m_tile))
            z_tile = p.sum(-1, keepdim=True)
            # m' = max(m, m_tile);  z' = e^(m - m') z + e^(m_tile - m') z_tile
            m_new = torch.maximum(m_i, m_tile)
            old, new = torch.exp(m_i - finite(m_new)), torch.exp(m_tile - finite(m_new))
            z_new = old * z_i + new * z_tile
            # o' = (z e^(m - m') o + e^(m_tile - m') p v) / z'
            keep = dropped(dropout, seed, s.shape, rows, cols, s.device)
            o_new = divide(z_i * old * o_i + new * ((p if keep is None else p * keep) @ v_j), z_new)
            o[..., rows, :], m[..., rows, :], z[..., rows, :] = o_new, m_new, z_new
    return o, m, z


def backward(
    do: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor],
    mask: TileMask,
    scale: float,
    blocks: Blocks,
    dropout: float = 0.0,
    seed: int = 0,
    dbias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 4: the gradients of q, k and v from that of o; saved: q, k, v, o, m, z. That of the bias is added to
    `dbias`.
    """
    q, k, v, o, m, z = saved
    dq, dk, dv = (torch.zeros_like(t) for t in (q, k, v))
    for cols in spans(k.shape[-2], blocks.columns):
        k_j, v_j = k[..., cols, :], v[..., cols, :]
        for rows in spans(q.shape[-2], blocks.rows):
            if mask.unseen(rows, cols):
                continue
            q_i, do_i = q[..., rows, :], do[..., rows, :]
            s = mask.apply(q_i @ k_j.mT * scale, rows, cols)
            # p = e^(s - m) / z, computed again
            p = divide(torch.exp(s - finite(m[..., rows, :])), z[..., rows, :])  # (B, K, G, r, c)
            keep = dropped(dropout, seed, s.shape, rows, cols, s.device)
            kept = p if keep is None else p * keep
            # dv = p^T do;  dp = do v^T;  ds = p (dp - D) with D = rowsum(p dp) = rowsum(do o), no sum over keys
            dv[..., cols, :] += (kept.mT @ do_i).sum(2, keepdim=True)
            dp = do_i @ v_j.mT if keep is None else (do_i @ v_j.mT) * keep
            ds = p * (dp - (do_i * o[..., rows, :]).sum(-1, keepdim=True))
            mask.add_slope(dbias, ds, rows, cols)
            # dq = ds k;  dk = ds^T q
            dq[..., rows, :] += scale * ds @ k_j
            dk[..., cols, :] += (scale * ds.mT @ q_i).sum(2, keepdim=True)
    return dq, dk, dv


class FlashAttention1(torch.autograd.Function):
    """apply(q (B, H, T, d), k, v (B, K, S, d), bias, mask, scale, blocks, dropout, seed) -> (B, H, T, d)"""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        mask: Mask,
        scale: float,
        blocks: Blocks,
        dropout: float,
        seed: int,
    ) -> Tensor:
        tiles = TileMask(mask, q.shape[2], k.shape[2], k.shape[1], bias)
        wide = by_group(q, k, v)
        o, m, z = forward(*wide, tiles, scale, blocks, dropout, seed)
        ctx.save_for_backward(q, k, v, o, m, z)
        ctx.settings = tiles, scale, blocks, dropout, seed
        return o.flatten(1, 2).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, *results = ctx.saved_tensors
        wide = by_group(q, k, v)
        dbias = torch.zeros_like(ctx.settings[0].bias) if ctx.needs_input_grad[3] else None
        do = do.unflatten(1, (k.shape[1], -1)).to(wide[0].dtype)
        dq, dk, dv = backward(do, (*wide, *results), *ctx.settings, dbias=dbias)
        return dq.flatten(1, 2).to(q.dtype), dk[:, :, 0].to(k.dtype), dv[:, :, 0].to(v.dtype), dbias, *([None] * 5)
