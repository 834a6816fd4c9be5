"""Inputs rounded to 16 bits, as products with integers take them. Needs numba.

    s_b = max |x_i| / 32767,   c_i = round(x_i / s_b)        b: blocks of 32 numbers

An error of at most s_b / 2 in each number: a hundredth of what storing it in bfloat16 costs. One instruction then
multiplies 16 integers and adds them in pairs, where floating numbers need a conversion and a product for every 8.

    a block    32 x int16 | totals, lane by lane | s_b (float32)

The totals add up to the sum of its s_b c_i (float32), or, for integers that are stored with 8 added, to -8 times the
sum of its c_i (int32).
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.generation.few_rows.blocks import BLOCK
from groundup.generation.few_rows.kernels.forms import FORMS
from groundup.generation.few_rows.kernels.vectors import (
    BYTE,
    FLOAT,
    FLOATS,
    HALF,
    INT,
    LANES,
    WORDS,
    call,
    fold,
    load,
    same,
    spread,
)

VECTORS = BLOCK // LANES
MOST = 32767  # of 16 bits
TOTALS, SCALE = 2 * BLOCK, 2 * BLOCK + 4 * LANES  # where they begin in a block
SIZE = SCALE + 64  # bytes of a block, so that all of them begin at a cache line
LEAST = 1e-30  # what is below is all zeros


@intrinsic
def round_block(typing: Any, x: Any, out: Any, like: Any) -> Any:
    """Write a block for the 32 float32 at address x. What is not finite makes the whole block NaN."""
    shifted = FORMS[like.dtype].shifted if like.dtype in FORMS else False

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = builder.inttoptr(arguments[0], FLOAT.as_pointer())
        out = builder.inttoptr(arguments[1], BYTE.as_pointer())
        numbers = [load(builder, source, INT(LANES * v)) for v in range(VECTORS)]

        scale = builder.fdiv(_largest(builder, numbers), FLOAT(MOST))
        factor = spread(builder, builder.fdiv(FLOAT(1.0), scale))
        codes = [_rounded(builder, builder.fmul(one, factor)) for one in numbers]
        halves = ir.VectorType(HALF, LANES)
        for v, code in enumerate(codes):
            place = builder.gep(out, [INT(2 * LANES * v)])
            builder.store(builder.trunc(code, halves), builder.bitcast(place, halves.as_pointer()), align=1)

        scale = builder.fadd(scale, _nan_if_not_finite(builder, numbers))
        total = codes[0]
        for code in codes[1:]:
            total = builder.add(total, code)
        if shifted:
            _store(builder, builder.mul(total, same(WORDS, -8)), out, TOTALS)
        else:
            _store(builder, builder.fmul(builder.sitofp(total, FLOATS), spread(builder, scale)), out, TOTALS)
        _store(builder, scale, out, SCALE)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, like), generate


def _largest(builder: Any, numbers: list[Any]) -> Any:
    """The largest absolute value, at least `LEAST`."""

    def larger(a: Any, b: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", a, b), a, b)

    found = same(FLOATS, LEAST)
    for one in numbers:
        found = larger(call(builder, f"llvm.fabs.v{LANES}f32", FLOATS, [one]), found)
    return fold(builder, found, larger)


def _rounded(builder: Any, numbers: Any) -> Any:
    """The nearest integers, int32."""
    return builder.fptosi(call(builder, f"llvm.rint.v{LANES}f32", FLOATS, [numbers]), WORDS)


def _nan_if_not_finite(builder: Any, numbers: list[Any]) -> Any:
    """0, or NaN: x - x is 0 for what is finite."""
    found = same(FLOATS, 0.0)
    for one in numbers:
        found = builder.fadd(found, builder.fsub(one, one))
    return fold(builder, found, builder.fadd)


def _store(builder: Any, what: Any, out: Any, at: int) -> None:
    place = builder.bitcast(builder.gep(out, [INT(at)]), what.type.as_pointer())
    builder.store(what, place, align=1)


@numba.njit(cache=True)
def rounded(x: Any, m: Any, k: Any, like: Any) -> Any:
    """The blocks of x (M, K), float32 from an address on, for matrices of a form: (M, K / 32, `SIZE`) uint8."""
    blocks = np.empty((m, k // BLOCK, SIZE), np.uint8)
    for b in range(m * (k // BLOCK)):
        round_block(x + 4 * BLOCK * b, blocks.ctypes.data + SIZE * b, like)  # type: ignore[call-arg]
    return blocks


@numba.njit(cache=True)
def not_rounded() -> Any:
    """What stands for `rounded` where no matrix holds integers."""
    return np.empty((1, 0, 0), np.uint8)


class Inputs:
    """A row of rounded inputs in a function that is being written."""

    def __init__(self, builder: Any, address: Any):
        self.builder, self.start = builder, builder.inttoptr(address, BYTE.as_pointer())

    def _read(self, block: Any, at: int, kind: Any) -> Any:
        place = self.builder.gep(self.start, [self.builder.add(self.builder.mul(block, INT(SIZE)), INT(at))])
        return self.builder.load(self.builder.bitcast(place, kind.as_pointer()), align=1)

    def codes(self, block: Any) -> list[Any]:
        """Its numbers, in vectors of 2 `LANES` int16."""
        kind = ir.VectorType(HALF, 2 * LANES)
        return [self._read(block, 4 * LANES * v, kind) for v in range(BLOCK // (2 * LANES))]

    def totals(self, block: Any) -> Any:
        """Numbers that add up to the sum of the block, float32."""
        return self._read(block, TOTALS, FLOATS)

    def eights(self, block: Any) -> Any:
        """Numbers that add up to -8 times the sum of its numbers, int32."""
        return self._read(block, TOTALS, WORDS)

    def scale(self, block: Any) -> Any:
        """The scale, in all lanes."""
        return spread(self.builder, self._read(block, SCALE, FLOAT))
