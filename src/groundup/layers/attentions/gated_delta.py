"""Gated DeltaNet (Yang, Kautz & Hatamizadeh 2024): a memory of fixed size that decays, and that corrects itself.

A head's memory S (d_k, d_v) answers a query by q S. A token writes what its key should give, and only the difference
to what it already gives (the delta rule of Widrow & Hoff 1960); before, the memory fades by a = e^g <= 1:

    S <- a S                         fade
    u  = b (v - k S)                 what is missing at k; b in (0, 1) is how much of it is written
    S <- S + k^T u                   write
    o  = q S                         read

`delta_rule` computes this token by token, `delta_rule_chunked` chunk by chunk with matrix products: equal results.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.attentions.rows import Compact
from groundup.layers.context import Context
from groundup.layers.rwkv.stream import in_float32


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Token by token, as decoding goes.

    q and k (B, H, T, d_k), v (B, H, T, d_v); g and b (B, H, T), the log of the decay and the share that is written; s
    (B, H, d_k, d_v), the memory before, zeros when None. -> (B, H, T, d_v), and the memory after.
    """
    s = empty(k, v) if s is None else s
    results = []
    for t in range(k.shape[2]):
        s = g[:, :, t, None, None].exp() * s
        u = b[:, :, t, None] * (v[:, :, t] - (k[:, :, t, None] @ s)[:, :, 0])
        s = s + k[:, :, t, :, None] * u[:, :, None]
        results.append(q[:, :, t, None] @ s)
    return torch.cat(results, 2), s


def empty(k: Tensor, v: Tensor) -> Tensor:
    """A memory that nothing was written to: k (B, H, ..., d_k), v (B, H, ..., d_v) -> (B, H, d_k, d_v)"""
    return v.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])


