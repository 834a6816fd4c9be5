"""Attention for training on CPUs, in tiles, with the weights kept for the backward pass.

For each group of rows (small enough that its scores stay in the cache) and each tile of queries:

    P = softmax(s Q Kᵀ + M)      O = P V
    dV = Pᵀ dO,   dS = P ∘ (dP - Σ P ∘ dP),  dP = dO Vᵀ,   dQ = s dS K,   dK = s dSᵀ Q

A causal tile multiplies only the keys up to its end, which leaves out almost half of the products. Flash attention
(Dao et al. 2022) makes P again in the backward pass, in fewer bytes and more operations: worth it for long rows only,
so rows above `LONGEST` keep torch's kernel.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask

LONGEST = 512
"""Keys; above it the kept weights would take too much memory."""
TILE = 64
"""Queries in one tile."""
CACHE = 2**18
"""Scores of one group of rows: 1 MB in fp32."""


def tiled_attention(core: AttentionCore, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """As `core(q, k, v, mask)`: q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d), in the layout (B, T, H, d)."""
    dropout = core.dropout if core.training else 0.0
    wanted = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu"
    if not (wanted and pays(mask, dropout, k.shape[2])):
        return AttentionCore.forward(core, q, k, v, mask)
    scale = q.shape[-1] ** -0.5 if core.scale is None else core.scale
    return _Attention.apply(q, k, v, Plan(q, k, mask, scale, dropout))  # type: ignore[return-value]


def pays(mask: Mask, dropout: float, keys: int) -> bool:
    """Whether tiles are the faster way: where they leave out products, and where torch has no kernel (dropout)."""
    return keys <= LONGEST and (mask.causal or dropout > 0)


class Plan:
    """How one call is cut.

    Attributes:
        bias: (B or 1, 1 or H, T, S): 0 where the query may see the key, else minus infinity; None where all is seen.
        group: rows done at a time.
    """

    def __init__(self, q: Tensor, k: Tensor, mask: Mask, scale: float, dropout: float):
        (self.rows, self.heads, self.queries, _), self.keys = q.shape, k.shape[2]
        self.scale, self.dropout, self.causal = scale, dropout, mask.causal
        self.bias = None
        if mask.causal or mask.allowed is not None:
            allowed = mask.dense(self.queries, self.keys, q.device)
            self.bias = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill_(~allowed, -torch.inf)
        self.group = max(1, CACHE // (self.heads * self.queries * self.keys))
        if self.bias is not None and self.bias.shape[:2] != (1, 1):
            self.group = 1  # every row or every head has a mask of its own

    def groups(self) -> Iterator[slice]:
        """The groups of rows."""
        return (slice(start, min(start + self.group, self.rows)) for start in range(0, self.rows, self.group))

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Queries, and the keys they may see."""
        for start in range(0, self.queries, TILE):
            end = min(start + TILE, self.queries)
            yield slice(start, end), slice(0, end if self.causal else self.keys)

    def weights(self, q: Tensor, k: Tensor, rows: slice, queries: slice, keys: slice) -> Tensor:
        """P of one tile: q (R, t, d), k (R, s, d) -> (R, t, s) with R = rows x heads."""
        if self.bias is None:
            return torch.softmax(torch.bmm(q, k.mT).mul_(self.scale), dim=-1)
        own = self.bias[rows] if len(self.bias) > 1 else self.bias  # (1, 1 or H, T, S)
        tile = own[0, :, queries, keys]
        return torch.softmax(torch.baddbmm(tile, q, k.mT, alpha=self.scale), dim=-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
        out = q.new_empty(plan.rows, plan.queries, plan.heads, v.shape[-1]).transpose(1, 2)
        kept: list[Tensor] = []
        for rows in plan.groups():
            qs, ks, vs = (by_head(x, rows, plan.heads) for x in (q, k, v))
            for queries, keys in plan.tiles():
                weights = plan.weights(qs[:, queries], ks[:, keys], rows, queries, keys)
                kept.append(weights)
                if plan.dropout:
                    noise = torch.empty_like(weights).bernoulli_(1 - plan.dropout).div_(1 - plan.dropout)
                    kept.append(noise)
                    weights = weights * noise
                result = torch.bmm(weights, vs[:, keys])
                out[rows, :, queries] = result.unflatten(0, (-1, plan.heads))
        ctx.plan = plan
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, *saved = ctx.saved_tensors
        plan, kept, (gradient,) = ctx.plan, iter(saved), gradients
        dq, dk, dv = (torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format) for x in (q, k, v))
        dq, dk, dv = dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)
        for rows in plan.groups():
            qs, ks, vs, gs = (by_head(x, rows, plan.heads) for x in (q, k, v, gradient))
            dks, dvs = torch.zeros_like(ks), torch.zeros_like(vs)
            for queries, keys in plan.tiles():
                weights, g = next(kept), gs[:, queries]
                noise = next(kept) if plan.dropout else None
                dvs[:, keys].baddbmm_((weights if noise is None else weights * noise).mT, g)
                dp = torch.bmm(g, vs[:, keys].mT)
                if noise is not None:
                    dp *= noise
                ds = torch._softmax_backward_data(dp, weights, -1, weights.dtype)
                dq[rows, :, queries] = torch.bmm(ds, ks[:, keys]).mul_(plan.scale).unflatten(0, (-1, plan.heads))
                dks[:, keys].baddbmm_(ds.mT, qs[:, queries], alpha=plan.scale)
            dk[rows], dv[rows] = (by_group(x, plan.heads, k.shape[1]) for x in (dks, dvs))
        return dq, dk, dv, None


def by_head(x: Tensor, rows: slice, heads: int) -> Tensor:
    """Some rows as one batch of heads; shared key-value heads are repeated. (B, K, S, d) -> (R, S, d)"""
    x = x[rows]
    if x.shape[1] != heads:
        x = x.repeat_interleave(heads // x.shape[1], dim=1)
    return x.reshape(-1, *x.shape[2:])


def by_group(x: Tensor, heads: int, kv_heads: int) -> Tensor:
    """The way back for gradients: heads that share keys are added. (R, S, d) -> (rows, K, S, d)"""
    x = x.unflatten(0, (-1, kv_heads, heads // kv_heads))
    return x.sum(2) if heads != kv_heads else x[:, :, 0]
