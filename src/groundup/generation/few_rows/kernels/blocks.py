"""Rows of integers in blocks of 32, as products read them. Needs numba.

    block of 8 bits    scale (float32) | 32 x int8                       36 bytes    w = scale q
    block of 4 bits    scale (float32) | 16 bytes                        20 bytes    w = scale (q - 8)
    with an offset     scale (float32) | offset (float32) | the same                 w = scale q + offset, q unsigned
    of a table         scale (float32) | 16 bytes                        20 bytes    w = scale table[q]
    with a scale for the whole row, the scale lies before the row's first block, and 32 or 16 bytes are a block.

Byte i of a block of 4 bits holds number i in its lower half and number i + 16 in its upper half. With the sum of the
block's inputs at hand, an offset is one more product a block and not one a number:

    sum_i (scale q_i + offset) x_i = scale sum_i q_i x_i + offset sum_i x_i

Inputs are x_i = s c_i with integers c_i of 16 bits (`kernels/inputs.py`), so that sum_i q_i x_i = s sum_i q_i c_i, all in
integers. The numbers of a table are integers of 15 bits for that: sums of four products of a block stay below 2^31.
"""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types

from groundup.generation.few_rows.blocks import BLOCK, TABLE_ORDER
from groundup.generation.few_rows.kernels.inputs import Inputs
from groundup.generation.few_rows.kernels.vectors import (
    BYTE,
    FLOAT,
    FLOATS,
    HALF,
    INT,
    LANES,
    choose,
    look_up,
    multiply_add,
    multiply_pairs,
    same,
    spread,
)
from groundup.quantization.tables import fp4, nf4

BYTES = ir.VectorType(BYTE, BLOCK)
STEPS = 83 * 192
"""What 1 is in a table of integers: four products with 32767 are below 2^31, and FP4's numbers, n / 192, are whole."""


class Form(NamedTuple):
    """A kind of block."""

    bits: int
    offset: bool = False
    by_row: bool = False
    table: tuple[int, ...] | None = None

    @property
    def row_head(self) -> int:
        """Bytes before the blocks of a row."""
        return 4 if self.by_row else 0

    @property
    def head(self) -> int:
        """Bytes of a block before the integers."""
        return 0 if self.by_row else 8 if self.offset else 4

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return self.head + BLOCK * self.bits // 8


def _steps(table: Any) -> tuple[int, ...]:
    return tuple(round(number * STEPS) for number in table.tolist())


FORMS = {
    types.int8: Form(8),
    types.uint8: Form(4),
    types.int64: Form(8, offset=True),
    types.uint64: Form(4, offset=True),
    types.int16: Form(8, by_row=True),
    types.int32: Form(4, by_row=True),
    types.complex64: Form(4, table=_steps(nf4())),
    types.complex128: Form(4, table=_steps(fp4())),
}
"""The type of the array by which a compiled function is told the form of a matrix -> that form."""


class Row:
    """A row of such blocks in a function that is being written."""

    def __init__(self, builder: Any, address: Any, form: Form):
        self.builder, self.form = builder, form
        self.start = builder.inttoptr(address, BYTE.as_pointer())

    def add_block(self, block: Any, inputs: Inputs, sums: Any) -> Any:
        """The sums, lane by lane, with a block's products added.

        Args:
            block: its number.
            inputs: that the row is multiplied by.
            sums: what is there already.
        """
        builder, form = self.builder, self.form
        place = builder.gep(self.start, [builder.add(builder.mul(block, INT(form.size)), INT(form.row_head))])
        dot = self._dot(builder.gep(place, [INT(form.head)]), inputs.codes(block))
        scale = inputs.scale(block)
        if form.table:
            scale = builder.fmul(scale, same(FLOATS, 1 / STEPS))
        dot = builder.fmul(dot, scale)
        if form.bits == 4 and not form.offset and not form.table:
            dot = multiply_add(builder, same(FLOATS, -8.0), inputs.totals(block), dot)
        if form.by_row:
            return builder.fadd(dot, sums)
        sums = multiply_add(builder, self._number(place), dot, sums)
        if form.offset:
            offset = self._number(builder.gep(place, [INT(4)]))
            sums = multiply_add(builder, offset, inputs.totals(block), sums)
        return sums

    def finish(self, sums: Any) -> Any:
        """What the sums are once all blocks were added."""
        return self.builder.fmul(self._number(self.start), sums) if self.form.by_row else sums

    def _number(self, place: Any) -> Any:
        """The float32 at a place, in all lanes."""
        builder = self.builder
        return spread(builder, builder.load(builder.bitcast(place, FLOAT.as_pointer()), align=1))

    def _dot(self, place: Any, codes: list[Any]) -> Any:
        """Sums of the integers' products with the inputs', which add up to all of it, float32."""
        builder = self.builder
        each = self._in_words(self._bytes(place))
        products = [multiply_pairs(builder, q, c) for q, c in zip(each, codes, strict=True)]
        total = products[0]
        for product in products[1:]:
            total = builder.add(total, product)
        return builder.sitofp(total, FLOATS)

    def _bytes(self, place: Any) -> Any:
        """The 32 integers in a byte each."""
        builder = self.builder
        if self.form.bits == 8:
            return builder.load(builder.bitcast(place, BYTES.as_pointer()), align=1)
        kind = ir.VectorType(BYTE, BLOCK // 2)
        pairs = builder.load(builder.bitcast(place, kind.as_pointer()), align=1)
        lower, upper = builder.and_(pairs, same(kind, 15)), builder.lshr(pairs, same(kind, 4))
        return choose(builder, lower, range(BLOCK), upper)

    def _in_words(self, numbers: Any) -> list[Any]:
        """Bytes -> what they stand for, in vectors of 2 `LANES` int16."""
        builder, form = self.builder, self.form
        widen = builder.sext if form.bits == 8 and not form.offset else builder.zext
        parts = range(BLOCK // (2 * LANES))
        if form.table is None:
            each = [choose(builder, numbers, range(2 * LANES * v, 2 * LANES * (v + 1))) for v in parts]
            return [widen(part, ir.VectorType(HALF, 2 * LANES)) for part in each]
        low = look_up(builder, [number & 255 for number in form.table], numbers)
        high = look_up(builder, [number >> 8 & 255 for number in form.table], numbers)
        # number i is at place TABLE_ORDER[i]: so no byte leaves its half of a vector of 32
        found = []
        for v in parts:
            places = [TABLE_ORDER[i] for i in range(2 * LANES * v, 2 * LANES * (v + 1))]
            words = choose(builder, low, [p for place in places for p in (place, place + BLOCK)], high)
            found.append(builder.bitcast(words, ir.VectorType(HALF, 2 * LANES)))
        return found
