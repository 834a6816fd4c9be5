"""Norms in one compiled call."""

from typing import Any

import torch
from torch import Tensor, nn

from groundup.generation.few_rows.kinds import LAYER, RMS
from groundup.generation.few_rows.linear import MOST_ROWS, address, kernels
from groundup.layers.norms import LayerNorm, OffsetRMSNorm, PlainLayerNorm, RMSNorm

KINDS: dict[type[nn.Module], int] = {RMSNorm: RMS, OffsetRMSNorm: RMS, LayerNorm: LAYER, PlainLayerNorm: LAYER}
"""What the compiled functions call the norms that they know."""


class NormPlan:
    """What the compiled functions need to know of a norm.

    Attributes:
        kind: of `KINDS`, 0 for no norm.
        eps: added to the variance.
        weight: address of the gains, 0 for none; of 1 + weight where the weight is the gain's distance from one.
        bias: address of the biases, 0 for none.
    """

    def __init__(self, norm: Any):
        self.kind = 0 if norm is None else KINDS[type(norm)]
        self.eps = 0.0 if norm is None else float(norm.eps)
        weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
        if type(norm) is OffsetRMSNorm:
            weight = 1 + norm.weight.detach().float()
        self.kept = weight, bias  # their numbers must stay where they are
        self.weight, self.bias = address(weight), address(bias)


class FewRowsNorm(nn.Module):
    """A norm over few rows. (B, 1, D) float32 -> (B, 1, D)"""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm, self.plan = norm, NormPlan(norm)

    def forward(self, x: Tensor) -> Tensor:
        if self.plan.kind != RMS or x.numel() // x.shape[-1] > MOST_ROWS:
            return self.norm(x)  # torch's own LayerNorm is one call already
        x, plan = x.contiguous(), self.plan
        y = torch.empty_like(x)
        rows = x.flatten(0, -2).numpy(), y.flatten(0, -2).numpy()
        kernels().normalise(plan.kind, plan.weight, plan.bias, plan.eps, *rows)
        return y
