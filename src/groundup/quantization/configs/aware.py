"""Settings of quantization-aware training. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from groundup.base.config import FromText
from groundup.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class AwareConfig(QuantizationConfig):
    """Train with weights that are rounded in every pass, so that they are good once they are stored so: w' = s round(w
    / s), s = max |w| / (2^(bits - 1) - 1), and gradients as if nothing were rounded.
    """

    frozen: ClassVar[bool] = False

    kind: Literal["aware"] = "aware"
    bits: Annotated[Literal[8, 4, 3, 2], FromText] = 4
    """Bits of a weight."""
    group_size: int | None = Field(default=None, ge=1)
    """Weights of a row that share a scale; None: all of it."""
    learned_step: bool = False
    """Learn the scales too (LSQ, Esser et al. 2020)."""
    activation_bits: int | None = Field(default=None, ge=2, le=8)
    """Round what enters the layers too, to so many bits over a running range. None: it stays as it is."""

    def make(self, layer: Any) -> QuantizedLinear:
        from groundup.quantization.aware import AwareLinear

        return AwareLinear(layer, self)

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from torch import nn

        return self.make(nn.Linear(in_features, out_features, bias))
