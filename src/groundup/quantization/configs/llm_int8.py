"""Settings of LLM.int8(). Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class LLMInt8Config(QuantizationConfig):
    """Weights and inputs as 8-bit integers, but for the few columns of the inputs that are far larger than the others
    (LLM.int8(), Dettmers et al. 2022).
    """

    kind: Literal["llm_int8"] = "llm_int8"
    threshold: float = Field(default=6.0, gt=0)
    """A column of the inputs with a number of this magnitude or more is multiplied in floating point."""

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.llm_int8 import LLMInt8Linear

        new = LLMInt8Linear.of(layer)
        new.threshold = self.threshold
        return new

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.llm_int8 import LLMInt8Linear

        new = LLMInt8Linear(in_features, out_features, bias)
        new.threshold = self.threshold
        return new
