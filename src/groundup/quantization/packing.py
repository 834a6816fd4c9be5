"""Numbers of less than 8 bits in bytes.

Along a row, each run of 32 numbers becomes 4 b bytes, b bits a number. For b = 4 byte i holds number i in its low half
and number i + 16 in its high half: one mask and one shift give 16 numbers that follow each other. In the same way, for
b = 2 byte i holds numbers i, i + 8, i + 16, i + 24, the lowest bits first, and for b = 1 numbers i, i + 4, .. i + 28.
Three bits are the two low ones, packed, and behind them the high one, packed.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RUN = 32


def packed_bytes(count: int, bits: int) -> int:
    """How many bytes `count` numbers take; a run that is not full takes as many as a full one."""
    return -(-count // RUN) * RUN * bits // 8


def pack(q: Tensor, bits: int) -> Tensor:
    """Pack each row. (..., n) integers, 0 <= q < 2^bits -> (..., packed_bytes(n, bits)) uint8"""
    runs = F.pad(q.byte(), (0, -q.shape[-1] % RUN)).unflatten(-1, (-1, RUN))
    return _pack_runs(runs, bits).flatten(-2)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Inverse of `pack`: the first `count` numbers of each row, (..., count) uint8."""
    runs = packed.unflatten(-1, (-1, RUN * bits // 8))
    return _unpack_runs(runs, bits).flatten(-2)[..., :count]


def _pack_runs(runs: Tensor, bits: int) -> Tensor:
    if bits == 3:
        return torch.cat((_pack_runs(runs & 3, 2), _pack_runs(runs >> 2, 1)), dim=-1)
    parts = runs.unflatten(-1, (8 // bits, -1))  # part k holds what goes to bits k b ..
    packed = parts[..., 0, :].clone()
    for k in range(1, 8 // bits):
        packed |= parts[..., k, :] << k * bits
    return packed


def _unpack_runs(runs: Tensor, bits: int) -> Tensor:
    if bits == 3:
        low, high = runs.split((8, 4), dim=-1)
        return _unpack_runs(low, 2) | _unpack_runs(high, 1) << 2
    mask = 2**bits - 1
    return torch.cat([runs >> k * bits & mask for k in range(8 // bits)], dim=-1)


def pack_pairs(q: Tensor) -> Tensor:
    """Two neighbours a byte, the first in the high half: the low 4 bits of (..., n) integers -> (..., n / 2) uint8."""
    return (q[..., ::2].byte() & 15) << 4 | (q[..., 1::2].byte() & 15)


def unpack_pairs(packed: Tensor) -> Tensor:
    """Inverse of `pack_pairs`, (..., n) uint8, 0 to 15."""
    return torch.stack((packed >> 4, packed & 15), dim=-1).flatten(-2)
