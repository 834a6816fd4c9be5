"""Integers with a scale and a zero for each group of inputs of each output: what GPTQ and AWQ store.

    w_ij = s_ig (q_ij - z_ig),   0 <= q_ij < 2^bits,   g the group of input j

affine      s = (max w - min w) / (2^bits - 1),   z = round(-min w / s);   min w <= 0 <= max w
symmetric   s = 2 max |w| / (2^bits - 1),         z = 2^(bits - 1)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from groundup.base.errors import UsageError

SMALLEST = 2.0**-24
"""The smallest positive float16: a scale is never 0."""


class Grouped(NamedTuple):
    """A matrix as integers.

    Attributes:
        codes: (out, in) uint8.
        scales: (out, groups), floating.
        zeros: (out, groups) uint8.
        groups: (in,) int32, the group of each input.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor

    def dequantize(self) -> Tensor:
        """(out, in) float32"""
        group = self.groups.long()
        steps = self.codes.float() - self.zeros.float()[:, group]
        return steps * self.scales.float()[:, group]


def group_count(in_features: int, group_size: int) -> int:
    """How many groups the inputs of a layer make; a group_size of -1 is one group of all."""
    if group_size == -1:
        return 1
    if group_size < 1 or in_features % group_size:
        raise UsageError(f"{in_features} inputs are no whole number of groups of {group_size}")
    return in_features // group_size


def scale_and_zero(weight: Tensor, bits: int, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Of one group. (..., n) -> (...), (...), in the dtype of weight; the scale is a number that float16 holds."""
    steps = 2**bits - 1
    low, high = weight.amin(-1).clamp(max=0), weight.amax(-1).clamp(min=0)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / steps).half().clamp(min=SMALLEST).to(weight.dtype)
    if symmetric:
        return scale, torch.full_like(scale, 2 ** (bits - 1))
    return scale, (-low / scale).round().clamp(0, steps)


def encode(weight: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest integers, in the dtype of weight; scale and zero broadcast against it."""
    return ((weight / scale).round() + zero).clamp(0, 2**bits - 1)


def round_to_nearest(weight: Tensor, bits: int, group_size: int, symmetric: bool = False) -> Grouped:
    """Every number to the nearest one that its group has. weight (out, in) floating"""
    inner = weight.shape[1]
    count = group_count(inner, group_size)
    parts = weight.float().unflatten(1, (count, -1))  # (out, groups, size)
    scale, zero = scale_and_zero(parts, bits, symmetric)
    codes = encode(parts, scale[..., None], zero[..., None], bits).flatten(1)
    groups = torch.arange(inner, device=weight.device).div(inner // count, rounding_mode="floor").int()
    return Grouped(codes.byte(), scale.half(), zero.byte(), groups)
