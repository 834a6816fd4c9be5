"""Settings of GPTQ. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from groundup.quantization.config import CalibratedConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class GPTQConfig(CalibratedConfig):
    """Columns are rounded one after another, and those to come make up for the error (Frantar et al. 2022)."""

    kind: Literal["gptq"] = "gptq"
    home: ClassVar[str] = "groundup.quantization.gptq"

    bits: Literal[2, 3, 4, 8] = 4
    """Of a number."""
    group_size: int = 128
    """Inputs that share a scale; -1 for all of a row."""
    symmetric: bool = True
    """Whether the zero stands in the middle; otherwise each group has its own."""
    desc_act: bool = False
    """Whether columns with large inputs go first."""
    damping: float = Field(default=0.01, gt=0)
    """What is added to the diagonal of the Hessian, as a share of its mean."""

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.grouped_linear import GPTQLinear

        return GPTQLinear(in_features, out_features, bias, bits=self.bits, group_size=self.group_size)

    def check(self, layer: Any) -> None:
        from groundup.quantization.grouped_linear import GPTQLinear

        GPTQLinear.form(layer.in_features, layer.out_features, self.bits, self.group_size)