def delta_rule_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    b: Tensor,
    s: Tensor | None = None,
    chunk: int = 64,
    starts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Chunk by chunk, as training goes. Shapes as in `delta_rule`; starts (B, T) bool, where a document begins that
    must see nothing of the one before.

    Let G_t be the sum of g up to t within the chunk and S the memory before it. Then the memory before token t is
    e^(G_t - g_t) S + sum_{i < t} e^(G_t - g_t - G_i) k_i^T u_i, and so the corrections of a chunk solve

        u_t + b_t sum_{i < t} e^(G_t - G_i) (k_t k_i) u_i  =  b_t v_t - b_t e^(G_t) k_t S

    a triangular system whose right side is linear in S: it is solved once for all chunks together (`new` and `old`),
    and only the products with S go from chunk to chunk. Between documents e^(G_t - G_i) and e^(G_t) are 0.
    """
    length = k.shape[2]
    chunk = min(chunk, length)
    pad = -length % chunk  # tokens with b = 0 and g = 0 change nothing
    q, k, v = (F.pad(t, (0, 0, 0, pad)).unflatten(2, (-1, chunk)) for t in (q, k, v))  # (B, H, N, C, d)
    g, b = (F.pad(t, (0, pad)).unflatten(2, (-1, chunk))[..., None] for t in (g, b))  # (B, H, N, C, 1)
    total = g.cumsum(3)  # G
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=k.device).tril()
    fade = (total - total.mT).masked_fill(~causal, -torch.inf).exp()  # e^(G_t - G_i), 0 for i > t; (B, H, N, C, C)
    from_before = total.exp()  # e^(G_t), (B, H, N, C, 1)
    to_end = (total[..., -1:, :] - total).exp()
    kept = from_before[..., -1:, :]  # what is left of S after the chunk, (B, H, N, 1, 1)
    if starts is not None:
        same = _same_document(starts, pad, chunk)
        fade, from_before, to_end = fade * same.pairs, from_before * same.first, to_end * same.last
        kept = kept * same.first[..., -1:, :]
    system = (b * (k @ k.mT) * fade).tril(-1)
    # (I + system) (new - old S) = b v - b e^G k S
    right = torch.cat((b * v, b * from_before * k), -1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    new, old = solved.split([v.shape[-1], k.shape[-1]], -1)
    inside = (q @ k.mT) * fade  # how each token reads those of its chunk
    q_old = q * from_before  # and the memory before it
    k_left = k * to_end  # what is left of each write at the chunk's end
    memory = empty(k, v) if s is None else s
    results = []
    for n in range(k.shape[2]):
        u = new[:, :, n] - old[:, :, n] @ memory
        results.append(q_old[:, :, n] @ memory + inside[:, :, n] @ u)
        memory = kept[:, :, n] * memory + k_left[:, :, n].mT @ u
    return torch.cat(results, 2)[:, :, :length], memory


class _Same(NamedTuple):
    """Which tokens share a document, as factors 0 and 1.

    Attributes:
        pairs: (B, 1, N, C, C), tokens of a chunk.
        first: (B, 1, N, C, 1), each with the last token before the chunk.
        last: (B, 1, N, C, 1), each with the chunk's last token.
    """

    pairs: Tensor
    first: Tensor
    last: Tensor


def _same_document(starts: Tensor, pad: int, chunk: int) -> _Same:
    number = F.pad(starts.long(), (0, pad)).cumsum(1)  # the padding goes on with the last document
    number = number.unflatten(1, (-1, chunk))[:, None, :, :, None]  # (B, 1, N, C, 1)
    before = F.pad(number[:, :, :-1, -1:], (0, 0, 0, 0, 1, 0))
    pairs = (number == number.mT, number == before, number == number[:, :, :, -1:])
    return _Same(*(pair.float() for pair in pairs))


class GatedNorm(nn.Module):
    """RMSNorm of each head, times SiLU of a gate: (..., d), (..., d) -> (..., d)"""

    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        h = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (self.weight * h.type_as(x) * F.silu(gate.float())).type_as(x)


class GatedDeltaNet(nn.Module):
    """The layer: projections, a short causal convolution of each feature, the gated delta rule, a gated norm.

    Called as Attention is, (B, T, D) -> (B, T, D); it is causal, needs no positions, and remembers tensors of fixed
    size: the memory of each head, and the last inputs of the convolution.

    Args:
        dim: D.
        num_heads: heads of values and memories.
        num_k_heads: heads of queries and keys, each for several of values; as `num_heads` when None.
        head_dim: d_v; D / num_heads when None.
        k_head_dim: d_k; as `head_dim` when None.
        conv_size: tokens that the convolution spans.
        eps: of the norm.
        chunk: tokens of a chunk in `delta_rule_chunked`.
    """

    path: str = ""
    memory = "sums"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_k_heads: int | None = None,
        head_dim: int | None = None,
        k_head_dim: int | None = None,
        *,
        conv_size: int = 4,
        eps: float = 1e-6,
        chunk: int = 64,
    ):
        super().__init__()
        heads, d_v = num_k_heads or num_heads, head_dim or dim // num_heads
        d_k = k_head_dim or d_v
        assert num_heads % heads == 0, f"{num_heads} value heads cannot share {heads} key heads"
        self.num_heads, self.k_head_dim, self.head_dim, self.chunk = num_heads, d_k, d_v, chunk
        self.widths = (heads * d_k, heads * d_k, num_heads * d_v)
        self.q_proj = nn.Linear(dim, heads * d_k, bias=False)
        self.k_proj = nn.Linear(dim, heads * d_k, bias=False)
        self.v_proj = nn.Linear(dim, num_heads * d_v, bias=False)
        self.gate_proj = nn.Linear(dim, num_heads * d_v, bias=False)
        self.decay_proj = nn.Linear(dim, num_heads, bias=False)
        self.beta_proj = nn.Linear(dim, num_heads, bias=False)
        channels = 2 * heads * d_k + num_heads * d_v
        self.conv = nn.Conv1d(channels, channels, conv_size, groups=channels, bias=False)
        self.a_log = nn.Parameter(torch.empty(num_heads).uniform_(0.01, 16).log())
        self.dt_bias = nn.Parameter(torch.ones(num_heads))
        self.norm = GatedNorm(d_v, eps)
        self.o_proj = nn.Linear(num_heads * d_v, dim, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        rows = Compact.of(context)
        x = rows.gather(x)
        memory = None if context.state is None else context.state.layers[self.path]
        kept = {} if memory is None or context.fresh else memory.tensors
        mixed, last = self._convolve(torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), -1), rows, kept)
        q, k, v = mixed.split(self.widths, -1)
        q, k, v = (
            t.unflatten(-1, (-1, d)) for t, d in ((q, self.k_head_dim), (k, self.k_head_dim), (v, self.head_dim))
        )
        # g = -e^A softplus(decay + dt),  b = sigmoid(beta)
        g = -self.a_log.float().exp() * F.softplus(self.decay_proj(x).float() + self.dt_bias)  # (B, T, H)
        b = self.beta_proj(x).sigmoid().float()
        if rows.real is not None:
            g, b = g * rows.real[..., None], b * rows.real[..., None]
        with in_float32(x):
            y, s = self._remember(q, k, v, g, b, kept.get("memory"), rows.starts)
        if memory is not None:
            memory.tensors = {"memory": s, "inputs": last}
        gate = self.gate_proj(x).unflatten(-1, (-1, self.head_dim))
        return rows.scatter(self.o_proj(self.norm(y.to(x.dtype), gate).flatten(-2)))

    def _convolve(self, u: Tensor, rows: Compact, kept: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """SiLU of the convolution with the inputs before, (B, T, C), and the inputs to keep, (B, size - 1, C)."""
        before = self.conv.kernel_size[0] - 1
        u = torch.cat((kept.get("inputs", u.new_zeros(len(u), before, u.shape[-1])), u), 1)  # (B, before + T, C)
        if rows.real is None:
            last = u[:, u.shape[1] - before :].clone()  # a view would keep the whole prompt
        else:
            index = rows.real.sum(1, keepdim=True) + torch.arange(before, device=u.device)  # the last real ones
            last = u.take_along_dim(index[..., None], 1)
        if u.shape[1] == before + 1 and rows.age is None:  # one token: torch's convolution is slow for it
            return F.silu((u * self.conv.weight[:, 0].T).sum(1, keepdim=True)), last
        if rows.age is None:
            return F.silu(self.conv(u.mT)).mT, last
        weight, length = self.conv.weight[:, 0], u.shape[1] - before
        taps = [
            u[:, tap : tap + length] * (rows.age >= before - tap)[..., None] * weight[:, tap]
            for tap in range(before + 1)
        ]
        return F.silu(torch.stack(taps).sum(0)), last

    def _remember(
        self, q: Tensor, k: Tensor, v: Tensor, g: Tensor, b: Tensor, s: Tensor | None, starts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The delta rule in float32, keys and queries of length 1. (B, T, heads, d) -> (B, T, H, d_v)"""
        q, k, v = (t.float() for t in (q, k, v))
        q, k = (t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        q = q * self.k_head_dim**-0.5
        q, k = (t.repeat_interleave(self.num_heads // t.shape[2], dim=2) for t in (q, k))
        q, k, v, g, b = (t.transpose(1, 2) for t in (q, k, v, g, b))
        if q.shape[2] == 1:
            y, s = delta_rule(q, k, v, g, b, s)
        else:
            y, s = delta_rule_chunked(q, k, v, g, b, s, self.chunk, starts)
        return y.transpose(1, 2), s
