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

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
LANES = 16 if WIDE else 8  # float32 numbers in a vector of AVX-512 or AVX2; other processors split or join them
STEP = 4 * LANES  # K is a multiple of it
# of W and of x. 6 x 2 sums, 2 vectors of x and one of W fill the 16 registers of AVX2; AVX-512 has 32
TILE_ROWS, TILE_COLUMNS = 6, 4 if WIDE else 2
FEWEST_FOR_TILES = 6  # below, W is read row after row, which memory likes best
FEWEST_FOR_THREADS = 1 << 17  # multiplications; below, one thread is done before the others have begun
CACHE_LINE = 64

FLOAT, HALF, WORD, INT = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOATS, HALVES, WORDS = (ir.VectorType(element, LANES) for element in (FLOAT, HALF, WORD))

one_at_a_time = threading.Lock()
"""To be held around a call: numba's plain threading layer does not stand two callers."""


def tile(rows: int, columns: int, unroll: int) -> Any:
    """A function (w, x, y, n, k, like) for numba: y[c * n + r] = sum over i of w[r * k + i] * x[c * k + i].

    w, x and y are addresses; `like` is an array of the type of w, see `multiply`.

    `unroll` vectors of each row are taken at once, each with a sum of its own, so that additions need not wait.
    """

    @intrinsic
    def run(typing: Any, w: Any, x: Any, y: Any, n: Any, k: Any, like: Any) -> Any:
        stored = HALF if like.dtype == types.uint16 else FLOAT

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            w, x, y, n, k, _ = arguments
            w_rows = [row_pointer(builder, w, stored, r, k) for r in range(rows)]
            x_rows = [row_pointer(builder, x, FLOAT, c, k) for c in range(columns)]
            y_rows = [row_pointer(builder, y, FLOAT, c, n) for c in range(columns)]
            places = list(itertools.product(range(rows), range(columns), range(unroll)))
            zero = ir.Constant(FLOATS, [0.0] * LANES)
            sums = {place: cgutils.alloca_once_value(builder, zero) for place in places}
            with cgutils.for_range_slice(builder, INT(0), k, INT(LANES * unroll)) as (i, _):
                steps = [builder.add(i, INT(LANES * u)) for u in range(unroll)]
                numbers = {(c, u): load(builder, x_rows[c], steps[u]) for c in range(columns) for u in range(unroll)}
                weights = {(r, u): load(builder, w_rows[r], steps[u]) for r in range(rows) for u in range(unroll)}
                for (r, c, u), total in sums.items():
                    added = multiply_add(builder, weights[r, u], numbers[c, u], builder.load(total))
                    builder.store(added, total)
            for r, c in itertools.product(range(rows), range(columns)):
                vectors = [builder.load(sums[r, c, u]) for u in range(unroll)]
                total = sum_lanes(builder, functools.reduce(builder.fadd, vectors))
                builder.store(total, builder.gep(y_rows[c], [INT(r)]))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5, like), generate

    return run


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


def row_pointer(builder: Any, address: Any, element: Any, row: int, length: Any) -> Any:
    """Where row number `row` of a matrix begins."""
    start = builder.inttoptr(address, element.as_pointer())
    return builder.gep(start, [builder.mul(INT(row), length)])


def load(builder: Any, row: Any, i: Any) -> Any:
    """`LANES` numbers from place i on, as float32."""
    place = builder.gep(row, [i])
    if row.type.pointee == FLOAT:
        return builder.load(builder.bitcast(place, FLOATS.as_pointer()), align=4)
    halves = builder.load(builder.bitcast(place, HALVES.as_pointer()), align=2)
    words = builder.shl(builder.zext(halves, WORDS), ir.Constant(WORDS, [16] * LANES))
    return builder.bitcast(words, FLOATS)


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """A * b + c in one instruction."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32"), [a, b, c])


def sum_lanes(builder: Any, vector: Any) -> Any:
    """The sum of a vector's numbers, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        halves = ([*range(width)], [*range(width, 2 * width)])
        kind = ir.VectorType(WORD, width)
        low, high = (builder.shuffle_vector(vector, vector, ir.Constant(kind, half)) for half in halves)
        vector = builder.fadd(low, high)
    return builder.extract_element(vector, WORD(0))


block, single = tile(TILE_ROWS, TILE_COLUMNS, 1), tile(1, 1, STEP // LANES)


@numba.njit(cache=True)
def multiply_group(group: int, w: int, x: int, y: int, n: int, m: int, k: int, like: Any) -> None:
    """`multiply` for `TILE_ROWS` rows of W."""
    first, last = group * TILE_ROWS, min(n, (group + 1) * TILE_ROWS)
    tiled = m // TILE_COLUMNS * TILE_COLUMNS if m >= FEWEST_FOR_TILES and last - first == TILE_ROWS else 0
    share = TILE_ROWS * k * like.itemsize // max(tiled // TILE_COLUMNS, 1)  # of the next group, fetched in a tile
    for j in range(0, tiled, TILE_COLUMNS):
        prefetch(w + last * k * like.itemsize + j // TILE_COLUMNS * share, share)  # type: ignore[call-arg]
        block(w + first * k * like.itemsize, x + 4 * j * k, y + 4 * (j * n + first), n, k, like)
    for j in range(tiled, m):
        for i in range(first, last):
            single(w + i * k * like.itemsize, x + 4 * j * k, y + 4 * (j * n + i), n, k, like)


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
        like: an array of the type of W: float32, or uint16 for bfloat16.
    """
    groups = (n + TILE_ROWS - 1) // TILE_ROWS
    if m * n * k < FEWEST_FOR_THREADS:
        for group in range(groups):
            multiply_group(group, w, x, y, n, m, k, like)
    else:
        for group in numba.prange(groups):
            multiply_group(group, w, x, y, n, m, k, like)
