"""The experts of a mixture in fewer bits."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.layers.moe.experts import GroupedLinear
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.linear import QuantizedLinear


class QuantizedExperts(GroupedLinear):
    """E quantized layers of any method; each multiplies its own run of rows, and those without rows stay packed.

    Args:
        linears: one for each expert, without biases.
        bias: (E, out) or None.

    Attributes:
        linears: by number.
    """

    def __init__(self, linears: list[QuantizedLinear], bias: nn.Parameter | None):
        nn.Module.__init__(self)
        self.linears = nn.ModuleList(linears)
        self.register_parameter("bias", bias)

    @classmethod
    def of(cls, layer: GroupedLinear, config: QuantizationConfig) -> Self:
        """The experts as a method stores them."""
        return cls([config.make(_one(matrix)) for matrix in layer.weight.detach()], layer.bias)

    @classmethod
    def empty(cls, layer: GroupedLinear, config: QuantizationConfig) -> Self:
        """As `of`, without numbers in it yet."""
        experts, outer, inner = layer.weight.shape
        return cls([config.empty(inner, outer, False) for _ in range(experts)], layer.bias)

    def forward(self, x: Tensor, sizes: Tensor) -> Tensor:
        # where tensors have no numbers, one expert gets all rows: the result has the same shape
        counts = [len(x)] if x.is_meta else sizes.tolist()
        parts = [linear(rows) for linear, rows in zip(self.linears, x.split(counts), strict=False) if len(rows)]
        y = torch.cat(parts) if parts else x.new_zeros(0, self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype).repeat_interleave(sizes, 0, output_size=len(x))

    def dequantize(self) -> Tensor:
        """The matrices that the stored numbers stand for, (E, out, in) float32."""
        return torch.stack([linear.dequantize() for linear in self.linears])  # type: ignore[operator]

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The matrices, made anew whenever they are asked for; (E, out, in) float32."""
        return self.dequantize()

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.linears)

    @property
    def in_features(self) -> int:
        """Of each."""
        return self.linears[0].in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """Of each."""
        return self.linears[0].out_features  # type: ignore[return-value]

    @property
    def stored_bytes(self) -> int:
        """Bytes of the matrices as they are stored, with their scales."""
        return sum(linear.stored_bytes for linear in self.linears)  # type: ignore[misc]

    def extra_repr(self) -> str:
        """E, in, out."""
        return f"{self.num_experts} x ({self.in_features} -> {self.out_features})"


def _one(matrix: Tensor) -> Any:
    """A linear layer with this matrix."""
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(matrix, requires_grad=False)
    return layer
