"""y = x W^T for few rows x, W read once in the type it is stored in, all arithmetic in float32. Needs numba.

One row is a matrix-vector product, whose time is that of reading W; so weights stored in bfloat16 cost half of
float32's. A few rows share what was read. The inner loop is a tile: R rows of W against C rows of x, whose R * C sums
stay in vector registers (Goto & van de Geijn 2008), written as LLVM instructions because no loop of Python expresses
registers. bfloat16 is the upper half of a float32: a shift widens it exactly.
"""

import functools
import itertools
import threading
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from groundup.generation.few_rows.kernels.blocks import BLOCK, BYTE, FORMS, add_block, load_block
from groundup.generation.few_rows.kernels.vectors import (
    FLOAT,
    FLOATS,
    HALF,
    INT,
    LANES,
    WIDE,
    WORD,
    floats_at,
    load,
    multiply_add,
    row_pointer,
    sum_lanes,
)

STEP = 4 * LANES  # K is a multiple of it
# of W and of x. 6 x 2 sums, 2 vectors of x and one of W fill the 16 registers of AVX2; AVX-512 has 32
TILE_ROWS, TILE_COLUMNS = 6, 4 if WIDE else 2
BLOCK_COLUMNS = 4  # rows of x that a row of blocks is read for at once
FEWEST_FOR_TILES = 6  # below, W is read row after row, which memory likes best
FEWEST_FOR_THREADS = 1 << 17  # multiplications; below, one thread is done before the others have begun
CACHE_LINE = 64

one_at_a_time = threading.Lock()
"""To be held around a call: numba's plain threading layer does not stand two callers."""


