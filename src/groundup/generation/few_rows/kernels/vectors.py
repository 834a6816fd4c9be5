"""Vectors of float32 numbers in LLVM: what products are written with. Needs numba."""

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
LANES = 16 if WIDE else 8  # float32 numbers in a vector of AVX-512 or AVX2; other processors split or join them

FLOAT, HALF, WORD, INT = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOATS, HALVES, WORDS = (ir.VectorType(element, LANES) for element in (FLOAT, HALF, WORD))


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


@intrinsic
def floats_at(typing: Any, address: Any) -> Any:
    """A pointer to float32 from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate
