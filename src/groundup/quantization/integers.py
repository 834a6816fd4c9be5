"""Weights rounded to integers."""

from typing import Self

import torch
from torch import Tensor, nn

from groundup.quantization.linear import QuantizedLinear


class Int8Linear(QuantizedLinear):
    """8-bit integers with a scale for each row.

    s_i = max_j |w_ij| / 127,   q_ij = round(w_ij / s_i)

    Attributes:
        q: (out, in) int8.
        scale: (out,) float32.
    """

    q: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device: object = None):
        super().__init__(in_features, out_features, bias, device)
        self.register_buffer("q", torch.zeros(out_features, in_features, dtype=torch.int8, device=device))  # type: ignore[arg-type]
        self.register_buffer("scale", torch.zeros(out_features, device=device))  # type: ignore[arg-type]

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        weight: Tensor = layer.weight.detach().float()  # type: ignore[operator]
        new = cls(weight.shape[1], weight.shape[0], device=weight.device)
        new.bias = layer.bias  # type: ignore[assignment]
        scale = weight.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        new.q.copy_((weight / scale[:, None]).round())
        new.scale.copy_(scale)
        return new

    def dequantize(self) -> Tensor:
        return self.q.float() * self.scale[:, None]

    def levels(self) -> tuple[Tensor, Tensor, None]:
        return self.q, self.scale[:, None], None
