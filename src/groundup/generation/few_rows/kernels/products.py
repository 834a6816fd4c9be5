"""y = x W^T for few rows x, W read once in the type it is stored in, sums in float32. Needs numba.

One row is a matrix-vector product, whose time is that of reading W; so weights stored in bfloat16 cost half of
float32's. A few rows share what was read. The inner loop is a tile: R rows of W against C rows of x, whose R * C sums
stay in vector registers (Goto & van de Geijn 2008), written as LLVM instructions because no loop of Python expresses
registers. bfloat16 is the upper half of a float32: a shift widens it exactly. Integers are multiplied with inputs
rounded to 16 bits (`kernels/inputs.py`).
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

from groundup.generation.few_rows.blocks import BLOCK
from groundup.generation.few_rows.kernels.blocks import Row
from groundup.generation.few_rows.kernels.forms import FORMS, in_blocks, row_bytes
from groundup.generation.few_rows.kernels.inputs import SIZE, Inputs, not_rounded, rounded
from groundup.generation.few_rows.kernels.vectors import (
    FLOAT,
    FLOATS,
    HALF,
    INT,
    LANES,
    WIDE,
    WORD,
    load,
    multiply_add,
    row_pointer,
    sum_lanes,
)

STEP = 4 * LANES  # K is a multiple of it
# of W and of x. 6 x 2 sums, 2 vectors of x and one of W fill the 16 registers of AVX2; AVX-512 has 32
TILE_ROWS, TILE_COLUMNS = 6, 4 if WIDE else 2
BLOCK_COLUMNS = 4  # rows of x that a row of blocks is read for at once
ROWS_AHEAD = 4  # of blocks, that are asked for while one is read: they are short, and memory is slow to begin
FEWEST_FOR_TILES = 6  # below, W is read row after row, which memory likes best
FEWEST_FOR_THREADS = 1 << 17  # multiplications; below, one thread is done before the others have begun
CACHE_LINE = 64

one_at_a_time = threading.Lock()
"""To be held around a call: numba's plain threading layer does not stand two callers."""


