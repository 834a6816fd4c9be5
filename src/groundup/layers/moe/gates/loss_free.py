"""DeepSeek-V3's gate: loads are evened by a bias on the choice, not by a loss."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.layers.moe.gates.gate import Gate
from groundup.layers.moe.gates.group_limited import best_groups
from groundup.layers.moe.losses import balance_loss
from groundup.layers.moe.routing import Routing


class LossFreeGate(Gate):
    """Experts are chosen by sigmoid(W x) + b and weighted by sigmoid(W x) alone, divided by the sum of the chosen and
    multiplied by a factor (Wang et al. 2024, auxiliary-loss-free balancing; DeepSeek-AI 2024, DeepSeek-V3).

    b is no parameter: after each update of the weights an expert with fewer tokens than the mean gains `rate`, one with
    more loses it. The training loop does this through `end_step`. A group is judged by its two best experts.

    Args:
        dim: D.
        num_experts: E.
        k: experts a token.
        num_groups: into how many the experts are divided; 1 for no limit.
        kept_groups: groups a token may visit.
        normalise: whether the k weights are divided by their sum.
        scale: factor of the weights.
        rate: by what the bias of an expert moves in a step.
        settings: as for `Gate`.
    """

    correction: Tensor

    def __init__(
        self,
        dim: int,
        num_experts: int,
        k: int,
        *,
        num_groups: int = 1,
        kept_groups: int = 1,
        normalise: bool = True,
        scale: float = 1.0,
        rate: float = 0.001,
        **settings: Any,
    ):
        super().__init__(dim, num_experts, **settings)
        self.k, self.num_groups, self.kept_groups = k, num_groups, kept_groups
        self.normalise, self.scale, self.rate = normalise, scale, rate
        self.register_buffer("correction", torch.zeros(num_experts))
        self._pending: Tensor | None = None  # loads since the last update of the weights

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        scores = logits.sigmoid()
        ranked = scores + self.correction.float()
        allowed = best_groups(ranked, self.num_groups, self.kept_groups, best=2)
        experts = ranked.masked_fill(~allowed, -torch.inf).topk(self.k, dim=-1).indices
        weights = scores.gather(1, experts)
        if self.normalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        routing = Routing(experts, weights * self.scale, scores, self.num_experts)
        if self.training and torch.is_grad_enabled():
            self._count(routing if real is None else routing.without(~real[:, None]))
        return routing

    def _count(self, routing: Routing) -> None:
        loads = routing.loads.float()
        self._pending = loads if self._pending is None else self._pending + loads

    def imbalance(self, routing: Routing, logits: Tensor, real: Tensor | None) -> Tensor:
        """Of the scores divided by their sum, where a small loss is used all the same (DeepSeek-V3, equation 17)."""
        shares = routing.scores / routing.scores.sum(dim=-1, keepdim=True)
        return balance_loss(shares, routing.loads, real)

    def end_step(self, applied: bool, sum_: Callable[[Sequence[Tensor]], None]) -> None:
        """b_e <- b_e + rate sign(mean c - c_e), with the loads c of the step that ends.

        Args:
            applied: whether the weights were updated; if not, the loads are forgotten.
            sum_: adds tensors over the ranks, in place.
        """
        loads = torch.zeros_like(self.correction) if self._pending is None else self._pending
        sum_([loads])
        self._pending = None
        if applied:
            self.correction.add_((loads.mean() - loads).sign().to(self.correction.dtype), alpha=self.rate)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "LossFreeGate":
        """Moves like any module, but the biases stay float32: steps of 0.001 would be lost in bfloat16."""
        kept = self.correction
        super()._apply(fn, recurse)
        if self.correction.dtype != kept.dtype:
            self.correction = kept.to(self.correction.device)
        return self
