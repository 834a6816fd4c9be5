"""Expert choice: experts take tokens, not tokens experts."""

from typing import Any

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.routing import Routing


class ExpertChoiceGate(Gate):
    """In training each expert takes the k N / E tokens with the largest softmax(W x)_e: loads are even by construction,
    and a token gets as many experts as want it, or none (Zhou et al. 2022).

    Which tokens an expert takes depends on later tokens too, so a decoder cannot do it while it writes: in evaluation
    each token goes to its k best experts, with the same weights.

    Args:
        dim: D.
        num_experts: E.
        k: experts a token, on average.
        settings: as for `Gate`.
    """

    def __init__(self, dim: int, num_experts: int, k: int = 2, **settings: Any):
        super().__init__(dim, num_experts, **settings)
        self.k = k

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        g = logits.softmax(dim=-1)
        if not self.training:
            weights, experts = g.topk(self.k, dim=-1)
            return Routing(experts, weights, g, self.num_experts)
        wanted = g if real is None else g.masked_fill(~real[:, None], -1.0)
        tokens = len(g) if real is None else int(real.sum())
        taken = wanted.topk(min(max(self.k * tokens // self.num_experts, 1), len(g)), dim=0).indices  # (C, E)
        chosen = torch.zeros_like(g, dtype=torch.bool).scatter_(0, taken, True)
        experts = torch.arange(self.num_experts, device=g.device).expand_as(g)
        return Routing(experts, g, g, self.num_experts).without(~chosen)
