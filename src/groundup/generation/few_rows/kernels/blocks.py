"""Rows of integers in blocks, as products read them. Needs numba.

    block of 8 bits    scale (float32) | 32 x int8                       36 bytes    w = scale q
    block of 4 bits    scale (float32) | 16 bytes                        20 bytes    w = scale (q - 8)
    with an offset     scale (float32) | offset (float32) | the same                 w = scale q + offset, q unsigned

Byte i of a block of 4 bits holds number i in its lower half and number i + 16 in its upper half. With the sum of the
block's inputs at hand, an offset is one more product a block and not one a number:

    sum_i (scale q_i + offset) x_i = scale sum_i q_i x_i + offset sum_i x_i
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from groundup.generation.few_rows.kernels.vectors import FLOAT, FLOATS, INT, LANES, WORD, WORDS, load, multiply_add

BLOCK = 32
BYTE = ir.IntType(8)
BYTES = ir.VectorType(BYTE, LANES)
VECTORS = BLOCK // LANES


class Form(NamedTuple):
    """A kind of block."""

    bits: int
    offset: bool

    @property
    def head(self) -> int:
        """Bytes before the integers."""
        return 8 if self.offset else 4

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return self.head + BLOCK * self.bits // 8


FORMS = {
    types.int8: Form(8, False),
    types.uint8: Form(4, False),
    types.int64: Form(8, True),
    types.uint64: Form(4, True),
}
"""The type of the array by which a compiled function is told the form of a matrix -> that form."""


def spread(builder: Any, number: Any) -> Any:
    """A vector whose lanes all hold the number."""
    one = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), number, WORD(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES))


def read_float(builder: Any, place: Any) -> Any:
    """The float32 at an address, in all lanes."""
    return spread(builder, builder.load(builder.bitcast(place, FLOAT.as_pointer()), align=1))


def integers(builder: Any, place: Any, form: Form) -> list[Any]:
    """The integers of a block as vectors of float32, in order."""
    at = [builder.bitcast(builder.gep(place, [INT(LANES * v)]), BYTES.as_pointer()) for v in range(VECTORS)]
    if form.bits == 8:
        widen = builder.zext if form.offset else builder.sext
        return [builder.sitofp(widen(builder.load(one, align=1), WORDS), FLOATS) for one in at]
    pairs = [builder.zext(builder.load(one, align=1), WORDS) for one in at[: VECTORS // 2]]
    lower = [builder.and_(pair, ir.Constant(WORDS, [15] * LANES)) for pair in pairs]
    upper = [builder.lshr(pair, ir.Constant(WORDS, [4] * LANES)) for pair in pairs]
    return [builder.sitofp(part, FLOATS) for part in (*lower, *upper)]


def add_block(builder: Any, place: Any, form: Form, numbers: list[Any], total_of_numbers: Any, sums: Any) -> Any:
    """The sums, lane by lane, with a block's products added.

    Args:
        builder: of LLVM.
        place: where the block begins.
        form: of the block.
        numbers: vectors of the inputs x, a block of them.
        total_of_numbers: their sum, lane by lane.
        sums: what is there already.
    """
    q = integers(builder, builder.gep(place, [INT(form.head)]), form)
    dot = builder.fmul(q[0], numbers[0])
    if form.bits == 4 and not form.offset:
        dot = multiply_add(builder, ir.Constant(FLOATS, [-8.0] * LANES), total_of_numbers, dot)
    for vector, number in zip(q[1:], numbers[1:], strict=True):
        dot = multiply_add(builder, vector, number, dot)
    sums = multiply_add(builder, read_float(builder, place), dot, sums)
    if form.offset:
        offset = read_float(builder, builder.gep(place, [INT(4)]))
        sums = multiply_add(builder, offset, total_of_numbers, sums)
    return sums


def load_block(builder: Any, row: Any, first: Any) -> list[Any]:
    """A block of inputs, as vectors."""
    return [load(builder, row, builder.add(first, INT(LANES * v))) for v in range(VECTORS)]
