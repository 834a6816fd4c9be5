"""Settings of bitsandbytes' 4-bit numbers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class FourBitConfig(QuantizationConfig):
    """NF4: numbers as places among 16 quantiles of a normal distribution, in blocks of 64 (Dettmers et al. 2023)."""

    kind: Literal["four_bit"] = "four_bit"

    double: bool = True
    """Whether the scales of the blocks are stored in 8 bits too (double quantization)."""

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.four_bit_linear import FourBitLinear

        return FourBitLinear.of(layer, self.double)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.four_bit_linear import NESTED_BLOCK, FourBitLinear

        nested = NESTED_BLOCK if self.double else 0
        return FourBitLinear(in_features, out_features, bias, nested_block=nested)
