"""Feed-forward networks of one token a row in one compiled call: a single one, or the experts chosen for each token."""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.generation.few_rows.kinds import GELU, RELU, SILU, SQUARED_RELU, TANH_GELU
from groundup.generation.few_rows.linear import (
    LIKE,
    MOST_ROWS,
    WIDEST_STEP,
    address,
    kernels,
    same_weights,
    stored_of,
)
from groundup.layers.activations import squared_relu
from groundup.layers.feedforward import MLP, GatedMLP
from groundup.layers.moe.experts import ClampedExperts, Experts, GatedExperts
from groundup.layers.moe.routing import Routing
from groundup.quantization.linear import QuantizedLinear


def kind_of(act: Any) -> int:
    """What the compiled functions call an activation; 0 for one that they do not know."""
    if isinstance(act, partial):
        return TANH_GELU if act.func is F.gelu and act.keywords == {"approximate": "tanh"} else 0
    return {F.relu: RELU, squared_relu: SQUARED_RELU, F.gelu: GELU, F.silu: SILU}.get(act, 0)


def feeds_plainly(mlp: Any) -> bool:
    """Whether the compiled step computes what this feed-forward network does."""
    if type(mlp) not in (MLP, GatedMLP) or kind_of(mlp.act) == 0:
        return False
    return same_weights([m for m in mlp.children() if isinstance(m, nn.Linear | QuantizedLinear)])


def chooses_plainly(experts: Any) -> bool:
    """Whether the compiled step computes what these experts do."""
    if type(experts) not in (Experts, GatedExperts, ClampedExperts):
        return False
    weights = [experts.up_proj.weight, experts.down_proj.weight]
    known = type(experts) is ClampedExperts or kind_of(experts.act) != 0
    return known and all(weight.shape[2] % WIDEST_STEP == 0 and weight.dtype in LIKE for weight in weights)


class FewRowsMLP(nn.Module):
    """A network for few tokens; more go through the one it was made from. (B, T, D) float32 -> (B, T, D)"""

    def __init__(self, mlp: Any):
        super().__init__()
        self.mlp = mlp
        gate, up, down = getattr(mlp, "gate_proj", None), mlp.up_proj, mlp.down_proj
        parts = (gate, up, down)
        self.stored = [stored_of(p) for p in parts]
        weights = tuple(one.address for one in self.stored)
        biases = tuple(0 if p is None else address(p.bias) for p in parts)
        self.plan = ((weights, biases), kind_of(mlp.act), self.stored[1].shape[0])
        self.like = self.stored[1].like

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() // x.shape[-1] > MOST_ROWS:
            return self.mlp(x)
        h = x.contiguous()
        out = torch.empty_like(h)
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.mlp_step(*self.plan, h.flatten(0, -2).numpy(), out.flatten(0, -2).numpy(), self.like)
        return out


class FewRowsExperts(nn.Module):
    """Experts for few choices; more go through those it was made from. (N, D) float32 -> (N, D)"""

    def __init__(self, experts: Any):
        super().__init__()
        self.experts = experts
        parts = (getattr(experts, "gate_proj", None), experts.up_proj, experts.down_proj)
        self.kept = [None if p is None or p.bias is None else p.bias.detach().float() for p in parts]
        weights = tuple(0 if p is None else p.weight.data_ptr() for p in parts)
        clamp = (np.float32(getattr(experts, "alpha", 0.0)), np.float32(getattr(experts, "limit", 0.0)))
        kind = 0 if type(experts) is ClampedExperts else kind_of(experts.act)
        self.plan = ((weights, tuple(map(address, self.kept))), kind, experts.up_proj.weight.shape[1], clamp)
        self.like = LIKE[experts.up_proj.weight.dtype]

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(N, D) -> (N, D)"""
        if routing.experts.numel() > MOST_ROWS:
            return self.experts(x, routing)
        experts, shares = routing.experts.flatten(), routing.weights.float().flatten()
        source = torch.arange(len(x)).repeat_interleave(routing.experts.shape[1])
        if not routing.complete:
            there = experts < routing.num_experts
            experts, shares, source = experts[there], shares[there], source[there]
        h = x.contiguous()
        out = torch.empty_like(h)
        choices = (part.contiguous().numpy() for part in (source, experts, shares))
        compiled = kernels()
        with compiled.one_at_a_time:
            compiled.experts_step(*self.plan, h.numpy(), *choices, out.numpy(), self.like)
        return out
