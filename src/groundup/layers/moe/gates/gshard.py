"""GShard's gate: the best expert, and the second best by chance."""

from typing import Any

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.losses import importance, num_real
from groundup.layers.moe.routing import Routing, count


class GShardGate(Gate):
    """The first expert always, the second with probability min(2 g, 1), weights divided by their sum; an expert takes
    at most 2 N / E tokens, and what it has no room for passes by on the residual stream (Lepikhin et al. 2020).

    The loss is balance / N sum_e m_e c_e for N tokens together: c_e counts choices, m_e sums softmax. In
    evaluation the second expert is always taken, so that the result is the same every time. GShard itself divides by
    g1 + g2 before it draws; here the weights of what was drawn sum to 1.

    Args:
        dim: D.
        num_experts: E.
        balance: coefficient of the loss.
        capacity: as a multiple of N / E.
        settings: as for `Gate`.
    """

    def __init__(
        self, dim: int, num_experts: int, *, balance: float = 0.01, capacity: float | None = 2.0, **settings: Any
    ):
        super().__init__(dim, num_experts, balance=balance, capacity=capacity, **settings)

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        g = logits.softmax(dim=-1)
        weights, experts = g.topk(2, dim=-1)
        routing = Routing(experts, weights, g, self.num_experts)
        if self.training:
            absent = torch.rand_like(weights[:, 1]) >= (2 * weights[:, 1]).clamp(max=1)
            routing = routing.without(torch.stack((torch.zeros_like(absent), absent), dim=1))
        weights = routing.weights / routing.weights.sum(dim=1, keepdim=True)
        return Routing(routing.experts, weights, g, self.num_experts, routing.complete)

    def imbalance(self, routing: Routing, logits: Tensor, real: Tensor | None) -> Tensor:
        """sum_e (m_e / N) (c_e / N)"""
        tokens, loads = num_real(logits, real), count(routing.experts, self.num_experts)
        return (importance(routing.scores, real) / tokens * loads / tokens).sum()
