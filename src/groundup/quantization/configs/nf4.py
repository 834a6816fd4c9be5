"""Settings of 4-bit places in a table. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class _TableConfig(QuantizationConfig):
    """What both tables share."""

    double: bool = True
    """Whether the scales of blocks are stored in 8 bits themselves (double quantization)."""
    block: Literal[32, 64, 128, 256, 512, 1024, 2048, 4096] = 64
    """Numbers that share a scale, one after another over rows."""

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.nf4 import NF4Linear

        return NF4Linear.of(layer, self.double, self.kind, self.block)  # type: ignore[attr-defined]

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.nf4 import NESTED_BLOCK, NF4Linear

        nested = NESTED_BLOCK if self.double else 0
        return NF4Linear(in_features, out_features, bias, block=self.block, nested_block=nested, table=self.kind)  # type: ignore[attr-defined]


class NF4Config(_TableConfig):
    """Weights as 16 quantiles of a normal distribution, times the largest of each 64 (Dettmers et al. 2023, QLoRA)."""

    kind: Literal["nf4"] = "nf4"


class FP4Config(_TableConfig):
    """Weights as floating numbers of 4 bits, times the largest of each 64, as bitsandbytes has them."""

    kind: Literal["fp4"] = "fp4"
