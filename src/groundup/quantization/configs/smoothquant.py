"""Settings of SmoothQuant. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from groundup.quantization.config import CalibratedConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class SmoothQuantConfig(CalibratedConfig):
    """8-bit weights and inputs, after what is large in the inputs has moved into the weights (Xiao et al. 2022)."""

    kind: Literal["smoothquant"] = "smoothquant"
    home: ClassVar[str] = "groundup.quantization.smoothquant"

    alpha: float = Field(default=0.5, ge=0, le=1)
    """How much of the difficulty moves from the inputs to the weights."""
    inputs: Literal["dynamic", "static"] = "dynamic"
    """Scales of the inputs: of each token as it comes, or one for all tokens, from the calibration texts."""

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.smoothquant import W8A8Linear

        return W8A8Linear(in_features, out_features, bias)
