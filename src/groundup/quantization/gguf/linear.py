"""A linear layer whose matrix stays as a GGUF file packs it."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.base.gguf_container import TENSOR_TYPES
from groundup.quantization.gguf.blocks import dequantize, quantize, runs
from groundup.quantization.linear import Levels, QuantizedLinear


class GGUFLinear(QuantizedLinear):
    """Blocks of numbers along each row (`blocks`).

    Args:
        in_features, out_features, bias: of the layer; whole blocks must fit a row.
        kind: q8_0, q4_0, q4_k or q6_k.

    Attributes:
        packed: (out, bytes a row) uint8.
    """

    packed: Tensor

    def __init__(self, in_features: int, out_features: int, kind: str, bias: bool = False, device: Any = None):
        super().__init__(in_features, out_features, bias, device)
        self.kind = TENSOR_TYPES[kind]
        row = in_features // self.kind.block * self.kind.nbytes
        self.register_buffer("packed", torch.zeros(out_features, row, dtype=torch.uint8, device=device))

    @classmethod
    def of(cls, layer: nn.Module, kind: str = "q8_0") -> Self:
        """The layer in blocks of a kind."""
        weight: Tensor = layer.weight.detach()  # type: ignore[operator]
        new = cls(weight.shape[1], weight.shape[0], kind, device="meta")
        new.packed = quantize(weight, kind)
        new.bias = layer.bias  # type: ignore[assignment]
        return new

    def dequantize(self) -> Tensor:
        return dequantize(self.packed, self.kind)

    def levels(self) -> Levels:
        q, scale, offset = runs(self.packed, self.kind)
        return Levels(q.flatten(-2), scale, offset)

    def extra_repr(self) -> str:
        """in, out, kind."""
        return f"{self.in_features} -> {self.out_features}, {self.kind.name}"
