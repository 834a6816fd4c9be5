"""DeepSeek-V2's gate: experts stand in groups, one a device, and a token visits few groups."""

from typing import Any

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.routing import Routing


class GroupLimitedGate(Gate):
    """The k largest of softmax(W x) among the experts of the best groups, a group as good as its best expert; weights
    are the probabilities times a factor (DeepSeek-AI 2024, DeepSeek-V2).

    Args:
        dim: D.
        num_experts: E.
        k: experts a token.
        num_groups: into how many the experts are divided; 1 for no limit.
        kept_groups: groups a token may visit.
        scale: factor of the weights.
        settings: as for `Gate`.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        k: int,
        *,
        num_groups: int = 1,
        kept_groups: int = 1,
        scale: float = 1.0,
        **settings: Any,
    ):
        super().__init__(dim, num_experts, **settings)
        self.k, self.num_groups, self.kept_groups, self.scale = k, num_groups, kept_groups, scale

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        g = logits.softmax(dim=-1)
        allowed = best_groups(g, self.num_groups, self.kept_groups, best=1)
        weights, experts = g.masked_fill(~allowed, 0.0).topk(self.k, dim=-1)
        return Routing(experts, weights * self.scale, g, self.num_experts)


def best_groups(scores: Tensor, num_groups: int, kept: int, best: int) -> Tensor:
    """The experts of each token's `kept` best groups, a group judged by the sum of its `best` largest scores.

    (N, E) -> (N, E) bool
    """
    if kept >= num_groups:
        return torch.ones_like(scores, dtype=torch.bool)
    grouped = scores.unflatten(1, (num_groups, -1))  # (N, G, E / G)
    judged = grouped.topk(best, dim=-1).values.sum(-1)
    chosen = torch.zeros_like(judged, dtype=torch.bool).scatter_(1, judged.topk(kept, dim=-1).indices, True)
    return chosen[:, :, None].expand_as(grouped).flatten(1)
