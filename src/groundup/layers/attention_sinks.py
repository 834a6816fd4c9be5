"""Attention that may go nowhere (Miller 2023, softmax off by one; Xiao et al. 2023, attention sinks; gpt-oss 2025)."""

import torch
from torch import Tensor, nn

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask


class SinkCore(AttentionCore):
    """exp(s_j) / (exp(sink_h) + sum_i exp(s_i)): each head has a learned score that takes part in softmax and has no
    value, so the weights of a query sum to less than 1, to almost nothing where no key matters.

    Args:
        num_heads: H.
        dropout, scale: see AttentionCore.

    Attributes:
        sinks: (H,), the learned scores.
    """

    def __init__(self, num_heads: int, dropout: float = 0.0, scale: float | None = None):
        super().__init__(dropout, scale)
        self.sinks = nn.Parameter(torch.zeros(num_heads))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        # The sink is one more key, of zeros, with the score added to it; its value is zeros too.
        bias = mask.bias
        if bias is None:
            allowed = mask.dense(q.shape[2], k.shape[2], q.device)
            bias = torch.zeros(allowed.shape, dtype=q.dtype, device=q.device).masked_fill(~allowed, -torch.inf)
        sinks = self.sinks.to(q.dtype)[None, :, None, None]  # (1, H, 1, 1)
        shape = (bias.shape[0], q.shape[1], bias.shape[2], -1)
        bias = torch.cat((sinks.expand(*shape[:3], 1), bias.to(q.dtype).expand(*shape)), dim=-1)  # (B|1, H, T, 1 + S)
        k, v = (torch.cat((torch.zeros_like(x[:, :, :1]), x), dim=2) for x in (k, v))
        return super().forward(q, k, v, Mask(bias=bias))

    def weights(self, q: Tensor, k: Tensor, mask: Mask) -> Tensor:
        """The attention weights without the sink's, (B, H, T, S); rows sum to less than 1."""
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = q @ k.mT * scale
        if mask.bias is not None:
            scores = scores + mask.bias.to(scores.dtype)
        else:
            scores = scores.masked_fill(~mask.dense(q.shape[2], k.shape[2], q.device), -torch.inf)
        sinks = self.sinks[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.cat((sinks, scores), dim=-1).softmax(dim=-1)[..., 1:]
