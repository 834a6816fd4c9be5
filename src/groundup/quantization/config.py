"""What the settings of all quantization methods share. Imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from groundup.base.config import Config
from groundup.base.errors import UsageError

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

    def check(self, layer: Any) -> None:
        """Raise a UsageError if a linear layer's sizes do not fit the method; nothing was changed by then."""

    def calibrate(self, model: Any, layers: dict[str, Any], batches: list[Any], changes: Any) -> list[str]:
        """Exchange `layers` for quantized ones, looking at what flows into them; for methods that are `calibrated`.

        Args:
            model: changed through `changes` alone, so that all of it can be taken back.
            layers: dotted name -> linear layer.
            batches: ids (B, T) each.
            changes: see `quantization.changes`.

        Returns:
            the names of layers that were left as they are, as nothing flowed through them.
        """
        raise NotImplementedError


class CalibratedConfig(QuantizationConfig):
    """Settings of a method that looks at what flows into the layers."""

    calibrated: ClassVar[bool] = True
    home: ClassVar[str]
    """The module with the method's `calibrate`."""

    def make(self, layer: Any) -> QuantizedLinear:
        raise UsageError(
            f"{type(self).__name__} needs texts that flow through the model: "
            "quantize(model, config, calibration=ids) on a loaded model"
        )

    def calibrate(self, model: Any, layers: dict[str, Any], batches: list[Any], changes: Any) -> list[str]:
        return importlib.import_module(self.home).calibrate(model, layers, self, batches, changes)
