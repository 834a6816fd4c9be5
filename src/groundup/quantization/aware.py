"""Quantization-aware training: weights are rounded in every pass, and learn to be good rounded.

    quantize(model, AwareConfig(bits=4))     # then train as ever
    finish(model)                            # the layers as integers, with the same outputs

Rounding has no useful gradient; the straight-through estimator takes it for the identity (Bengio et al. 2013, Jacob et
al. 2018). In the backward pass w is what the optimizer changes, so small changes add up until a weight goes over to the
next step.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.quantization.configs.aware import AwareConfig
from groundup.quantization.configs.integers import IntegerConfig
from groundup.quantization.integers import HALF_SMALLEST, IntegerLinear
from groundup.quantization.linear import QuantizedLinear
from groundup.quantization.packing import pack
from groundup.replace import replace

RANGE_MEMORY = 0.99
"""Share of the old range that a training step keeps."""


class AwareLinear(QuantizedLinear):
    """y = x' w'^T + b with rounded weights, and rounded inputs where that is asked for.

    It keeps the layer's own weight and bias, so they train, and checkpoints hold them as they are. Steps are float16
    numbers, as IntegerLinear stores them.

    Args:
        layer: `weight` (out, in), floating; it goes over to this one.
        config: bits, groups, learned steps, activations.
    """

    weight: nn.Parameter
    low: Tensor
    high: Tensor
    known: Tensor

    def __init__(self, layer: Any, config: AwareConfig):
        out_features, in_features = layer.weight.shape
        super().__init__(in_features, out_features)
        size = config.group_size or in_features
        if in_features % size:
            raise UsageError(f"a row of {in_features} weights cannot be cut into groups of {size}: choose a divisor")
        self.config, self.groups, self.most = config, in_features // size, 2 ** (config.bits - 1) - 1
        self.weight, self.bias = layer.weight, layer.bias
        if config.learned_step:
            mean = self._in_groups().detach().float().abs().mean(-1)
            self.step = nn.Parameter((2 * mean / math.sqrt(self.most)).flatten())
        if config.activation_bits is not None:
            device = layer.weight.device
            self.register_buffer("low", torch.zeros((), device=device))
            self.register_buffer("high", torch.zeros((), device=device))
            self.register_buffer("known", torch.zeros((), dtype=torch.bool, device=device))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.rounded_weight()
        if self.config.activation_bits is not None:
            x = self._rounded_input(x, weight)
        return F.linear(x, weight.to(x.dtype), self.bias)

    # -- weights ------------------------------------------------------------------------------------------------------

    def rounded_weight(self) -> Tensor:
        """Round to w' = s clamp(round(w / s), -most, most), (out, in); gradients reach w, and s where it is learned."""
        steps = self.steps()
        return (_round(self._in_groups() / steps, -self.most, self.most) * steps).flatten(1)

    def steps(self) -> Tensor:
        """Step s of each group, (out, groups, 1): learned, or what lets the largest weight stand where it stands."""
        if self.config.learned_step:
            size = self.in_features // self.groups
            # LSQ: the gradient of a step sums over its weights, and shrinks by 1 / sqrt(weights most)
            step = _ScaleGradient.apply(self.step, 1 / math.sqrt(size * self.most))
            steps = step.abs().unflatten(0, (self.out_features, self.groups, 1))  # type: ignore[attr-defined]
        else:
            steps = self._in_groups().detach().abs().amax(-1, keepdim=True) / self.most
        return _Half.apply(steps.clamp(min=HALF_SMALLEST))  # type: ignore[return-value]  # as it is stored

    def _in_groups(self) -> Tensor:
        return self.weight.unflatten(1, (self.groups, -1))

    @torch.no_grad()
    def integers(self) -> tuple[Tensor, Tensor]:
        """The integers round(w / s), (out, in) int16, and s (out, groups) float16."""
        steps = self.steps()
        q = (self._in_groups() / steps).round().clamp(-self.most, self.most)
        return q.flatten(1).to(torch.int16), steps.squeeze(-1).half()

    def dequantize(self) -> Tensor:
        return self.rounded_weight().detach().float()

    def plain_state(self) -> dict[str, Tensor]:
        """What a folder of plain weights holds: the rounded weight, and the bias."""
        bias = {} if self.bias is None else {"bias": self.bias.detach()}
        return {"weight": self.rounded_weight().detach(), **bias}

    @property
    def stored_bytes(self) -> int:
        return self.weight.nbytes

    # -- activations --------------------------------------------------------------------------------------------------

    def _rounded_input(self, x: Tensor, weight: Tensor) -> Tensor:
        """Round x over the running range; the first training step rounds over its own."""
        levels = 2 ** (self.config.activation_bits or 0) - 1
        if not self.training:
            return round_over(x, self.low, self.high, levels) if self.known else x
        low, high = (edge.float() for edge in x.detach().aminmax())
        if weight.requires_grad:
            # Once a step, in the backward pass: activation checkpointing calls forward twice, and both see one range.
            weight.register_hook(lambda _: self._widen(low, high))
        return round_over(x, *((self.low, self.high) if self.known else (low, high)), levels)

    @torch.no_grad()
    def _widen(self, low: Tensor, high: Tensor) -> None:
        share = 1 - RANGE_MEMORY if self.known else 1.0
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)
        self.known.fill_(True)


