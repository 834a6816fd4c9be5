"""Small numbers in 32-bit words: a stream of bits, the lowest first, as GPTQ files have it.

4 bits    8 numbers a word       v0 | v1 << 4 | v2 << 8 | ...
2 bits   16 numbers a word
3 bits   32 numbers in 3 words, where the 11th and the 22nd lie across an edge
"""

import math

import torch
from torch import Tensor

from groundup.base.errors import UsageError


def period(bits: int) -> tuple[int, int]:
    """After how many numbers the pattern begins anew, and how many words that takes: (8, 1) for 4 bits."""
    together = math.lcm(bits, 32)
    return together // bits, together // 32


def pack(codes: Tensor, bits: int) -> Tensor:
    """(..., n) integers in [0, 2^bits) -> (..., n bits / 32) int32

    Raises:
        UsageError: n numbers do not fill whole words.
    """
    count, words = period(bits)
    if codes.shape[-1] % count:
        raise UsageError(
            f"{codes.shape[-1]} numbers of {bits} bits do not fill whole words: a multiple of {count} does"
        )
    codes = codes.unflatten(-1, (-1, count))
    packed = torch.zeros(*codes.shape[:-1], words, dtype=torch.int64, device=codes.device)
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        code = codes[..., i].long()
        packed[..., word] |= code << shift
        if shift + bits > 32:
            packed[..., word + 1] |= code >> (32 - shift)
    packed &= 0xFFFFFFFF
    return torch.where(packed >= 2**31, packed - 2**32, packed).int().flatten(-2)


def unpack(packed: Tensor, bits: int) -> Tensor:
    """(..., w) int32 -> (..., 32 w / bits) uint8; the inverse of `pack`."""
    count, words = period(bits)
    packed = packed.unflatten(-1, (-1, words))
    codes = torch.empty(*packed.shape[:-1], count, dtype=torch.uint8, device=packed.device)
    for i in range(count):
        word, shift = divmod(i * bits, 32)
        code = packed[..., word] >> shift  # what the sign brings in is cut off below
        if shift + bits > 32:
            inside = (1 << (32 - shift)) - 1
            code = (code & inside) | (packed[..., word + 1] << (32 - shift))
        codes[..., i] = code & ((1 << bits) - 1)
    return codes.flatten(-2)
