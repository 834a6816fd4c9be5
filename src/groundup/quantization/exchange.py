"""Exchange a model's linear layers for quantized ones."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from groundup.base.console import as_size
from groundup.base.errors import UsageError
from groundup.layers.moe.experts import GroupedLinear
from groundup.quantization.calibration import as_batches
from groundup.quantization.changes import Changes
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
        left: linear layers that were meant and keep their precision, as no calibration text reached them.
    """

    layers: int
    weights: int
    bytes_before: int
    bytes_after: int
    left: tuple[str, ...] = ()

    @property
    def bits_per_weight(self) -> float:
        """Bits a number of the exchanged matrices, scales included."""
        return 8 * self.bytes_after / self.weights

    def __str__(self) -> str:
        sizes = f"{as_size(self.bytes_before)} -> {as_size(self.bytes_after)}"
        text = f"{self.layers} layers, {self.weights:,} weights: {sizes}, {self.bits_per_weight:.2f} bits a weight"
        return text + f"; left in precision: {', '.join(self.left)}" * bool(self.left)


def layers_to_quantize(model: nn.Module, config: QuantizationConfig) -> dict[str, nn.Module]:
    """The linear layers that a config names, experts among them where the method needs no calibration and they
    are to be frozen.

    Left out are matrices that their layer reads as tensors: those of recurrent networks between time steps.

    Raises:
        UsageError: nothing matches, or adapters stand on the model.
    """
    if any(".adapters." in name for name, _ in model.named_modules()):
        raise UsageError("adapters stand on this model: quantize the base first, or merge them (`groundup merge`)")
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


def quantize(model: Any, config: QuantizationConfig, calibration: Tensor | Iterable[Tensor] | None = None) -> Report:
    """Store the matrices of a model's linear layers in fewer bits, in place.

    Args:
        model: any model.
        config: the method.
        calibration: token ids (N, T), or batches of them, for a method that looks at what flows through the layers:
            see `calibration.token_rows`.

    Raises:
        UsageError: nothing matches, a layer does not fit the method, or it needs calibration texts. The model is then
            as it was.
    """
    found = layers_to_quantize(model, config)
    check(found, config)
    sizes = {name: _size(layer) for name, layer in found.items()}
    if config.calibrated:
        left = _calibrate(model, found, config, calibration)
    else:
        replace(model, list(found), lambda layer: _make(layer, config))
        left = []
    model.quantization = config
    done = [name for name in found if name not in left]
    nbytes, weights = (sum(sizes[name][i] for name in done) for i in (0, 1))
    after = sum(model.get_submodule(name).stored_bytes for name in done)
    return Report(len(done), weights, nbytes, after, tuple(left))


def _size(layer: Any) -> tuple[int, int]:
    """Bytes of a linear layer's matrix, and its numbers."""
    return layer.weight.nbytes, layer.weight.numel()


def described(model: nn.Module) -> str:
    """How many layers of a model are quantized, and how many bits their weights take."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    stored = sum(layer.stored_bytes for layer in layers)
    bits = f", {8 * stored / weights:.2f} bits a weight" if weights and stored else ""
    return f"{len(layers)} layers, {weights:,} weights: {as_size(stored)}{bits}"


def check(layers: dict[str, nn.Module], config: QuantizationConfig) -> None:
    """Raise a UsageError that names the layers whose sizes do not fit the method."""
    problems = {}
    for name, layer in layers.items():
        try:
            config.check(layer)
        except UsageError as error:
            problems[name] = str(error)
    if problems:
        first = next(iter(problems))
        raise UsageError(
            f"{len(problems)} of {len(layers)} layers do not fit {config.kind}: {first}: {problems[first]}. "  # type: ignore[attr-defined]
            f"Change the settings, or leave them out: skip={list(problems)[:3]}"
        )


def _calibrate(
    model: nn.Module,
    found: dict[str, nn.Module],
    config: QuantizationConfig,
    calibration: Tensor | Iterable[Tensor] | None,
) -> list[str]:
    if calibration is None:
        raise UsageError(f"{config.kind} looks at what flows through the layers: give calibration=ids")  # type: ignore[attr-defined]
    inside = {name: layer for name, layer in found.items() if name.startswith("blocks.")}
    with Changes(model) as changes:
        left = config.calibrate(model, inside, as_batches(calibration), changes)
        left += [name for name in found if name not in inside]
        if len(left) == len(found):
            raise UsageError(f"no calibration text reached a linear layer of {type(model).__name__}")
    return left


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
