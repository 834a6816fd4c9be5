"""Matrices of integers in blocks, as the compiled products read them: see `kernels/blocks.py`.

Every quantized layer whose weights are w = scale q + offset, or places in NF4's or FP4's table, with a scale for each
row or for groups of a multiple of 32 numbers, fits: `QuantizedLinear.levels`. What other formats keep apart (integers,
scales, zeros) lies here side by side, so that one row is one run of memory and its length alone tells where the next
begins.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from groundup.quantization.linear import Levels

BLOCK = 32
LIKE = {
    (8, False, False): np.empty(0, np.int8),
    (4, False, False): np.empty(0, np.uint8),
    (8, True, False): np.empty(0, np.int64),
    (4, True, False): np.empty(0, np.uint64),
    (8, False, True): np.empty(0, np.int16),
    (4, False, True): np.empty(0, np.int32),
}
"""(bits, with an offset, with a scale for the whole row) -> what tells the compiled functions of such blocks."""
TABLES = {"nf4": np.empty(0, np.complex64), "fp4": np.empty(0, np.complex128)}
TABLE_ORDER = [*range(8), *range(16, 24), *range(8, 16), *range(24, 32)]
"""Which number of a block of a table lies at each of its 32 places, and the other way round."""


class Blocks:
    """A matrix in blocks.

    Attributes:
        data: (N, bytes of a row) uint8.
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
    width, groups = levels.q.shape[1], levels.scale.shape[1]
    return None if width % BLOCK or (width // groups) % BLOCK else pack(levels)


def pack(levels: Levels) -> Blocks:
    """A matrix in blocks; its integers lie in -128 to 127, with an offset in 0 to 255.

    They take 4 bits each where they lie in -8 to 7, or in 0 to 15.
    """
    q, scale, offset, table = levels
    rows, width = q.shape
    if table:
        places = q.view(rows, -1, BLOCK)[..., TABLE_ORDER]
        body = places[..., : BLOCK // 2] | (places[..., BLOCK // 2 :] << 4)
        return Blocks(torch.cat([_spread(scale, width), body], dim=-1).flatten(1), TABLES[table])

    q = q.to(torch.int16).view(rows, -1, BLOCK)
    low, high = (0, 15) if offset is not None else (-8, 7)
    bits = 4 if q.numel() and int(q.min()) >= low and int(q.max()) <= high else 8
    body = _quarters((q - low).to(torch.uint8)) if bits == 4 else (q & 255).to(torch.uint8)
    if offset is None and scale.shape[1] == 1:
        return Blocks(torch.cat([_bytes(scale)[:, 0], body.flatten(1)], dim=-1), LIKE[bits, False, True])
    heads = [_spread(scale, width)] + ([] if offset is None else [_spread(offset, width)])
    return Blocks(torch.cat([*heads, body], dim=-1).flatten(1), LIKE[bits, offset is not None, False])


def _quarters(numbers: Tensor) -> Tensor:
    """32 numbers of 4 bits, j, j + 8, j + 16 and j + 24 side by side: (N, blocks, 32) uint8 -> (N, blocks, 16)"""
    first, second, third, fourth = numbers.unflatten(-1, (4, 8)).unbind(-2)
    return torch.stack([first | second << 4, third | fourth << 4], dim=-1).flatten(-2)


def _spread(numbers: Tensor, width: int) -> Tensor:
    """(N, G) float32 -> the bytes of each block's number, (N, K / 32, 4) uint8"""
    return _bytes(numbers.float().repeat_interleave(width // BLOCK // numbers.shape[1], dim=1))


def _bytes(numbers: Tensor) -> Tensor:
    """(N, G) -> the bytes of each as float32, (N, G, 4) uint8"""
    return numbers.float().contiguous().view(torch.uint8).view(*numbers.shape, 4)
