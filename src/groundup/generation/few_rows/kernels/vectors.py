"""Vectors of float32 numbers in LLVM: what products are written with. Needs numba."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_here = llvmlite.binding.get_host_cpu_features()
WIDE = bool(_here.get("avx512f"))
LANES = 16 if WIDE else 8  # float32 numbers in a vector of AVX-512 or AVX2; other processors split or join them

FLOAT, BYTE, HALF, WORD, INT = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
FLOATS, HALVES, WORDS = (ir.VectorType(element, LANES) for element in (FLOAT, HALF, WORD))

PAIRS = "llvm.x86.avx512.pmaddw.d.512" if WIDE and _here.get("avx512bw") else ""
if _here.get("avx2") and not WIDE:
    PAIRS = "llvm.x86.avx2.pmadd.wd"
"""The processor's instruction for `multiply_pairs`; empty where there is none."""
LOOK_UP = "llvm.x86.avx2.pshuf.b" if _here.get("avx2") else ""
"""The processor's instruction for `look_up`; empty where there is none."""


def call(builder: Any, name: str, kind: Any, arguments: list[Any]) -> Any:
    """What LLVM's own function of that name makes of the arguments."""
    signature = ir.FunctionType(kind, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def same(kind: Any, number: Any) -> Any:
    """A constant vector of one number."""
    return ir.Constant(kind, [number] * kind.count)


def choose(builder: Any, vector: Any, places: Iterable[int], other: Any = None) -> Any:
    """The numbers at these places of a vector, or of two, one after the other."""
    places = list(places)
    mask = ir.Constant(ir.VectorType(WORD, len(places)), places)
    return builder.shuffle_vector(vector, vector if other is None else other, mask)


def spread(builder: Any, number: Any) -> Any:
    """A vector whose lanes all hold the number."""
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), number, WORD(0))
    return choose(builder, one, [0] * LANES)


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
    return call(builder, f"llvm.fma.v{LANES}f32", FLOATS, [a, b, c])


def multiply_pairs(builder: Any, a: Any, b: Any) -> Any:
    """a_0 b_0 + a_1 b_1, a_2 b_2 + a_3 b_3, ...: two vectors of 2 `LANES` int16 -> int32."""
    if PAIRS:
        return call(builder, PAIRS, WORDS, [a, b])
    wide = ir.VectorType(WORD, 2 * LANES)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (choose(builder, products, range(first, 2 * LANES, 2)) for first in (0, 1))
    return builder.add(even, odd)


def look_up(builder: Any, table: Sequence[int], places: Any) -> Any:
    """The bytes at these places of a table of 16: 32 bytes, each below 16 -> 32 bytes."""
    kind = places.type
    if LOOK_UP:
        return call(builder, LOOK_UP, kind, [ir.Constant(kind, [*table, *table]), places])
    found = same(kind, table[0])
    for place, byte in enumerate(table[1:], start=1):
        there = builder.icmp_unsigned("==", places, same(kind, place))
        found = builder.select(there, same(kind, byte), found)
    return found


def fold(builder: Any, vector: Any, join: Callable[[Any, Any], Any]) -> Any:
    """All numbers of a vector joined into one, by halves."""
    width = LANES
    while width > 1:
        width //= 2
        vector = join(choose(builder, vector, range(width)), choose(builder, vector, range(width, 2 * width)))
    return builder.extract_element(vector, WORD(0))


def sum_lanes(builder: Any, vector: Any) -> Any:
    """The sum of a vector's numbers."""
    return fold(builder, vector, builder.fadd)


@intrinsic
def floats_at(typing: Any, address: Any) -> Any:
    """A pointer to float32 from an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(types.int64), generate
