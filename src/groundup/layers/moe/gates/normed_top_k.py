"""Gemma 4's gate (2026): top-k of a normalised token, with a learned factor for each expert."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from groundup.layers.moe.gates.top_k import TopKGate
from groundup.layers.moe.routing import Routing
from groundup.layers.norms import PlainRMSNorm


class NormedTopKGate(TopKGate):
    """The k largest of softmax(W (s x / rms(x)) / sqrt(D)), made to sum to 1, each times its expert's factor.

    Args:
        dim: D.
        num_experts: E.
        k: experts a token.
        eps: added to the mean square.
        settings: as for `Gate`.

    Attributes:
        scale: (D,), s.
        expert_scale: (E,), the factors.
    """

    def __init__(self, dim: int, num_experts: int, k: int, *, eps: float = 1e-6, **settings: Any):
        super().__init__(dim, num_experts, k, normalise=True, **settings)
        self.norm = PlainRMSNorm(eps)
        self.scale = nn.Parameter(torch.ones(dim))
        self.expert_scale = nn.Parameter(torch.ones(num_experts))

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(self.norm(x) * self.scale * x.shape[-1] ** -0.5)

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        routing = super().choose(logits, real)
        return replace(routing, weights=routing.weights * self.expert_scale.float()[routing.experts])
