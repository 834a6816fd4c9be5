"""Soft caps: scores and logits are bent to stay within a bound, cap * tanh(x / cap) (Bello et al. 2017; Gemma 2)."""

import math

import torch
from torch import Tensor, nn

from groundup.layers.attention import AttentionCore
from groundup.layers.masks import Mask


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Bend: cap * tanh(x / cap), near x where |x| is small, never beyond cap."""
    return cap * torch.tanh(x / cap)


class CappedAttentionCore(AttentionCore):
    """AttentionCore whose scaled scores are capped before the mask. Kernels have no room for it: it goes step by step.

    Args:
        cap: bound of the scores.
        dropout: see AttentionCore.
        scale: see AttentionCore.
    """

    def __init__(self, cap: float, dropout: float = 0.0, scale: float | None = None):
        super().__init__(dropout, scale)
        self.cap = cap

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        weights = nn.functional.dropout(self.weights(q, k, mask), self.dropout, self.training)
        groups = q.shape[1] // k.shape[1]
        return (weights.unflatten(1, (-1, groups)) @ v[:, :, None]).flatten(1, 2)

    def weights(self, q: Tensor, k: Tensor, mask: Mask) -> Tensor:
        scale = 1 / math.sqrt(q.shape[-1]) if self.scale is None else self.scale
        grouped = q.unflatten(1, (k.shape[1], -1))  # (B, K, H/K, T, d)
        scores = soft_cap((grouped @ k[:, :, None].mT).flatten(1, 2) * scale, self.cap)  # (B, H, T, S)
        if mask.bias is not None:
            return (scores + mask.bias.to(scores.dtype)).softmax(dim=-1)
        if not mask.causal and mask.allowed is None:
            return scores.softmax(dim=-1)
        allowed = mask.dense(q.shape[2], k.shape[2], q.device)
        return scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1)


class CappedLinear(nn.Linear):
    """A linear layer without bias whose outputs are capped: an output head. (..., D) -> (..., V)

    Args:
        dim: D.
        vocab: V.
        cap: bound of the outputs.
    """

    def __init__(self, dim: int, vocab: int, cap: float):
        super().__init__(dim, vocab, bias=False)
        self.cap = cap

    def forward(self, input: Tensor) -> Tensor:
        return self.bend(super().forward(input))

    def bend(self, y: Tensor) -> Tensor:
        """What follows the product; what is added to the product (`adapters`) goes before it."""
        return soft_cap(y, self.cap)
