"""What a gate decides."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Which experts each token goes to.

    Attributes:
        experts: (N, k) int64; `num_experts` where a place is empty: padding, or a full expert.
        weights: (N, k) float32, what each expert's result is multiplied by.
        scores: (N, E) float32, what the choice was made from: probabilities, or the scores of a sigmoid.
        num_experts: E.
        complete: no place is empty, known without looking.
    """

    experts: Tensor
    weights: Tensor
    scores: Tensor
    num_experts: int
    complete: bool = True

    @property
    def loads(self) -> Tensor:
        """How many tokens each expert got, (E,) int64."""
        return count(self.experts, self.num_experts)

    @property
    def dropped(self) -> Tensor:
        """(N,) bool: the tokens that no expert took; the residual stream alone carries them on."""
        return (self.experts == self.num_experts).all(dim=1)

    def detach(self) -> "Routing":
        """The same without gradient history."""
        return replace(self, weights=self.weights.detach(), scores=self.scores.detach())

    def without(self, empty: Tensor) -> "Routing":
        """With these places emptied. empty (N, k) or (N, 1) bool"""
        experts = self.experts.masked_fill(empty, self.num_experts)
        return replace(self, experts=experts, weights=self.weights.masked_fill(empty, 0.0), complete=False)


def count(experts: Tensor, num_experts: int) -> Tensor:
    """How often each expert occurs, (E,) int64; empty places (E) are not counted."""
    counts = torch.zeros(num_experts + 1, dtype=torch.int64, device=experts.device)
    return counts.scatter_add_(0, experts.flatten(), torch.ones_like(experts.flatten()))[:num_experts]


def places(experts: Tensor, num_experts: int) -> Tensor:
    """Each choice's number among those of the same expert, from 0, in the order of `experts`. (M,) -> (M,) int64"""
    order = experts.argsort(stable=True)
    sizes = torch.zeros(num_experts + 1, dtype=torch.int64, device=experts.device)
    sizes.scatter_add_(0, experts, torch.ones_like(experts))
    starts = sizes.cumsum(0) - sizes
    numbers = torch.arange(len(experts), device=experts.device) - starts[experts[order]]
    return torch.empty_like(experts).scatter_(0, order, numbers)


def limit(routing: Routing, capacity: Tensor) -> Routing:
    """Empty the places beyond an expert's capacity: all first choices go before all second ones, and within each the
    earlier token goes first (Lepikhin et al. 2020, GShard, algorithm 1).

    Args:
        routing: experts in the order of preference along k.
        capacity: tokens that an expert takes, a number as a tensor ().
    """
    tokens, k = routing.experts.shape
    by_choice = routing.experts.T.flatten()  # (k N,): first choices, then second ones
    number = places(by_choice, routing.num_experts).view(k, tokens).T
    return routing.without(number >= capacity)
