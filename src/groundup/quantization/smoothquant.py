"""SmoothQuant (Xiao et al. 2022): 8-bit weights and 8-bit inputs, multiplied as integers.

Few inputs are far larger than the others, and one scale for all then leaves nothing to the others. Half of the
difficulty is moved into the weights, where it is easily carried:

    s_j = max |x_j|^alpha / max_i |w_ij|^(1 - alpha),   W diag(s), and diag(s)^-1 in the norm before
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.quantization.calibration import BlockByBlock, gather
from groundup.quantization.changes import Changes
from groundup.quantization.configs.smoothquant import SmoothQuantConfig
from groundup.quantization.folding import Fold, folds
from groundup.quantization.linear import QuantizedLinear

LARGEST = 127


class W8A8Linear(QuantizedLinear):
    """Products of 8-bit integers, added up in 32 bits.

    q_x = round(x / s_x),   y = s_x s_i (q_x q_i^T)

    Attributes:
        q: (out, in) int8; scale: (out,) float32, max |w_i| / 127.
        input_scale: (1,) float32, s_x of every token; 0 where each token has its own, max |x| / 127.
    """

    q: Tensor
    scale: Tensor
    input_scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device: Any = None):
        super().__init__(in_features, out_features, bias, device)
        self.register_buffer("q", torch.zeros(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.zeros(out_features, device=device))
        self.register_buffer("input_scale", torch.zeros(1, device=device))

    @classmethod
    def of(cls, layer: nn.Module, largest_input: float = 0.0) -> Self:
        """From a layer; `largest_input` is max |x| over the calibration texts, 0 for a scale of each token."""
        weight: Tensor = layer.weight.detach().float()  # type: ignore[operator, union-attr]
        new = cls(weight.shape[1], weight.shape[0], device=weight.device)
        new.bias = layer.bias  # type: ignore[assignment]
        new.scale = _not_zero(weight.abs().amax(1) / LARGEST)
        new.q = (weight / new.scale[:, None]).round().to(torch.int8)
        new.input_scale.fill_(largest_input / LARGEST)
        return new

    def dequantize(self) -> Tensor:
        return self.q.float() * self.scale[:, None]

    def product(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).float()
        each = _not_zero(rows.abs().amax(1, keepdim=True) / LARGEST)
        scale = torch.where(self.input_scale > 0, self.input_scale, each)  # (N, 1)
        codes = (rows / scale).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        y = integer_product(codes, self.q).float() * scale * self.scale
        return y.to(x.dtype).unflatten(0, x.shape[:-1])


def integer_product(a: Tensor, b: Tensor) -> Tensor:
    """A b^T exactly. (N, in) int8, (out, in) int8 -> (N, out) int32"""
    if a.is_cpu:
        return torch._int_mm(a, b.T)
    # the kernel of GPUs wants more than 16 rows, and widths that 8 divides
    (rows, inner), out = a.shape, len(b)
    a = nn.functional.pad(a, (0, -inner % 8, 0, max(17 - rows, 0)))
    b = nn.functional.pad(b, (0, -inner % 8, 0, -out % 8))
    return torch._int_mm(a, b.T)[:rows, :out]


def _not_zero(scale: Tensor) -> Tensor:
    return scale.clamp(min=torch.finfo(torch.float32).tiny)


def smoothing_factors(fold: Fold, largest: Tensor, alpha: float) -> Tensor:
    """S of one place. largest (in,), max |x| -> (width,)"""
    weights = torch.stack([layer.weight.detach().float().abs().amax(0) for layer in fold.layers.values()]).amax(0)
    factors = largest.clamp(min=1e-5) ** alpha / weights.clamp(min=1e-5) ** (1 - alpha)
    return fold.per_channel(factors).clamp(min=1e-5)


def smooth(walk: BlockByBlock, block_name: str, config: SmoothQuantConfig, targets: set[str], changes: Changes) -> None:
    """Fold the factors into the norms of the block at hand."""
    places, _ = folds(walk, block_name)
    for fold in places:
        if targets & fold.layers.keys() and not isinstance(fold.source, nn.Linear):
            first = next(iter(fold.layers.items()))
            largest = gather(dict([first]), walk)[first[0]].largest
            fold.apply(smoothing_factors(fold, largest, config.alpha), changes)


def calibrate(
    model: nn.Module, layers: dict[str, nn.Module], config: SmoothQuantConfig, batches: list[Tensor], changes: Changes
) -> list[str]:
    """Put 8-bit layers in the place of `layers`, block by block.

    Returns:
        the names of layers that nothing flowed through, which are left as they are.
    """
    walk, done = BlockByBlock(model, batches), set()
    for block_name, _ in walk:
        here = {name: layer for name, layer in layers.items() if name.startswith(block_name + ".")}
        smooth(walk, block_name, config, set(here), changes)
        for name, inputs in gather(here, walk).items():
            largest = float(inputs.largest.max()) if config.inputs == "static" else 0.0
            changes.put(name, W8A8Linear.of(here[name], largest))
            done.add(name)
    return [name for name in layers if name not in done]