def tile(rows: int, columns: int, unroll: int) -> Any:
    """A function (w, x, y, n, k, like) for numba: y[c * n + r] = sum over i of w[r * k + i] * x[c * k + i].

    w, x and y are addresses; `like` is an array that tells how w is stored, see `multiply`. x is of float32 where w is,
    or of bfloat16, and rounded (`rounded`) where w holds integers.

    `unroll` vectors of each row are taken at once, each with a sum of its own, so that additions need not wait.
    """

    @intrinsic
    def run(typing: Any, w: Any, x: Any, y: Any, n: Any, k: Any, like: Any) -> Any:
        form = FORMS.get(like.dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if form is not None and rows > 1:
                return context.get_dummy_value()  # never called: blocks are read row after row
            w, x, y, n, k, _ = arguments
            y_rows = [row_pointer(builder, y, FLOAT, c, n) for c in range(columns)]
            if form is None:
                stored = HALF if like.dtype == types.uint16 else FLOAT
                w_rows = [row_pointer(builder, w, stored, r, k) for r in range(rows)]
                x_rows = [row_pointer(builder, x, FLOAT, c, k) for c in range(columns)]
                found = _plain_sums(builder, w_rows, x_rows, k, unroll)
            else:
                found = _block_sums(builder, w, x, k, form, columns)
            for (r, c), total in found.items():
                builder.store(sum_lanes(builder, total), builder.gep(y_rows[c], [INT(r)]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5, like), generate

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


def _block_sums(builder: Any, w: Any, x: Any, k: Any, form: Any, columns: int) -> dict[Any, Any]:
    """The same for a row of W in blocks of integers: what is read of it is used for every row of x."""
    sums = _zeros(builder, ((0, c) for c in range(columns)))
    row, count = Row(builder, w, form), builder.sdiv(k, INT(BLOCK))
    width = builder.mul(count, INT(SIZE))
    inputs = [Inputs(builder, builder.add(x, builder.mul(width, INT(c)))) for c in range(columns)]
    with cgutils.for_range_slice(builder, INT(0), count, INT(1)) as (b, _):
        for (_, c), total in sums.items():
            builder.store(row.add_block(b, inputs[c], builder.load(total)), total)
    return {place: row.finish(builder.load(total)) for place, total in sums.items()}


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
def inputs_for(x: int, m: int, k: int, like: Any) -> Any:
    """The inputs x (M, K), float32 from an address on, as such a matrix takes them."""
    if in_blocks(like):  # type: ignore[call-arg]
        return rounded(x, m, k, like)
    return not_rounded()


@intrinsic
def row_of_inputs(typing: Any, k: Any, like: Any) -> Any:
    """Bytes of a row of K inputs, as `inputs_for` makes them."""
    told = like.dtype in FORMS

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        unit, size = (BLOCK, SIZE) if told else (1, 4)
        return builder.mul(builder.sdiv(arguments[0], INT(unit)), INT(size))

    return types.int64(types.int64, like), generate


block, single = tile(TILE_ROWS, TILE_COLUMNS, 1), tile(1, 1, STEP // LANES)
several = tile(1, BLOCK_COLUMNS, 1)


@numba.njit(cache=True)
def multiply_group(group: int, w: int, x: int, y: int, n: int, m: int, k: int, like: Any) -> None:
    """A product for `TILE_ROWS` rows of W; x as `inputs_for` makes it."""
    first, last = group * TILE_ROWS, min(n, (group + 1) * TILE_ROWS)
    row, of_x = row_bytes(k, like), row_of_inputs(k, like)  # type: ignore[call-arg]
    if in_blocks(like):  # type: ignore[call-arg]
        shared = m // BLOCK_COLUMNS * BLOCK_COLUMNS
        for i in range(first, last):
            prefetch(w + (i + ROWS_AHEAD) * row, row)  # type: ignore[call-arg]
            for j in range(0, shared, BLOCK_COLUMNS):
                several(w + i * row, x + j * of_x, y + 4 * (j * n + i), n, k, like)
            for j in range(shared, m):
                single(w + i * row, x + j * of_x, y + 4 * (j * n + i), n, k, like)
        return
    tiled = m // TILE_COLUMNS * TILE_COLUMNS if m >= FEWEST_FOR_TILES and last - first == TILE_ROWS else 0
    share = TILE_ROWS * row // max(tiled // TILE_COLUMNS, 1)  # of the next group, fetched in a tile
    for j in range(0, tiled, TILE_COLUMNS):
        prefetch(w + last * row + j // TILE_COLUMNS * share, share)  # type: ignore[call-arg]
        block(w + first * row, x + j * of_x, y + 4 * (j * n + first), n, k, like)
    for j in range(tiled, m):
        for i in range(first, last):
            single(w + i * row, x + j * of_x, y + 4 * (j * n + i), n, k, like)


@numba.njit(cache=True)
def matrix(w: Any, y: Any, n: Any) -> Any:
    """For `multiply_all`: the addresses of W (N, K) and of y (M, N), both contiguous, and N."""
    return (np.int64(w), np.int64(y), np.int64(n))


@numba.njit(cache=True)
def multiply_task(task: int, matrices: Any, x: int, inputs: Any, m: int, k: int, like: Any) -> None:
    """The same for a group of the rows of several matrices, which are counted on from one to the next."""
    source = inputs.ctypes.data if in_blocks(like) else x  # type: ignore[call-arg]
    for p in range(0, len(matrices), 3):
        w, y, n = matrices[p], matrices[p + 1], matrices[p + 2]
        groups = (n + TILE_ROWS - 1) // TILE_ROWS
        if task < groups:
            multiply_group(task, w, source, y, n, m, k, like)
            return
        task -= groups


@numba.njit(parallel=True, cache=True)
def multiply_all(matrices: Any, x: int, m: int, k: int, like: Any) -> None:
    """Multiply x by several matrices in one go: starting threads costs as much as a small product.

    Args:
        matrices: what `matrix` tells of each, one after the other.
        x: address of x (M, K), contiguous float32.
        m: M.
        k: K, a multiple of `STEP`.
        like: an array that tells how each W is stored: float32, uint16 for bfloat16, or of a type in `forms.FORMS`.
    """
    tasks, rows = 0, 0
    for p in range(2, len(matrices), 3):
        tasks += (matrices[p] + TILE_ROWS - 1) // TILE_ROWS
        rows += matrices[p]
    inputs = inputs_for(x, m, k, like)
    if m * rows * k < FEWEST_FOR_THREADS:
        for task in range(tasks):
            multiply_task(task, matrices, x, inputs, m, k, like)
    else:
        for task in numba.prange(tasks):
            multiply_task(task, matrices, x, inputs, m, k, like)


@numba.njit(cache=True)
def multiply(w: int, x: int, y: int, n: int, m: int, k: int, like: Any) -> None:
    """Put x (M, K) @ W (N, K)^T into y (M, N): `multiply_all` for one matrix."""
    multiply_all(matrix(w, y, n), x, m, k, like)
