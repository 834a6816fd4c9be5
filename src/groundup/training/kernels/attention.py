"""Attention for training on CPUs, in tiles, with the weights kept for the backward pass.

For each group of rows (small enough that its scores stay in the cache) and each tile of queries:

    P = softmax(Q Kᵀ + M)            O = P V
    dV = Pᵀ dO,   dS = P ∘ (dP - Σ P ∘ dP),  dP = dO Vᵀ,   dQ = dS K,   dK = dSᵀ Q

A causal tile multiplies only the keys up to its end, which leaves out almost half of the products. Flash attention
(Dao et al. 2022) makes P again in the backward pass, in fewer bytes and more operations: worth it for long rows only,
so rows above `LONGEST` keep torch's kernel.

Forward and backward are operators of their own (`groundup::attention`), so torch.compile leaves them whole and fuses
what stands around them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask

LONGEST = 512
"""Keys; above it the kept weights would take too much memory."""
TILE = 64
"""Queries in one tile."""
CACHE = {torch.bfloat16: 2**23}
"""Scores of one group of rows. A bf16 product costs more to begin with, so its groups are larger."""
CACHE_OTHERS = 2**22


class TiledCore(AttentionCore):
    """The core in tiles wherever that is faster."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        return tiled_attention(self, q, k, v, mask)


