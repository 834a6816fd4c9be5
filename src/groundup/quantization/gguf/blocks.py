"""The block formats of GGUF files: numbers in rows, `block` of them together, with scales of their own.

    q8_0   32 numbers    d f16, 32 x i8                              w = d q                            8.5 bits
    q4_0   32 numbers    d f16, 32 x 4 bits                          w = d (q - 8)                      4.5 bits
    q4_K   256 numbers   D, M f16, 8 x (s, m) of 6 bits, 256 x 4     w = D s_j q - M m_j, j = 32 each   4.5 bits
    q6_K   256 numbers   256 x 6 bits, 16 x s i8, D f16              w = D s_j (q - 32), j = 16 each    6.5625 bits

Two 4-bit numbers share a byte: in q4_0 those of the first and second half of a block are its low and high bits, in q4_K
and q6_K those of neighbouring runs of 32 and 64. All functions take and give torch tensors on any device.

Source: ggml's `ggml-quants.c` (Gerganov, Kawrakow 2023): the layouts, and the way scales are searched for.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.base.gguf_container import TENSOR_TYPES, TensorType

Runs = tuple[Tensor, Tensor, Tensor | None]
"""q (B, runs, n), scale and offset (B, runs)."""

ROWS_AT_ONCE = 2**22
"""Numbers that are quantized together: what bounds the memory of the search."""


def quantize(x: Tensor, kind: TensorType | str) -> Tensor:
    """Pack numbers. (..., n) floating -> (..., bytes a row) uint8

    Raises:
        UsageError: n is no multiple of the block.
    """
    kind = TENSOR_TYPES[kind] if isinstance(kind, str) else kind
    if x.shape[-1] % kind.block:
        raise UsageError(f"rows of {x.shape[-1]} numbers cannot be {kind.name}: its blocks hold {kind.block}")
    if kind.name in FLOATS:
        return x.to(FLOATS[kind.name]).contiguous().view(torch.uint8)
    blocks = x.reshape(-1, kind.block)
    parts = blocks.split(max(1, ROWS_AT_ONCE // kind.block))
    packed = torch.cat([_QUANTIZE[kind.name](part.float()) for part in parts])
    return packed.view(*x.shape[:-1], -1)


def dequantize(packed: Tensor, kind: TensorType | str) -> Tensor:
    """The numbers that packed ones stand for. (..., bytes a row) uint8 -> (..., n) float32"""
    kind = TENSOR_TYPES[kind] if isinstance(kind, str) else kind
    if kind.name in FLOATS:
        return packed.contiguous().view(FLOATS[kind.name]).float()
    q, scale, offset = runs(packed, kind)
    numbers = scale[..., None] * q.float()
    if offset is not None:
        numbers += offset[..., None]
    return numbers.flatten(-2)


def runs(packed: Tensor, kind: TensorType) -> tuple[Tensor, Tensor, Tensor | None]:
    """The integers of packed rows and what they are multiplied by: w = scale q + offset.

    (..., bytes a row) uint8 -> q (..., runs, n) integers, scale and offset (..., runs) float32; an offset of None is 0.
    """
    parts = _RUNS[kind.name](packed.reshape(-1, kind.nbytes))
    first = packed.shape[:-1]
    q, scale, offset = (None if part is None else part.reshape(*first, -1, *part.shape[2:]) for part in parts)
    assert q is not None
    assert scale is not None
    return q, scale, offset


FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def _half_bytes(x: Tensor) -> Tensor:
    """(B, n) -> the f16 bytes of each, (B, 2 n) uint8"""
    return x.to(torch.float16).contiguous().view(torch.uint8)


def _half(packed: Tensor) -> Tensor:
    """(B, 2) uint8 -> (B, 1) float32"""
    return packed.contiguous().view(torch.float16).float()


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is."""
    return torch.where(x == 0, 0.0, 1 / x)


def _nearest(x: Tensor) -> Tensor:
    """Halves go away from zero, as C's roundf has it."""
    whole = x.abs().floor()
    return x.sign() * (whole + (2 * (x.abs() - whole)).floor())


def _quantize_q8_0(x: Tensor) -> Tensor:
    """D = max |x| / 127, q = round(x / d)"""
    d = x.abs().amax(-1, keepdim=True) / 127
    q = _nearest(x * _inverse(d)).to(torch.int8)
    return torch.cat([_half_bytes(d), q.view(torch.uint8)], -1)


def _runs_q8_0(packed: Tensor) -> Runs:
    return packed[:, None, 2:].contiguous().view(torch.int8), _half(packed[:, :2]), None


