"""RWKV-1 (Peng 2021), for reading: where the later versions come from. It has no recurrent form, so it is no family.

It is AFT (Zhai et al. 2021, an attention-free transformer), in which a learned weight for each pair of positions takes
the place of queries, with four changes: the weight depends on the distance alone, head by head (a circulant matrix); a
gate sigmoid(r) before the output (the receptance); half the features come from the token before; and the weights stay
out of the denominator:

    out_t = gamma_t W_o (sigmoid(r_t) * sum_{u<=t} w_{h,t-u} alpha_{h,u} beta_{h,t} e^{k_u} v_u / sum_{u<=t} e^{k_u})
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.layers.activations import mish


def shift_half(x: Tensor) -> Tensor:
    """The first half of the features from the token before, the rest from the token itself. (B, T, D) -> (B, T, D)"""
    half = x.shape[-1] // 2
    return torch.cat((F.pad(x[..., :half], (0, 0, 1, -1)), x[..., half:]), dim=-1)


class TimeMix1(nn.Module):
    """Time mixing. (B, T, D) -> (B, T, D)

    Args:
        dim: model width D.
        width: channels of r, k and v.
        num_heads: groups of channels with weights of their own.
        context: the most tokens; all position weights have as many entries.
    """

    def __init__(self, dim: int, width: int, num_heads: int, context: int):
        super().__init__()
        self.by_distance = nn.Parameter(torch.ones(num_heads, context))  # w; entry `context - 1 - d` for distance d
        self.alpha = nn.Parameter(torch.ones(num_heads, 1, context))
        self.beta = nn.Parameter(torch.ones(num_heads, context, 1))
        self.gamma = nn.Parameter(torch.ones(context, 1))
        self.r_proj, self.k_proj, self.v_proj = (nn.Linear(dim, width) for _ in range(3))
        self.o_proj = nn.Linear(width, dim)

    def weights(self, num_tokens: int) -> Tensor:
        """How much token t takes from token u, (H, T, T); nothing from later ones."""
        context = self.by_distance.shape[1]
        t = torch.arange(num_tokens, device=self.by_distance.device)
        distance = t[:, None] - t
        w = self.by_distance[:, (context - 1 - distance).clamp(max=context - 1)]
        return w.tril() * self.alpha[:, :, :num_tokens] * self.beta[:, :num_tokens]

    def forward(self, x: Tensor) -> Tensor:
        num_tokens, w = x.shape[1], self.weights(x.shape[1])
        x = shift_half(x)
        r, v = self.r_proj(x), self.v_proj(x)
        k = torch.exp(self.k_proj(x).clamp(-60, 30))
        kv = (k * v).unflatten(-1, (len(w), -1))  # (B, T, H, d)
        mean = torch.einsum("htu,buhd->bthd", w, kv).flatten(2) / k.cumsum(dim=1)
        return self.o_proj(torch.sigmoid(r) * mean) * self.gamma[:num_tokens]


class ChannelMix1(nn.Module):
    """Channel mixing: sigmoid(r) * W (mish(k) * v), as a gated MLP with one more gate. (B, T, D) -> (B, T, D)"""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.up_proj, self.gate_proj = nn.Linear(dim, hidden), nn.Linear(dim, hidden)  # v and k
        self.down_proj = nn.Linear(hidden, dim)
        self.r_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = shift_half(x)
        return torch.sigmoid(self.r_proj(x)) * self.down_proj(mish(self.gate_proj(x)) * self.up_proj(x))
