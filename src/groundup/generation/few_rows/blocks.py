"""Matrices of integers in blocks, as the compiled products read them: see `kernels/blocks.py`.

Every quantized layer whose weights are w = scale q + offset, with a scale for each row or for groups of a multiple of
32 numbers, fits: `QuantizedLinear.levels`. What other formats keep apart (integers, scales, zeros) lies here side by
side, so that one row is one run of memory and its length alone tells where the next begins.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 32
LIKE = {
    (8, False): np.empty(0, np.int8),
    (4, False): np.empty(0, np.uint8),
    (8, True): np.empty(0, np.int64),
    (4, True): np.empty(0, np.uint64),
}
"""(bits, with an offset) -> what tells the compiled functions of such blocks."""


class Blocks:
    """A matrix in blocks.

    Attributes:
        data: (N, K / 32, bytes of a block) uint8.
        like: tells the compiled functions how it is stored.
    """

    def __init__(self, data: Tensor, like: Any):
        self.data, self.like = data, like


def blocks_of(layer: nn.Module) -> Blocks | None:
    """The blocks of a quantized linear layer, made once and kept beside it; None where its numbers do not fit."""
    kept = layer.__dict__.get("_blocks")
    source = _source(layer)
    if kept is None or kept[0] != source:
        kept = layer.__dict__["_blocks"] = (source, _made(layer))
    return kept[1]


def _source(layer: nn.Module) -> tuple[Any, ...]:
    """What changes when the stored numbers do."""
    return tuple((name, b.data_ptr(), b._version) for name, b in layer.named_buffers(recurse=False))


def _made(layer: Any) -> Blocks | None:
    levels = getattr(layer, "levels", lambda: None)()
    if levels is None:
        return None
    q, scale, offset = levels
    if q.shape[1] % BLOCK or (q.shape[1] // scale.shape[1]) % BLOCK:
        return None
    return pack(q, scale, offset)


def pack(q: Tensor, scale: Tensor, offset: Tensor | None = None) -> Blocks:
    """Blocks of w = scale q + offset.

    Args:
        q: (N, K) integers: -128 to 127, with an offset 0 to 255; of 4 bits where they lie in -8 to 7, or 0 to 15.
        scale: (N, G) float32, of each K / G numbers of a row.
        offset: (N, G) float32 or None.
    """
    rows, width = q.shape
    q = q.to(torch.int16)
    low, high = (0, 15) if offset is not None else (-8, 7)
    bits = 4 if q.numel() and int(q.min()) >= low and int(q.max()) <= high else 8
    heads = [_spread(scale, width)] + ([] if offset is None else [_spread(offset, width)])
    if bits == 8:
        body = (q & 255).to(torch.uint8).view(rows, -1, BLOCK)
    else:
        halves = (q - low).to(torch.uint8).view(rows, -1, 2, BLOCK // 2)
        body = halves[:, :, 0] | (halves[:, :, 1] << 4)
    return Blocks(torch.cat([*heads, body], dim=-1), LIKE[bits, offset is not None])


def _spread(numbers: Tensor, width: int) -> Tensor:
    """(N, G) float32 -> the bytes of each block's number, (N, K / 32, 4) uint8"""
    each = numbers.float().repeat_interleave(width // BLOCK // numbers.shape[1], dim=1).contiguous()
    return each.view(torch.uint8).view(*each.shape, 4)
