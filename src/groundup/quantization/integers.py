"""Weights rounded to integers."""

from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.quantization import rounding
from groundup.quantization.linear import Levels, QuantizedLinear
from groundup.quantization.packing import pack, pack_pairs, packed_bytes, unpack, unpack_pairs
from groundup.quantization.rounding import Grouping, group_count, restore, spread

HALF_SMALLEST = 2.0**-24
"""The smallest positive float16."""


class Int8Linear(QuantizedLinear):
    """8-bit integers with a scale for each row.

    s_i = max_j |w_ij| / 127,   q_ij = round(w_ij / s_i)

    Attributes:
        q: (out, in) int8.
        scale: (out,) float32.
    """

    q: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device: Any = None):
        super().__init__(in_features, out_features, bias, device)
        self.register_buffer("q", torch.zeros(out_features, in_features, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.zeros(out_features, device=device))

    @classmethod
    def of(cls, layer: nn.Module) -> Self:
        weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr]
        new = cls(weight.shape[1], weight.shape[0], device="meta")
        new.bias = layer.bias  # type: ignore[assignment]
        new.q, scale = rounding.absmax(weight, 8, "row")
        new.scale = scale[:, 0]
        return new

    def dequantize(self) -> Tensor:
        return self.q.float() * self.scale[:, None]

    def levels(self) -> Levels:
        return Levels(self.q, self.scale[:, None])


class IntegerLinear(QuantizedLinear):
    """Integers of 2, 3, 4 or 8 bits, packed, with a scale for each group (`rounding`, `packing`).

    Args:
        in_features, out_features, bias: see QuantizedLinear.
        bits: of a number.
        group: what shares a scale.
        symmetric: absmax rounding; otherwise each group has a zero point too.

    Attributes:
        packed: (out, bytes) uint8: q, and where symmetric q + 2^(b-1), packed.
        scale: (out, groups) float16; for a whole tensor (1, 1).
        zero: uint8, shaped as scale, or None.
    """

    packed: Tensor
    scale: Tensor
    zero: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: Any = None,
        *,
        bits: int = 4,
        group: Grouping = 32,
        symmetric: bool = True,
    ):
        super().__init__(in_features, out_features, bias, device)
        self.bits = bits
        self.group: Grouping = group
        scales = (1 if group == "tensor" else out_features, group_count(in_features, group))
        size = packed_bytes(in_features, bits)
        self.register_buffer("packed", torch.zeros(out_features, size, dtype=torch.uint8, device=device))
        self.register_buffer("scale", torch.zeros(scales, dtype=torch.float16, device=device))
        zero = None if symmetric else torch.zeros(scales, dtype=torch.uint8, device=device)
        self.register_buffer("zero", zero)

    @classmethod
    def of(cls, layer: nn.Module, bits: int = 4, group: Grouping = 32, symmetric: bool = True) -> Self:
        """The layer in `bits` bits; the scales are rounded to float16 before the numbers are.

        Raises:
            UsageError: a number is not finite, or so large that its scale is beyond float16.
        """
        weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr]
        new = cls(weight.shape[1], weight.shape[0], device="meta", bits=bits, group=group, symmetric=symmetric)
        new.bias = layer.bias  # type: ignore[assignment]
        if symmetric:
            _, scale = rounding.absmax(weight, bits, group, HALF_SMALLEST)
            new.scale = _as_half(scale)
            q = rounding.round_symmetric(weight, new.scale.float(), bits, group) + 2 ** (bits - 1)
        else:
            _, scale, new.zero = rounding.zero_point(weight, bits, group, HALF_SMALLEST)
            new.scale = _as_half(scale)
            q = rounding.round_affine(weight, new.scale.float(), new.zero, bits, group)
        new.packed = pack(q, bits)
        return new

    def integers(self) -> Tensor:
        """The numbers q, (out, in): int8 where symmetric, uint8 otherwise."""
        q = unpack(self.packed, self.bits, self.in_features)
        return q if self.zero is not None else (q.to(torch.int16) - 2 ** (self.bits - 1)).to(torch.int8)

    def dequantize(self) -> Tensor:
        return restore(self.integers(), self.scale, self.group, self.zero)

    def levels(self) -> Levels:
        scale = self.scale.float()
        offset = None if self.zero is None else -scale * self.zero.float()
        return Levels(self.integers(), self._even(scale), None if offset is None else self._even(offset))

    def _even(self, each: Tensor) -> Tensor:
        """Numbers of groups, for every row; for every input where the last group is shorter."""
        if isinstance(self.group, int) and self.in_features % self.group:
            each = spread(each, self.in_features, self.group)
        return each.expand(self.out_features, -1)


class ChatGLMLinear(QuantizedLinear):
    """Integers as the ChatGLM releases store them: 8 or 4 bits with a scale for each row, all of it in float16.

    s_i = max_j |w_ij| / (2^(b-1) - 1),   q_ij = round(w_ij / s_i)

    Four bits are two's complement, two neighbours a byte, the first in the high half.

    Args:
        in_features, out_features, bias: see QuantizedLinear.
        bits: 8 or 4.

    Attributes:
        q: (out, in b / 8) int8. Called `weight` in their files.
        scale: (out,) float16. Called `weight_scale`.

    Raises:
        UsageError: four bits and an odd number of inputs.
    """

    q: Tensor
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: bool = False, device: Any = None, *, bits: int = 8):
        super().__init__(in_features, out_features, bias, device)
        if bits == 4 and in_features % 2:
            raise UsageError(f"chatglm_int4 stores two numbers a byte: {in_features} inputs are odd. Take `int4`")
        self.bits = bits
        size = in_features * bits // 8
        self.register_buffer("q", torch.zeros(out_features, size, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.zeros(out_features, dtype=torch.float16, device=device))

    @classmethod
    def of(cls, layer: nn.Module, bits: int = 8) -> Self:
        """The layer in 8 or 4 bits."""
        weight: Tensor = layer.weight.detach().half()  # type: ignore[operator, union-attr]
        new = cls(weight.shape[1], weight.shape[0], device="meta", bits=bits)
        new.bias = layer.bias  # type: ignore[assignment]
        limit = 2 ** (bits - 1) - 1
        new.scale = _as_half((weight.abs().amax(1) / limit).clamp(min=HALF_SMALLEST))
        q = (weight / new.scale[:, None]).round().clamp(-limit, limit).to(torch.int8)
        new.q = q if bits == 8 else pack_pairs(q).view(torch.int8)
        return new

    def integers(self) -> Tensor:
        """The numbers q, (out, in) int8."""
        if self.bits == 8:
            return self.q
        halves = unpack_pairs(self.q.view(torch.uint8))
        return (halves ^ 8).to(torch.int8) - 8  # two's complement of four bits

    def dequantize(self) -> Tensor:
        return self.integers().float() * self.scale.float()[:, None]

    def levels(self) -> Levels:
        return Levels(self.integers(), self.scale.float()[:, None])


def _as_half(scale: Tensor) -> Tensor:
    half = scale.half()
    if not half.is_meta and not half.isfinite().all():
        raise UsageError(
            "a weight is not finite, or its scale is beyond float16 (65504): leave the layer out by `skip`"
        )
    return half