def tile(rows: int, columns: int, unroll: int) -> Any:
    """A function (w, x, totals, y, n, k, like) for numba: y[c * n + r] = sum over i of w[r * k + i] * x[c * k + i].

    w, x, totals and y are addresses; `like` is an array that tells how w is stored, see `multiply`; `totals` holds the
    sums of x's blocks (`block_totals`), which matrices in blocks need.

    `unroll` vectors of each row are taken at once, each with a sum of its own, so that additions need not wait.
    """

    @intrinsic
    def run(typing: Any, w: Any, x: Any, totals: Any, y: Any, n: Any, k: Any, like: Any) -> Any:
        form = FORMS.get(like.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, x, totals, y, n, k, _ = arguments
            x_rows = [row_pointer(builder, x, FLOAT, c, k) for c in range(columns)]
            y_rows = [row_pointer(builder, y, FLOAT, c, n) for c in range(columns)]
            if form is None:
                stored = HALF if like.dtype == types.uint16 else FLOAT
                w_rows = [row_pointer(builder, w, stored, r, k) for r in range(rows)]
                found = _plain_sums(builder, w_rows, x_rows, k, unroll)
            else:
                found = _block_sums(builder, w, x_rows, totals, k, form, rows)
            for (r, c), total in found.items():
                builder.store(sum_lanes(builder, total), builder.gep(y_rows[c], [INT(r)]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6, like), generate

    return run


def _zeros(builder: Any, places: Any) -> dict[Any, Any]:
    """A vector of sums for each place."""
    zero = ir.Constant(FLOATS, [0.0] * LANES)
    return {place: cgutils.alloca_once_value(builder, zero) for place in places}


def _plain_sums(builder: Any, w_rows: Any, x_rows: Any, k: Any, unroll: int) -> dict[Any, Any]:
    """The sums of every row of W and x, lane by lane, for W in floating point."""
    rows, columns = range(len(w_rows)), range(len(x_rows))
    sums = _zeros(builder, itertools.product(rows, columns, range(unroll)))
    with cgutils.for_range_slice(builder, INT(0), k, INT(LANES * unroll)) as (i, _):
        steps = [builder.add(i, INT(LANES * u)) for u in range(unroll)]
        numbers = {(c, u): load(builder, x_rows[c], steps[u]) for c in columns for u in range(unroll)}
        weights = {(r, u): load(builder, w_rows[r], steps[u]) for r in rows for u in range(unroll)}
        for (r, c, u), total in sums.items():
            builder.store(multiply_add(builder, weights[r, u], numbers[c, u], builder.load(total)), total)
    return {
        (r, c): functools.reduce(builder.fadd, [builder.load(sums[r, c, u]) for u in range(unroll)])
        for r, c in itertools.product(rows, columns)
    }


def _block_sums(builder: Any, w: Any, x_rows: Any, totals: Any, k: Any, form: Any, rows: int) -> dict[Any, Any]:
    """The same for W in blocks of integers: what is read of it is used for every row of x."""
    columns = range(len(x_rows))
    sums = _zeros(builder, itertools.product(range(rows), columns))
    count = builder.sdiv(k, INT(BLOCK))
    stride = builder.mul(count, INT(form.size))
    w_rows = [builder.inttoptr(builder.add(w, builder.mul(stride, INT(r))), BYTE.as_pointer()) for r in range(rows)]
    t_rows = [row_pointer(builder, totals, FLOAT, c, builder.mul(count, INT(LANES))) for c in columns]
    with cgutils.for_range_slice(builder, INT(0), count, INT(1)) as (b, _):
        numbers = [load_block(builder, row, builder.mul(b, INT(BLOCK))) for row in x_rows]
        of_blocks = [load(builder, row, builder.mul(b, INT(LANES))) for row in t_rows]
        for r, c in sums:
            place = builder.gep(w_rows[r], [builder.mul(b, INT(form.size))])
            added = add_block(builder, place, form, numbers[c], of_blocks[c], builder.load(sums[r, c]))
            builder.store(added, sums[r, c])
    return {place: builder.load(total) for place, total in sums.items()}


@intrinsic
def row_bytes(typing: Any, k: Any, like: Any) -> Any:
    """Bytes of a row of K numbers in the form that `like` tells."""
    form, itemsize = FORMS.get(like.dtype), like.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size, unit = (itemsize, 1) if form is None else (form.size, BLOCK)
        return builder.mul(builder.sdiv(arguments[0], INT(unit)), INT(size))

    return types.int64(types.int64, like), generate


@intrinsic
def in_blocks(typing: Any, like: Any) -> Any:
    """Whether `like` tells of blocks of integers."""
    told = like.dtype in FORMS

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(told))

    return types.boolean(like), generate


@numba.njit(cache=True)
def block_totals(x: Any, m: Any, k: Any) -> Any:
    """The sums of every block of `BLOCK` numbers of x (M, K), lane by lane: (M, K / BLOCK, LANES) float32."""
    numbers = numba.carray(floats_at(x), (m, k // BLOCK, BLOCK // LANES, LANES))  # type: ignore[call-arg]
    found = np.zeros((m, k // BLOCK, LANES), np.float32)
    for j in range(m):
        for b in range(k // BLOCK):
            for v in range(BLOCK // LANES):
                for lane in range(LANES):
                    found[j, b, lane] += numbers[j, b, v, lane]
    return found


@intrinsic
def prefetch(typing: Any, address: Any, size: Any) -> Any:
    """Ask for the `size` bytes from `address` on; beyond the end of a matrix this does nothing."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, size = arguments
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, WORD, WORD, WORD])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, INT(0), size, INT(CACHE_LINE)) as (i, _):
            place = builder.inttoptr(builder.add(address, i), byte)
            builder.call(ask, [place, WORD(0), WORD(2), WORD(1)])  # to read, into the second cache, data
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@numba.njit(cache=True)
def no_totals() -> Any:
    """What stands for `block_totals` where no matrix is in blocks."""
    return np.zeros((1, 0, 0), np.float32)


block, single = tile(TILE_ROWS, TILE_COLUMNS, 1), tile(1, 1, STEP // LANES)
several = tile(1, BLOCK_COLUMNS, 1)


@numba.njit(cache=True)
def multiply_group(group: int, w: int, x: int, totals: int, y: int, n: int, m: int, k: int, like: Any) -> None:
    """`multiply` for `TILE_ROWS` rows of W."""
    first, last = group * TILE_ROWS, min(n, (group + 1) * TILE_ROWS)
    row = row_bytes(k, like)  # type: ignore[call-arg]
    if in_blocks(like):  # type: ignore[call-arg]
        of_row = 4 * k // BLOCK * LANES
        shared = m // BLOCK_COLUMNS * BLOCK_COLUMNS
        for i in range(first, last):
            for j in range(0, shared, BLOCK_COLUMNS):
                several(w + i * row, x + 4 * j * k, totals + j * of_row, y + 4 * (j * n + i), n, k, like)
            for j in range(shared, m):
                single(w + i * row, x + 4 * j * k, totals + j * of_row, y + 4 * (j * n + i), n, k, like)
        return
    tiled = m // TILE_COLUMNS * TILE_COLUMNS if m >= FEWEST_FOR_TILES and last - first == TILE_ROWS else 0
    share = TILE_ROWS * row // max(tiled // TILE_COLUMNS, 1)  # of the next group, fetched in a tile
    for j in range(0, tiled, TILE_COLUMNS):
        prefetch(w + last * row + j // TILE_COLUMNS * share, share)  # type: ignore[call-arg]
        block(w + first * row, x + 4 * j * k, totals, y + 4 * (j * n + first), n, k, like)
    for j in range(tiled, m):
        for i in range(first, last):
            single(w + i * row, x + 4 * j * k, totals, y + 4 * (j * n + i), n, k, like)


@numba.njit(parallel=True, cache=True)
def multiply(w: int, x: int, y: int, n: int, m: int, k: int, like: Any) -> None:
    """Put x (M, K) @ W (N, K)^T into y (M, N).

    Args:
        w: address of W, contiguous.
        x: address of x, contiguous float32.
        y: address of y, contiguous float32.
        n: N.
        m: M.
        k: K, a multiple of `STEP`.
        like: an array that tells how W is stored: float32, uint16 for bfloat16, or of a type in `blocks.FORMS`.
    """
    groups = (n + TILE_ROWS - 1) // TILE_ROWS
    sums = no_totals()
    if in_blocks(like):  # type: ignore[call-arg]
        sums = block_totals(x, m, k)
    totals = sums.ctypes.data
    if m * n * k < FEWEST_FOR_THREADS:
        for group in range(groups):
            multiply_group(group, w, x, totals, y, n, m, k, like)
    else:
        for group in numba.prange(groups):
            multiply_group(group, w, x, totals, y, n, m, k, like)
