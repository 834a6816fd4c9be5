"""Multi-head latent attention: keys and values of all heads come from one small vector a token (DeepSeek-AI 2024,
DeepSeek-V2), and that vector is all that has to be remembered.

    c = norm(x W_down)                       latent, width r
    k_h = [c W_kh ; rope(x W_rope)]          a head's key: from the latent, and a rotary part that all heads share
    v_h = c W_vh
    q_h = [.. ; rope(..)]                    from x, or from a latent of its own

A cache of Attention holds 2 K d numbers a token and layer, this one r + d_rope: for DeepSeek-V3 576 in place of 40,960
(128 keys of 192 and values of 128).

The matrices that make keys and values can change sides, which gives the *absorbed* form:

    q_h . k_h = (q_h W_kh^T) . c + rotary part          sum_s p_s v_s = (sum_s p_s c_s) W_vh

Then all heads attend to the latents themselves, as multi-query attention with wide heads, and nothing that grows with
the text is multiplied by W_k or W_v. Both forms are here: the expanded one for many new tokens, the absorbed one where
few new tokens look at many old ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from groundup.layers.attention import AttentionCore
from groundup.layers.context import Context
from groundup.layers.masks import Causal, MaskRule
from groundup.layers.rope import Rope


class LatentCore(AttentionCore):
    """The core of latent attention: values are narrower than keys, which most kernels do not take."""


class LatentAttention(nn.Module):
    """(B, T, D) -> (B, T, D)

    Args:
        dim: D.
        num_heads: H.
        latent_dim: r, of keys and values.
        query_latent_dim: of the queries' own latent; None to project them from x.
        plain_dim: features of a head's query and key without positions.
        value_dim: features of a head's value.
        rope: of the rotary part; its `dim` is the width of that part.
        norm: makes the norm of a latent from its width.
        mask: who sees whom.
        bias: biases on the projections from x and back to it.
        dropout: of the attention weights.
        scale: of the scores; 1 / sqrt(plain_dim + rope.dim) when None.
    """

    path: str = ""
    """Dotted name of this module in its model: the name of its part of the state."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        latent_dim: int,
        query_latent_dim: int | None,
        plain_dim: int,
        value_dim: int,
        rope: Rope,
        norm: Callable[[int], nn.Module],
        mask: MaskRule = Causal(),
        bias: bool = False,
        dropout: float = 0.0,
        scale: float | None = None,
    ):
        super().__init__()
        self.plain_dim, self.value_dim, self.rope, self.mask = plain_dim, value_dim, rope, mask
        width = plain_dim + rope.dim
        if query_latent_dim is None:
            self.q_down_proj = self.q_norm = None
        else:
            self.q_down_proj, self.q_norm = nn.Linear(dim, query_latent_dim, bias), norm(query_latent_dim)
        self.q_proj = nn.Linear(query_latent_dim or dim, num_heads * width, bias=False)
        self.kv_down_proj = nn.Linear(dim, latent_dim, bias)
        self.k_rope_proj = nn.Linear(dim, rope.dim, bias)
        self.kv_norm = norm(latent_dim)
        self.k_proj = nn.Linear(latent_dim, num_heads * plain_dim, bias=False)
        self.v_proj = nn.Linear(latent_dim, num_heads * value_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * value_dim, dim, bias)
        self.core = LatentCore(dropout, width**-0.5 if scale is None else scale)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = x if self.q_down_proj is None else self.q_norm(self.q_down_proj(x))  # type: ignore[misc]
        q = self.q_proj(q).unflatten(-1, (-1, self.plain_dim + self.rope.dim))  # (B, T, H, plain + rope)
        q, q_rope = q.split((self.plain_dim, self.rope.dim), dim=-1)
        latent, k_rope = (
            self.kv_norm(self.kv_down_proj(x)),
            self.k_rope_proj(x)[:, :, None],
        )  # (B, T, r), (B, T, 1, d_r)
        tables = context.rotation(self.rope, q.dtype)
        q_rope, k_rope = self.rope.rotate(q_rope, tables), self.rope.rotate(k_rope, tables)
        seen = torch.cat((latent, k_rope[:, :, 0]), dim=-1)[:, None]  # (B, 1, T, r + d_r): what is remembered
        if context.state is not None:
            seen = context.state.layers[self.path].extend(seen, context.placement)
        attend = self.absorbed if self.prefers_absorbed(x.shape[1], context) else self.expanded
        y = attend(q.transpose(1, 2), q_rope.transpose(1, 2), seen, context)  # (B, H, T, value)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def prefers_absorbed(self, num_tokens: int, context: Context) -> bool:
        """Whether old tokens are many enough for the absorbed form to multiply less.

        For each old token and head the expanded form multiplies r (plain + value) numbers to make its key and value,
        and plain + rope + value for each query; the absorbed one 2 r + rope for each query. Layers and cores that were
        exchanged or adapted expect the keys and values of heads.
        """
        plain_layers = type(self.k_proj) is nn.Linear and type(self.v_proj) is nn.Linear
        if context.fresh or not plain_layers or type(self.core) is not LatentCore:
            return False
        rank, both = self.kv_down_proj.out_features, self.plain_dim + self.value_dim
        return num_tokens * (2 * rank - both) < rank * both

    def expanded(self, q: Tensor, q_rope: Tensor, seen: Tensor, context: Context) -> Tensor:
        """Keys and values of every head are made from the latents. q (B, H, T, plain), q_rope (B, H, T, d_r), seen
        (B, 1, S, r + d_r) -> (B, H, T, value)
        """
        latent, k_rope = seen.split((seen.shape[-1] - self.rope.dim, self.rope.dim), dim=-1)
        k = self.k_proj(latent[:, 0]).unflatten(-1, (-1, self.plain_dim)).transpose(1, 2)  # (B, H, S, plain)
        v = self.v_proj(latent[:, 0]).unflatten(-1, (-1, self.value_dim)).transpose(1, 2)
        k = torch.cat((k, k_rope.expand(-1, k.shape[1], -1, -1)), dim=-1)
        return self.core(torch.cat((q, q_rope), dim=-1), k, v, context.mask(self.mask))

    def absorbed(self, q: Tensor, q_rope: Tensor, seen: Tensor, context: Context) -> Tensor:
        """Queries go into the space of the latents, results come back from it. Arguments and result as `expanded`."""
        rank = seen.shape[-1] - self.rope.dim
        w_k = self.k_proj.weight.unflatten(0, (-1, self.plain_dim))  # (H, plain, r)
        w_v = self.v_proj.weight.unflatten(0, (-1, self.value_dim))  # (H, value, r)
        q = torch.cat((q @ w_k, q_rope), dim=-1)  # (B, H, T, r + d_r)
        y = self.core(q, seen, seen[..., :rank], context.mask(self.mask))  # (B, H, T, r)
        return y @ w_v.mT