def _quantize_q4_0(x: Tensor) -> Tensor:
    """D = x_i / -8 for the x_i of largest size, so that it becomes 0; q = floor(x / d + 8.5), at most 15."""
    largest = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    d = largest / -8
    q = (x * _inverse(d) + 8.5).to(torch.uint8).clamp(max=15)
    return torch.cat([_half_bytes(d), q[:, :16] | (q[:, 16:] << 4)], -1)


def _runs_q4_0(packed: Tensor) -> Runs:
    q = torch.cat([packed[:, 2:] & 15, packed[:, 2:] >> 4], -1)
    return q[:, None].to(torch.int8) - 8, _half(packed[:, :2]), None


# -- q4_K -------------------------------------------------------------------------------------------------------------


def _quantize_q4_k(x: Tensor) -> Tensor:
    """Each run of 32: scale s and minimum m of the least weighted error; these in 6 bits, in units of D and M."""
    runs = x.view(-1, 8, 32)
    size = (runs.square().mean(-1, keepdim=True)).sqrt()
    scale, least = _scale_and_minimum(runs, size + runs.abs())  # large numbers count more
    unit_s, unit_m = (part.amax(-1, keepdim=True) / 63 for part in (scale, least))
    s, m = ((part * _inverse(unit)).round().clamp(0, 63) for part, unit in ((scale, unit_s), (least, unit_m)))
    d = unit_s.half().float() * s
    q = ((runs + (unit_m.half().float() * m)[..., None]) * _inverse(d)[..., None]).round().clamp(0, 15)
    q = torch.where(d[..., None] == 0, 0, q).to(torch.uint8).view(-1, 4, 2, 32)
    low_high = (q[:, :, 0] | (q[:, :, 1] << 4)).flatten(1)
    return torch.cat([_half_bytes(unit_s), _half_bytes(unit_m), _pack_six(s.byte(), m.byte()), low_high], -1)


def _scale_and_minimum(x: Tensor, weight: Tensor, steps: int = 20) -> tuple[Tensor, Tensor]:
    """Scale s >= 0 and offset m >= 0 with x ~ s q - m, q in 0..15, that make sum w (x - s q + m)^2 small.

    For 21 grids around the plain one, q is rounded, and s and m follow from q by weighted least squares:

        s = (W Swxq - Swx Swq) / D,   -m = (Swqq Swx - Swq Swxq) / D,   D = W Swqq - Swq^2

    x, weight (B, 8, 32) -> s, m (B, 8)
    """
    low, high = x.amin(-1).clamp(max=0), x.amax(-1)
    flat = high == low
    total, wx = weight.sum(-1), (weight * x).sum(-1)
    best_s, best_low = (high - low) / 15, low

    def rounded(grid: float) -> Tensor:
        """The numbers on a grid that begins at the best minimum so far and puts the maximum at `grid`."""
        inverse = grid * _inverse(high - best_low)
        return (inverse[..., None] * (x - best_low[..., None])).round().clamp(0, 15)

    def error(s: Tensor, low: Tensor, q: Tensor) -> Tensor:
        return (weight * (s[..., None] * q + low[..., None] - x).square()).sum(-1)

    best = error(best_s, best_low, rounded(15))
    for step in range(steps + 1):
        q = rounded(14 + 0.1 * step)
        wq = weight * q
        sum_q, sum_qq, sum_xq = wq.sum(-1), (wq * q).sum(-1), (wq * x).sum(-1)
        determinant = total * sum_qq - sum_q.square()
        s = (total * sum_xq - wx * sum_q) / determinant
        new_low = (sum_qq * wx - sum_q * sum_xq) / determinant
        # An offset above zero cannot be stored: then there is none, and s alone is fitted.
        above = new_low > 0
        s, new_low = torch.where(above, sum_xq / sum_qq, s), torch.where(above, 0.0, new_low)
        found = error(s, new_low, q)
        better = (determinant > 0) & (found < best)
        best = torch.where(better, found, best)
        best_s, best_low = torch.where(better, s, best_s), torch.where(better, new_low, best_low)
    return torch.where(flat, 0.0, best_s), torch.where(flat, -low, -best_low)


def _pack_six(s: Tensor, m: Tensor) -> Tensor:
    """Eight pairs of 6-bit numbers in 12 bytes: the low 6 bits of the first four of each, above them the high 2 bits of
    the last four, whose low 4 bits share the last four bytes. (B, 8), (B, 8) -> (B, 12)
    """
    first = [part[:, :4] | (part[:, 4:] >> 4 << 6) for part in (s, m)]
    return torch.cat([*first, (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4)], -1)


