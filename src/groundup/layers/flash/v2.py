"""FlashAttention-2 (Dao 2023), readable: the same result as version 1 with the two loops exchanged.

    for each block of queries i:            one worker each; no worker waits for another
        for each block of keys j:
            add tile (i, j) to o_i          o_i stays in the worker's registers
        divide by z_i, store o_i and L_i    once

What changed since version 1:

- Parallel over the sequence. A block of queries is finished by one worker alone, so B * H * T / r workers run at once
  instead of B * H: long texts with few rows still fill a GPU. In the backward pass the same holds for blocks of keys:
  a worker owns dk_j and dv_j, and adds its share to dq_i (atomically, on a GPU).
- Less arithmetic beside the matrix products: o is divided by z once, at the end, not at every tile.
- One number a query is kept for the backward pass, L = m + log z, as e^(s - L) is the weight itself.
- A causal tile that lies wholly before the diagonal needs no comparison with it; one wholly after is not computed.
- Inside a worker the four warps share out the queries, not the keys, and so never add up each other's sums.

`flash/work.py` lists both orders and counts what they load and store.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.layers.flash.tiles import Blocks, OnlineSoftmax, TileMask, by_group, dropped, finite, spans
from groundup.layers.masks import Mask

Workers = Callable[[Callable[[slice], Any], list[slice]], Iterable[Any]]
"""Runs a function for every block and gives the results in the blocks' order: `map`, or that of a pool of threads."""


def query_block(
    rows: slice,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: TileMask,
    scale: float,
    blocks: Blocks,
    dropout: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """What one worker of the forward pass does: o_i (B, K, G, r, d) and L_i (B, K, G, r, 1)."""
    q_i = q[..., rows, :]
    softmax = OnlineSoftmax(q_i, v.shape[-1])
    for cols in spans(k.shape[-2], blocks.columns):
        if mask.unseen(rows, cols):
            continue
        s = mask.apply(q_i @ k[..., cols, :].mT * scale, rows, cols)
        softmax.add(s, v[..., cols, :], dropped(dropout, seed, s.shape, rows, cols, s.device))
    return softmax.result()


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: TileMask,
    scale: float,
    blocks: Blocks,
    dropout: float = 0.0,
    seed: int = 0,
    workers: Workers = map,
) -> tuple[Tensor, Tensor]:
    """Q (B, K, G, T, d), k and v (B, K, 1, S, d) -> o (B, K, G, T, d) and L (B, K, G, T, 1)"""
    work = lambda rows: query_block(rows, q, k, v, mask, scale, blocks, dropout, seed)  # noqa: E731
    results = list(workers(work, spans(q.shape[-2], blocks.rows)))
    o, lse = zip(*results, strict=True)
    return torch.cat(o, -2), torch.cat(lse, -2)


def key_block(
    cols: slice,
    do: Tensor,
    delta: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor],
    mask: TileMask,
    scale: float,
    blocks: Blocks,
    dropout: float,
    seed: int,
    dbias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What one worker of the backward pass does: its share of dq (B, K, G, T, d), and dk_j and dv_j (B, K, 1, c, d).
    Its part of the gradient of the bias is added to `dbias`.
    """
    q, k, v, lse = saved
    k_j, v_j = k[..., cols, :], v[..., cols, :]
    dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k_j), torch.zeros_like(v_j)
    for rows in spans(q.shape[-2], blocks.rows):
        if mask.unseen(rows, cols):
            continue
        q_i, do_i = q[..., rows, :], do[..., rows, :]
        s = mask.apply(q_i @ k_j.mT * scale, rows, cols)
        p = torch.exp(s - finite(lse[..., rows, :]))  # the weights, from one number a query
        keep = dropped(dropout, seed, s.shape, rows, cols, s.device)
        dv += ((p if keep is None else p * keep).mT @ do_i).sum(2, keepdim=True)
        dp = do_i @ v_j.mT if keep is None else (do_i @ v_j.mT) * keep
        ds = p * (dp - delta[..., rows, :])
        mask.add_slope(dbias, ds, rows, cols)
        dq[..., rows, :] = scale * ds @ k_j
        dk += (scale * ds.mT @ q_i).sum(2, keepdim=True)
    return dq, dk, dv


def backward(
    do: Tensor,
    saved: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
    mask: TileMask,
    scale: float,
    blocks: Blocks,
    dropout: float = 0.0,
    seed: int = 0,
    workers: Workers = map,
    dbias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v from that of o; saved: q, k, v, o, L. That of the bias is added to `dbias`."""
    q, k, v, o, lse = saved
    delta = (do * o).sum(-1, keepdim=True)  # D, once for all workers
    args = (do, delta, (q, k, v, lse), mask, scale, blocks, dropout, seed, dbias)
    dq, dk, dv = torch.zeros_like(q), [], []
    for share, dk_j, dv_j in workers(lambda cols: key_block(cols, *args), spans(k.shape[-2], blocks.columns)):
        dq += share
        dk.append(dk_j)
        dv.append(dv_j)
    return dq, torch.cat(dk, -2), torch.cat(dv, -2)


class FlashAttention2(torch.autograd.Function):
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
        o, lse = forward(*by_group(q, k, v), tiles, scale, blocks, dropout, seed)
        ctx.save_for_backward(q, k, v, o, lse)
        ctx.settings = tiles, scale, blocks, dropout, seed
        return o.flatten(1, 2).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, o, lse = ctx.saved_tensors
        wide = by_group(q, k, v)
        dbias = torch.zeros_like(ctx.settings[0].bias) if ctx.needs_input_grad[3] else None
        do = do.unflatten(1, (k.shape[1], -1)).to(wide[0].dtype)
        dq, dk, dv = backward(do, (*wide, o, lse), *ctx.settings, dbias=dbias)
        return dq.flatten(1, 2).to(q.dtype), dk[:, :, 0].to(k.dtype), dv[:, :, 0].to(v.dtype), dbias, *([None] * 5)