def round_over(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """Round to x' = (clamp(round(x / s) + z, 0, levels) - z) s, where s spans the range and z is whole, so that 0
    stays 0 (Jacob et al. 2018); gradients reach x where it is inside the range.
    """
    step, zero = _step_and_zero(low, high, levels)
    return _round(x / step.to(x.dtype), -zero, levels - zero) * step.to(x.dtype)


def _step_and_zero(low: Tensor, high: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = ((high - low) / levels).clamp(min=torch.finfo(torch.float32).tiny)
    return step, (-low / step).round()


class _Round(torch.autograd.Function):
    """Whole numbers clamp(round(v)); the gradient goes straight through, but is 0 where something is cut off."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, least: Any, most: Any) -> Tensor:
        whole = v.round()
        ctx.save_for_backward((whole >= least) & (whole <= most))
        return whole.clamp(least, most)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None, None


def _round(v: Tensor, least: Any, most: Any) -> Tensor:
    return _Round.apply(v, least, most)  # type: ignore[return-value]


class _Half(torch.autograd.Function):
    """Round to float16; the gradient goes straight through."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.half().to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _ScaleGradient(torch.autograd.Function):
    """The same number with a smaller gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


class RoundedInputLinear(IntegerLinear):
    """IntegerLinear that rounds its inputs over a fixed range.

    Attributes:
        low, high: the range, float32; levels_of_input: steps in it.
    """

    low: Tensor
    high: Tensor
    levels_of_input: int

    def product(self, x: Tensor) -> Tensor:
        return super().product(round_over(x, self.low, self.high, self.levels_of_input))

    def levels(self) -> None:  # type: ignore[override]
        """None: a product of the integers alone would leave the inputs as they are."""


def finish(model: Any) -> int:
    """Put integers in the place of the layers that were trained for it; outputs stay as in evaluation. How many.

    Raises:
        UsageError: nothing was trained so, or inputs are to be rounded and no training step told their range.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, AwareLinear)}
    if not found:
        raise UsageError("no layer of this model is in quantization-aware training: quantize(model, AwareConfig())")
    for name, layer in found.items():
        if layer.config.activation_bits is not None and not layer.known:
            raise UsageError(f"the range of what enters {name} is not known yet: train at least one step")
    config = next(iter(found.values())).config
    form = IntegerConfig(targets=config.targets, skip=config.skip, bits=config.bits, group=config.group_size or "row")
    count = replace(model, list(found), lambda layer: _finished(layer, form))
    model.quantization = form if config.activation_bits is None else None
    return count


def _finished(trained: Any, form: IntegerConfig) -> nn.Module:
    rounds = trained.config.activation_bits is not None
    kind = RoundedInputLinear if rounds else IntegerLinear
    new = kind(trained.in_features, trained.out_features, device="meta", **form.settings)
    q, new.scale = trained.integers()
    new.packed = pack(q + 2 ** (form.bits - 1), form.bits)
    new.bias = trained.bias
    if isinstance(new, RoundedInputLinear):
        new.register_buffer("low", trained.low.clone())
        new.register_buffer("high", trained.high.clone())
        new.levels_of_input = 2**trained.config.activation_bits - 1
    return new
