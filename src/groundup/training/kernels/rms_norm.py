"""RMSNorm with a backward pass of its own.

    n = r x,  r = 1 / sqrt(mean(x²) + ε),  y = w n        (Zhang and Sennrich 2019)

Autograd goes back through the square, the mean, the root and the products one by one. Together they are

    dx = r (g w - n mean(g w n)),   dw = Σ g n            g = dL/dy
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.layers.norms import OffsetRMSNorm, RMSNorm


class FasterRMSNorm(RMSNorm):
    """RMSNorm with the backward pass above, in fp32 and fp64: (..., D) -> (..., D)"""

    def forward(self, x: Tensor) -> Tensor:
        if pays(x, self.weight):
            return _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[return-value]
        return super().forward(x)


class FasterOffsetRMSNorm(OffsetRMSNorm):
    """OffsetRMSNorm with it: w is 1 + weight."""

    def forward(self, x: Tensor) -> Tensor:
        if pays(x, self.weight):
            return _RMSNorm.apply(x, 1 + self.weight, self.eps)  # type: ignore[return-value]
        return super().forward(x)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether there will be a backward pass, in a type that is exact enough for it."""
    plain = x.dtype in (torch.float32, torch.float64) and x.dtype == weight.dtype
    return plain and torch.is_grad_enabled() and x.requires_grad


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        r = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        n = x * r
        ctx.save_for_backward(n, weight, r)
        return n * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        n, weight, r = ctx.saved_tensors
        (g,) = gradients
        gn = g * n
        mean = (gn @ weight).div_(n.shape[-1])[..., None]
        dx = torch.mul(g, weight).addcmul_(n, mean, value=-1).mul_(r)
        return dx, gn.flatten(0, -2).sum(0), None
