"""Settings of rounding to integers. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class Int8Config(QuantizationConfig):
    """Weights as 8-bit integers, one scale for each row: w = scale q, scale = max |w| / 127."""

    kind: Literal["int8"] = "int8"

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.integers import Int8Linear

        return Int8Linear.of(layer)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.integers import Int8Linear

        return Int8Linear(in_features, out_features, bias)
