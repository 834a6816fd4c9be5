"""The gate of Mixtral, Qwen-MoE and OLMoE: the k experts with the largest logits."""

from typing import Any

from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.routing import Routing


class TopKGate(Gate):
    """The k largest of softmax(W x) and, where `normalise` says so, divided by their sum, which is the same as the
    softmax over the k largest logits alone (Shazeer et al. 2017 without the noise; Jiang et al. 2024, Mixtral).

    Args:
        dim: D.
        num_experts: E.
        k: experts a token.
        normalise: whether the k weights are made to sum to 1.
        settings: as for `Gate`.
    """

    def __init__(self, dim: int, num_experts: int, k: int = 2, *, normalise: bool = True, **settings: Any):
        super().__init__(dim, num_experts, **settings)
        self.k, self.normalise = k, normalise

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        probabilities = logits.softmax(dim=-1)
        weights, experts = probabilities.topk(self.k, dim=-1)
        if self.normalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        return Routing(experts, weights, probabilities, self.num_experts)
