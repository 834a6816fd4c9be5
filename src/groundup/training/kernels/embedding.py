"""Looking up vectors below fp32 without losing their gradients.

The gradient of a token's vector is the sum over all places where the token stands. A bf16 sum of thousands of terms
stops growing once a term is smaller than 1/256 of it, so the sum is made in fp32 and rounded once.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Lookup(nn.Embedding):
    """An embedding whose gradient is summed in fp32: (...) int64 -> (..., D)"""

    def forward(self, ids: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if torch.is_grad_enabled() and self.weight.requires_grad and self.weight.itemsize < 4:
            return _Lookup.apply(ids, self.weight)  # type: ignore[return-value]
        return super().forward(ids)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(weight)
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (ids,), (gradient,) = ctx.saved_tensors, gradients
        found, places = ids.unique(return_inverse=True)
        sums = torch.ops.aten.embedding_dense_backward(gradient.float(), places, len(found), -1, False)
        whole = gradient.new_zeros(ctx.rows, gradient.shape[-1])
        whole[found] = sums.to(whole.dtype)
        return None, whole
