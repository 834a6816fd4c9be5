"""The gate of FacebookMoE: always two experts, weighed by what had room."""

from dataclasses import replace

import torch
from torch import Tensor

from groundup.layers.moe.gates.gshard import GShardGate
from groundup.layers.moe.losses import balance_loss
from groundup.layers.moe.routing import Routing, count


class Top2Gate(GShardGate):
    """The two best experts of each token, at most 2 N / E tokens an expert; the weights of those that had room sum to 1
    (Artetxe et al. 2021, whose code is fairseq's). From GShard: the second expert is not drawn, and weights are divided
    after tokens are dropped, so that one that lost its second expert has its first alone.

    The loss is balance E sum_e (c_e / N) (m_e / N), where c_e counts first choices alone.

    Arguments as for `GShardGate`.
    """

    def forward(self, x: Tensor, real: Tensor | None = None, decoding: bool = False) -> Routing:
        routing = super().forward(x, real, decoding)
        total = routing.weights.sum(dim=1, keepdim=True)
        return replace(routing, weights=routing.weights / total.clamp(min=torch.finfo(total.dtype).eps))

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        g = logits.softmax(dim=-1)
        weights, experts = g.topk(2, dim=-1)
        return Routing(experts, weights, g, self.num_experts)

    def imbalance(self, routing: Routing, logits: Tensor, real: Tensor | None) -> Tensor:
        """E sum_e (c_e / N) (m_e / N) of first choices."""
        return balance_loss(routing.scores, count(routing.experts[:, 0], self.num_experts), real)
