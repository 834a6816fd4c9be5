"""Exchange a model's linear layers for quantized ones."""

import fnmatch
from dataclasses import dataclass
from typing import Any

from torch import nn

from groundup.base.console import as_size
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear
from groundup.quantization.config import QuantizationConfig
from groundup.quantization.experts import QuantizedExperts
from groundup.quantization.linear import QuantizedLinear
from groundup.replace import replace


@dataclass(frozen=True)
class Report:
    """What a quantization did.

    Attributes:
        layers: how many were exchanged; weights: numbers in them.
        bytes_before, bytes_after: of these layers' matrices.
    """

    layers: int
    weights: int
    bytes_before: int
    bytes_after: int

    @property
    def bits_per_weight(self) -> float:
        """Bits a number of the exchanged matrices, scales included."""
        return 8 * self.bytes_after / self.weights

    def __str__(self) -> str:
        sizes = f"{as_size(self.bytes_before)} -> {as_size(self.bytes_after)}"
        return f"{self.layers} layers, {self.weights:,} weights: {sizes}, {self.bits_per_weight:.2f} bits a weight"


def layers_to_quantize(model: nn.Module, config: QuantizationConfig) -> dict[str, nn.Module]:
    """The linear layers that a config names, experts among them where the method needs no calibration and they
    are to be frozen.

    Left out are matrices that their layer reads as tensors: those of recurrent networks between time steps.
    """
    kinds = (nn.Linear,) if config.calibrated or not config.frozen else (nn.Linear, GroupedLinear)
    read = {id(tensor) for module in model.modules() for tensor in getattr(module, "matrices_read", tuple)()}
    found: dict[str, nn.Module] = {
        name: module
        for name, module in model.named_modules()
        if type(module) in kinds
        and id(module.weight) not in read
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in config.targets)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in config.skip)
    }
    if not found:
        raise UsageError(f"no linear layer matches {config.targets} and not {config.skip}: nothing to quantize")
    return found


def quantize(model: Any, config: QuantizationConfig) -> Report:
    """Store the matrices of a model's linear layers in fewer bits, in place.

    Raises:
        UsageError: nothing matches, or the method needs calibration texts.
    """
    found = layers_to_quantize(model, config)
    before = sum(layer.weight.nbytes for layer in found.values())  # type: ignore[union-attr]
    weights = sum(layer.weight.numel() for layer in found.values())  # type: ignore[union-attr]
    replace(model, list(found), lambda layer: _make(layer, config))
    model.quantization = config
    after = sum(module.stored_bytes for module in model.modules() if isinstance(module, QuantizedLinear))
    return Report(len(found), weights, before, after)


def _make(layer: Any, config: QuantizationConfig) -> nn.Module:
    return QuantizedExperts.of(layer, config) if isinstance(layer, GroupedLinear) else config.make(layer)


def exchange_empty(model: Any, config: QuantizationConfig) -> int:
    """Put layers without numbers in the place of those that a config names, as a file fills them, or none (on the meta
    device); how many.
    """

    def empty(layer: Any) -> nn.Module:
        if isinstance(layer, GroupedLinear):
            return QuantizedExperts.empty(layer, config).to(layer.weight.device)
        new = config.empty(layer.in_features, layer.out_features, layer.bias is not None)
        return new.to(layer.weight.device, layer.weight.dtype)  # of bias; what is quantized keeps its own

    return replace(model, list(layers_to_quantize(model, config)), empty)
