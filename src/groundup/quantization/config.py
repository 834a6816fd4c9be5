"""What the settings of all quantization methods share. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from groundup.base.config import Config

if TYPE_CHECKING:
    from groundup.quantization.linear import QuantizedLinear


class QuantizationConfig(Config):
    """Settings of a quantization method; `groundup.quantization.configs` gathers them."""

    calibrated: ClassVar[bool] = False
    """Whether the method looks at what flows through the layers: it then needs texts."""
    frozen: ClassVar[bool] = True
    """Whether the weights cannot learn any more."""

    targets: list[str] = ["blocks.*"]
    """Which linear layers: patterns of dotted names. Embedding and output head keep their precision by default."""
    skip: list[str] = []
    """Patterns of dotted names of linear layers that keep their precision."""

    def make(self, layer: Any) -> QuantizedLinear:
        """The layer in fewer bits; the old one is left as it is. `layer.weight` (out, in), floating."""
        raise NotImplementedError

    def empty(self, in_features: int, out_features: int, bias: bool) -> QuantizedLinear:
        """A layer of this form without numbers in it yet, as a file fills it."""
        raise NotImplementedError
