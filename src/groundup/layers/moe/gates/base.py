"""The gate of BASE layers: as many tokens for every expert, by assignment and without a loss."""

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.routing import Routing


class BaseGate(Gate):
    """In training the assignment of N / E tokens to each expert that maximises the sum of w_a(t) . x_t; in evaluation
    each token's best expert. The weight is sigmoid(w_a . x) (Lewis et al. 2021, BASE Layers).

    Where E does not divide N, an expert gets at most N / E rounded up. Padding is not assigned.
    """

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        experts = logits.argmax(dim=-1)
        if self.training and real is None:
            experts = balanced_assignment(logits.detach())
        elif self.training:
            experts[real] = balanced_assignment(logits.detach()[real])
        weights = logits.gather(1, experts[:, None]).sigmoid()
        return Routing(experts[:, None], weights, logits.sigmoid(), self.num_experts)


@torch.no_grad()
def balanced_assignment(scores: Tensor, tolerance: float = 1e-3) -> Tensor:
    """Assign every token to an expert, at most N / E (rounded up) to each, with the largest sum of scores.

    The auction algorithm (Bertsekas 1992): tokens bid for the expert they value most at its price; an expert keeps the
    highest bids, and when it is full its price is the lowest of them; who is outbid bids again.

        bid = price + (best value - second best value) + step,   value = score - price

    The sum comes within N step of the largest one.

    Args:
        scores: (N, E).
        tolerance: the step, as a share of the scores' range; smaller is closer and slower.

    Returns:
        (N,) int64
    """
    tokens, num_experts = scores.shape
    if num_experts == 1 or not tokens:
        return scores.new_zeros(tokens, dtype=torch.int64)
    scores = scores.double()
    room = -(-tokens // num_experts)
    step = tolerance * (scores.max() - scores.min()).clamp(min=1e-12)
    prices = scores.new_zeros(num_experts)
    bids = torch.full_like(scores, -torch.inf)  # one a row: the token's standing bid
    homeless = torch.ones(tokens, dtype=torch.bool, device=scores.device)
    while homeless.any():
        value, wanted = (scores[homeless] - prices).topk(2, dim=1)
        bids[homeless, wanted[:, 0]] = prices[wanted[:, 0]] + value[:, 0] - value[:, 1] + step
        kept = bids.topk(room, dim=0)  # (room, E)
        held = torch.full_like(bids, -torch.inf).scatter_(0, kept.indices, kept.values)
        bids, prices = held, kept.values[-1].clamp(min=0)  # -inf, so price 0, where there is room left
        homeless = bids.amax(dim=1) == -torch.inf
    return bids.argmax(dim=1)