def _unpack_six(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse. (B, 12) -> (B, 8), (B, 8)"""
    a, b, last = packed.split(4, -1)
    s = torch.cat([a & 63, (last & 15) | (a >> 6 << 4)], -1)
    m = torch.cat([b & 63, (last >> 4) | (b >> 6 << 4)], -1)
    return s, m


def _runs_q4_k(packed: Tensor) -> Runs:
    s, m = _unpack_six(packed[:, 4:16])
    d, low = _half(packed[:, :2]) * s.float(), _half(packed[:, 2:4]) * m.float()
    pairs = packed[:, 16:].reshape(-1, 4, 1, 32)
    return torch.cat([pairs & 15, pairs >> 4], 2).view(-1, 8, 32), d, -low


# -- q6_K -------------------------------------------------------------------------------------------------------------


def _quantize_q6_k(x: Tensor) -> Tensor:
    """Each run of 16: the scale of the least weighted error; these in 8 bits, in units of D."""
    runs = x.view(-1, 16, 16)
    scale = _scale(runs)
    largest = scale.gather(-1, scale.abs().argmax(-1, keepdim=True))
    inverse = -128 * _inverse(largest)
    unit = _inverse(inverse).half().float()
    s = (inverse * scale).round().clamp(max=127)
    d = (unit * s)[..., None]
    q = torch.where(d == 0, 0, (runs * _inverse(d)).round().clamp(-32, 31)) + 32
    q = q.to(torch.uint8).view(-1, 2, 4, 32)  # two halves of four runs of 32
    low, high = q & 15, q >> 4
    ql = (low[:, :, :2] | (low[:, :, 2:] << 4)).flatten(1)
    qh = (high[:, :, 0] | (high[:, :, 1] << 2) | (high[:, :, 2] << 4) | (high[:, :, 3] << 6)).flatten(1)
    return torch.cat([ql, qh, s.to(torch.int8).view(torch.uint8), _half_bytes(unit)], -1)


def _scale(x: Tensor, steps: int = 9) -> Tensor:
    """The scale s with x ~ s q, q in -32..31, that makes sum x^2 (x - s q)^2 small. (B, 16, 16) -> (B, 16)

    For grids around the one whose end is the x of largest size, q is rounded and s = Swxq / Swqq, w = x^2. The error
    falls by (Swxq)^2 / Swqq, so the grid with the largest of these is kept.
    """
    largest = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    weight = x.square()
    best_s, best = torch.zeros_like(x[..., 0]), torch.full_like(x[..., 0], -1.0)
    for step in [0, *range(-steps, 0), *range(1, steps + 1)]:
        q = (x * (-(32 + 0.1 * step) * _inverse(largest))).round().clamp(-32, 31)
        sum_xq, sum_qq = (weight * x * q).sum(-1), (weight * q.square()).sum(-1)
        gain = torch.where(sum_qq > 0, sum_xq.square() / sum_qq, 0.0)
        better = gain > best
        best = torch.where(better, gain, best)
        best_s = torch.where(better, torch.where(sum_qq > 0, sum_xq / sum_qq, 0.0), best_s)
    return best_s


def _runs_q6_k(packed: Tensor) -> Runs:
    ql, qh, s, unit = packed.split([128, 64, 16, 2], -1)
    ql, qh = ql.reshape(-1, 2, 2, 32), qh.reshape(-1, 2, 1, 32)
    low = torch.cat([ql & 15, ql >> 4], 2)  # (B, 2, 4, 32)
    high = torch.cat([qh & 3, (qh >> 2) & 3, (qh >> 4) & 3, qh >> 6], 2)
    q = (low | (high << 4)).to(torch.int8) - 32
    d = _half(unit) * s.contiguous().view(torch.int8).float()  # (B, 16)
    return q.view(-1, 16, 16), d, None


_QUANTIZE: dict[str, Callable[[Tensor], Tensor]] = {
    "q8_0": _quantize_q8_0, "q4_0": _quantize_q4_0, "q4_k": _quantize_q4_k, "q6_k": _quantize_q6_k,
}  # fmt: skip
_RUNS: dict[str, Callable[[Tensor], Runs]] = {
    "q8_0": _runs_q8_0, "q4_0": _runs_q4_0, "q4_k": _runs_q4_k, "q6_k": _runs_q6_k,
}  # fmt: skip