def tiled_attention(core: AttentionCore, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """As `core(q, k, v, mask)`: q (B, H, T, d), k and v (B, K, S, d) -> (B, H, T, d), in the layout (B, T, H, d)."""
    dropout = core.dropout if core.training else 0.0
    wanted = torch.is_grad_enabled() and q.requires_grad and q.device.type == "cpu"
    learned = mask.bias is not None and mask.bias.requires_grad  # the backward pass here makes no gradient for it
    if learned or not (wanted and pays(mask, dropout, k.shape[2], q.dtype)):
        return AttentionCore.forward(core, q, k, v, mask)
    scale = q.shape[-1] ** -0.5 if core.scale is None else core.scale
    k, v = (x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    q, k, v = ((q * scale).contiguous(), k.contiguous(), v.contiguous())
    shown = mask.allowed if mask.bias is None else mask.bias.to(q.dtype)
    return attention(q, k, v, shown, mask.causal, dropout)[0].transpose(1, 2)


def pays(mask: Mask, dropout: float, keys: int, dtype: torch.dtype) -> bool:
    """Whether tiles are the faster way: where they leave out products, and where torch's kernel is slow or missing."""
    return keys <= LONGEST and (mask.causal or dropout > 0 or dtype == torch.bfloat16)


@dataclass(frozen=True)
class Tile:
    """Rows, queries and the keys they may see, and where their weights lie in the buffer of all weights."""

    rows: slice
    queries: slice
    keys: slice
    place: slice
    shape: tuple[int, int, int]

    def of(self, kept: Tensor) -> Tensor:
        """This tile's part of a buffer, (R, t, s) with R = rows x heads."""
        return kept[self.place].view(self.shape)


def tiles(q: Tensor, k: Tensor, causal: bool) -> Iterator[Tile]:
    """How one call is cut: groups of rows, and in each tiles of queries."""
    rows, heads, queries, keys = *q.shape[:3], k.shape[2]
    group = max(1, CACHE.get(q.dtype, CACHE_OTHERS) // (heads * queries * keys))
    place = 0
    for first in range(0, rows, group):
        last = min(first + group, rows)
        for start in range(0, queries, TILE):
            end = min(start + TILE, queries)
            seen = end if causal else keys
            shape = ((last - first) * heads, end - start, seen)
            size = shape[0] * shape[1] * shape[2]
            yield Tile(slice(first, last), slice(start, end), slice(0, seen), slice(place, place + size), shape)
            place += size


def num_weights(q: Tensor, k: Tensor, causal: bool) -> int:
    """Weights of all tiles."""
    rows, heads, queries, keys = *q.shape[:3], k.shape[2]
    seen = (min(start + TILE, queries) if causal else keys for start in range(0, queries, TILE))
    lengths = (min(TILE, queries - start) for start in range(0, queries, TILE))
    return rows * heads * sum(t * s for t, s in zip(lengths, seen, strict=True))


@torch.library.custom_op("groundup::attention", mutates_args=())
def attention(
    q: Tensor, k: Tensor, v: Tensor, shown: Tensor | None, causal: bool, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Q (B, H, T, d), scaled, k and v (B, H, S, d) -> output (B, T, H, d), weights, what dropout kept / (1 - p).

    `shown`: (1 or B, 1 or H, T, S), bool: where False a query does not see a key; or floating: added to the scores.
    """
    kept, noise = q.new_empty(num_weights(q, k, causal)), q.new_empty(0)
    if dropout:
        noise = torch.empty_like(kept).bernoulli_(1 - dropout).div_(1 - dropout)
    out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1])
    bias = shown
    if shown is not None and shown.dtype == torch.bool:
        bias = torch.zeros(shown.shape, dtype=q.dtype).masked_fill_(~shown, -torch.inf)
    for tile in tiles(q, k, causal):
        weights, values = tile.of(kept), v[tile.rows].flatten(0, 1)[:, tile.keys]
        scores = torch.bmm(q[tile.rows].flatten(0, 1)[:, tile.queries], k[tile.rows].flatten(0, 1)[:, tile.keys].mT)
        _hide(scores, tile, bias, causal, q.shape[1])
        torch.softmax(scores, -1, out=weights)
        result = torch.bmm(weights * tile.of(noise) if dropout else weights, values)
        out[tile.rows, tile.queries] = result.unflatten(0, (-1, q.shape[1])).transpose(1, 2)
    return out, kept, noise


def _hide(scores: Tensor, tile: Tile, bias: Tensor | None, causal: bool, heads: int) -> None:
    """Minus infinity where the query does not see the key, (R, t, s) in place."""
    if causal:
        length = scores.shape[1]
        later = torch.full((length, length), -torch.inf, dtype=scores.dtype).triu_(1)
        scores[:, :, tile.queries] += later
    if bias is not None:
        own = bias[tile.rows] if len(bias) > 1 else bias
        scores.unflatten(0, (-1, heads)).add_(own[:, :, tile.queries, tile.keys])


@attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, shown: Tensor | None, causal: bool, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    size = num_weights(q, k, causal)
    out = q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[-1])
    return out, q.new_empty(size), q.new_empty(size if dropout else 0)


@torch.library.custom_op("groundup::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Tensor, noise: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the output in the layout (B, H, T, d) -> gradients of q (B, T, H, d), k and v (B, H, S, d)."""
    heads = q.shape[1]
    dq = q.new_empty(q.shape[0], q.shape[2], heads, q.shape[3])
    dk, dv = torch.zeros_like(k), torch.zeros_like(v)
    for tile in tiles(q, k, causal):
        weights, drop = tile.of(kept), tile.of(noise) if len(noise) else None
        qs, g = (x[tile.rows].flatten(0, 1)[:, tile.queries] for x in (q, gradient))
        ks, vs, dks, dvs = (x[tile.rows].flatten(0, 1)[:, tile.keys] for x in (k, v, dk, dv))
        # Added, not baddbmm_: into a part of a tensor that multiplies one matrix after the other.
        dvs += torch.bmm((weights if drop is None else weights * drop).mT, g)
        dp = torch.bmm(g, vs.mT)
        if drop is not None:
            dp *= drop
        ds = torch._softmax_backward_data(dp, weights, -1, weights.dtype)
        dq[tile.rows, tile.queries] = torch.bmm(ds, ks).unflatten(0, (-1, heads)).transpose(1, 2)
        dks += torch.bmm(ds.mT, qs)
    return dq, dk, dv


@attention_backward.register_fake
def _(
    gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Tensor, noise: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], q.shape[3]), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    q, k, v, _, ctx.causal, _ = inputs  # type: ignore[attr-defined]
    ctx.save_for_backward(q, k, v, *output[1:])


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, kept, noise = ctx.saved_tensors  # type: ignore[attr-defined]
    gradient = gradient.transpose(1, 2).contiguous()
    dq, dk, dv = attention_backward(gradient, q, k, v, kept, noise, ctx.causal)  # type: ignore[attr-defined]
    return dq.transpose(1, 2), dk, dv, None, None, None


attention.register_autograd(_backward, setup_context=_keep)
