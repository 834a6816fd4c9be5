"""Round a matrix to integers of b bits: one scale for the whole of it, for each row, or for each group within a row.

absmax       q = round(w / s),                 s = max |w| / (2^(b-1) - 1)        -(2^(b-1) - 1) <= q <= 2^(b-1) - 1
zero point   q = round(w / s) + z,             s = (max w - min w) / (2^b - 1),   z = round(-min w / s),   0 <= q < 2^b

Absmax spends the same numbers on both signs, as suits weights. A zero point fits what is not centred; its range always
holds 0, so that zeros stay exact. (Jacob et al. 2018, sections 2 and 3)
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Grouping = int | Literal["row", "tensor"]
"""What shares a scale: so many numbers of a row, one after another (the last group may be shorter), a row, or all."""

SMALLEST = torch.finfo(torch.float32).tiny
"""What a scale is at least, so that a group of zeros stays one of zeros."""


def absmax(weight: Tensor, bits: int, group: Grouping, smallest: float = SMALLEST) -> tuple[Tensor, Tensor]:
    """Symmetric rounding. (out, in) floating -> q (out, in) int8, scale (out or 1, groups) float32"""
    limit = 2 ** (bits - 1) - 1
    parts = in_groups(weight.float(), group)
    scale = parts.abs().amax(-1) / limit
    scale = scale.clamp(min=smallest)
    return round_symmetric(weight, scale, bits, group), scale


def zero_point(weight: Tensor, bits: int, group: Grouping, smallest: float = SMALLEST) -> tuple[Tensor, Tensor, Tensor]:
    """Affine rounding. (out, in) floating -> q (out, in) uint8, scale (out or 1, groups) float32, zero uint8 alike."""
    parts = in_groups(weight.float(), group)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=smallest)
    zero = (-low / scale).round().clamp(0, 2**bits - 1)
    return round_affine(weight, scale, zero, bits, group), scale, zero.byte()


def round_symmetric(weight: Tensor, scale: Tensor, bits: int, group: Grouping) -> Tensor:
    """The nearest q with given scales, (out, in) int8."""
    limit = 2 ** (bits - 1) - 1
    return (weight.float() / spread(scale, weight.shape[1], group)).round().clamp(-limit, limit).to(torch.int8)


def round_affine(weight: Tensor, scale: Tensor, zero: Tensor, bits: int, group: Grouping) -> Tensor:
    """The nearest q with given scales and zeros, (out, in) uint8."""
    inner = weight.shape[1]
    steps = (weight.float() / spread(scale, inner, group)).round() + spread(zero.float(), inner, group)
    return steps.clamp(0, 2**bits - 1).byte()


def restore(q: Tensor, scale: Tensor, group: Grouping, zero: Tensor | None = None) -> Tensor:
    """What the integers stand for, s (q - z): (out, in) float32."""
    inner = q.shape[1]
    steps = q.float() if zero is None else q.float() - spread(zero.float(), inner, group)
    return steps * spread(scale.float(), inner, group)


def group_count(inner: int, group: Grouping) -> int:
    """How many groups a row of `inner` numbers makes."""
    return -(-inner // group) if isinstance(group, int) else 1


def in_groups(weight: Tensor, group: Grouping) -> Tensor:
    """(out, in) -> (out or 1, groups, numbers that share a scale); a shorter last group is filled with zeros."""
    if group == "tensor":
        return weight.reshape(1, 1, -1)
    if group == "row":
        return weight[:, None]
    return F.pad(weight, (0, -weight.shape[1] % group)).unflatten(1, (-1, group))


def spread(each: Tensor, inner: int, group: Grouping) -> Tensor:
    """What belongs to groups, for every number: (out or 1, groups) -> (out or 1, in or 1)."""
    return each.repeat_interleave(group, dim=1)[:, :inner] if isinstance(group, int) else each
