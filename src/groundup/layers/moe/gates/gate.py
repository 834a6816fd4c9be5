"""What all gates share: logits in float32, losses, padding, capacity."""

from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from groundup.layers.moe.losses import balance_loss, num_real, with_loss, z_loss
from groundup.layers.moe.routing import Routing, count, limit


class Gate(nn.Module):
    """A linear map from a token to one logit an expert, and `choose`, which a kind of gate overrides.

    Args:
        dim: D.
        num_experts: E.
        bias: whether the logits have a bias.
        balance: coefficient of the loss that evens the loads, in training; 0 for none.
        z: coefficient of the loss that keeps logits small, in training; 0 for none.
        jitter: in training each feature that the gate sees is multiplied by U(1 - jitter, 1 + jitter) (Fedus et al.
            2021).
        capacity: tokens that an expert takes in training, as a multiple of N / E; None for any number.
        eval_capacity: the same in evaluation, where by default no token is dropped. With a state none ever is: what a
            step computes may not depend on the other rows.
    """

    def __init__(
        self,
        dim: int,
        num_experts: int,
        *,
        bias: bool = False,
        balance: float = 0.0,
        z: float = 0.0,
        jitter: float = 0.0,
        capacity: float | None = None,
        eval_capacity: float | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, dim))
        self.bias = nn.Parameter(torch.zeros(num_experts)) if bias else None
        nn.init.normal_(self.weight, std=0.02)
        self.balance, self.z, self.jitter = balance, z, jitter
        self.capacity, self.eval_capacity = capacity, eval_capacity

    @property
    def num_experts(self) -> int:
        """E."""
        return self.weight.shape[0]

    def forward(self, x: Tensor, real: Tensor | None = None, decoding: bool = False) -> Routing:
        """Decide.

        Args:
            x: (N, D) tokens.
            real: (N,) bool, False for padding, which goes nowhere and counts for nothing; None when there is none.
            decoding: a state remembers earlier tokens: no token is dropped.
        """
        logits = self.logits(x)
        routing = self.choose(logits, real)
        if real is not None:
            routing = routing.without(~real[:, None])
        if self.training and (self.balance or self.z):
            total = self.loss(routing, logits, real) * num_real(logits, real)
            routing = replace(routing, weights=with_loss(routing.weights, total))
        factor = self.capacity if self.training else self.eval_capacity
        if factor is None or decoding:
            return routing
        return limit(routing, factor * num_real(logits, real) / self.num_experts)

    def logits(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, E), computed in float32 whatever the weights are: near ties would be decided by rounding."""
        if self.training and self.jitter:
            x = x * torch.empty_like(x).uniform_(1 - self.jitter, 1 + self.jitter)
        kind = x.device.type
        with torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext():
            return F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    def choose(self, logits: Tensor, real: Tensor | None) -> Routing:
        """The choice, as if there were room for all. (N, E) -> Routing"""
        raise NotImplementedError

    def imbalance(self, routing: Routing, logits: Tensor, real: Tensor | None) -> Tensor:
        """How uneven the loads are, (): what `balance` multiplies."""
        return balance_loss(logits.softmax(dim=-1), count(routing.experts, self.num_experts), real)

    def loss(self, routing: Routing, logits: Tensor, real: Tensor | None) -> Tensor:
        """What the gate adds to the loss of a token, ()."""
        loss = torch.zeros((), device=logits.device)
        if self.balance:
            loss = loss + self.balance * self.imbalance(routing, logits, real)
        return loss + self.z * z_loss(logits, real) if self.z else loss
