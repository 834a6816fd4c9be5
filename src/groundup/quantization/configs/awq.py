"""Settings of AWQ. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from groundup.quantization.config import CalibratedConfig

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class AWQConfig(CalibratedConfig):
    """Inputs that are large on average get finer steps (Lin et al. 2023)."""

    kind: Literal["awq"] = "awq"
    home: ClassVar[str] = "groundup.quantization.awq"

    bits: Literal[4] = 4
    """Of a number."""
    group_size: int = 128
    """Inputs that share a scale; -1 for all of a row."""
    scale: bool = True
    """Whether factors are searched for."""
    clip: bool = True
    """Whether it is searched where to cut each group's largest number."""

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        from groundup.quantization.grouped_linear import AWQLinear

        return AWQLinear(in_features, out_features, bias, bits=self.bits, group_size=self.group_size)

    def check(self, layer: Any) -> None:
        from groundup.quantization.grouped_linear import AWQLinear

        AWQLinear.form(layer.in_features, layer.out_features, self.bits, self.group_size)
