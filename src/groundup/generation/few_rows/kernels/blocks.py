"""Rows of integers in blocks of 32, as products read them. Needs numba.

    block of 8 bits    scale (float32) | 32 x int8                       36 bytes    w = scale q
    block of 4 bits    scale (float32) | 16 bytes                        20 bytes    w = scale (q - 8)
    with an offset     scale (float32) | offset (float32) | the same                 w = scale q + offset, q unsigned
    of a table         scale (float32) | 16 bytes                        20 bytes    w = scale table[q]
    with a scale for the whole row, the scale lies before the row's first block, and 32 or 16 bytes are a block.

Word j (16 bits) of a block of 4 bits holds the numbers j, j + 8, j + 16 and j + 24, the first in its lowest bits; byte
i of a block of a table those of the places i and i + 16 of `TABLE_ORDER`. With the sum of the block's inputs at hand,
an offset is one more product a block and not one a number:

    sum_i (scale q_i + offset) x_i = scale sum_i q_i x_i + offset sum_i x_i

Inputs are x_i = s c_i with integers c_i of 16 bits (`kernels/inputs.py`), so that sum_i q_i x_i = s sum_i q_i c_i, all
in integers. The numbers of a table are integers of 15 bits for that: sums of four products of a block stay below 2^31.
"""

from typing import Any

from llvmlite import ir

from groundup.generation.few_rows.blocks import BLOCK, TABLE_ORDER
from groundup.generation.few_rows.kernels.forms import STEPS, Form
from groundup.generation.few_rows.kernels.inputs import Inputs
from groundup.generation.few_rows.kernels.vectors import (
    BYTE,
    FLOAT,
    FLOATS,
    HALF,
    INT,
    LANES,
    WORD,
    choose,
    look_up,
    multiply_add,
    multiply_pairs,
    same,
    spread,
)


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
        dot = self._dot(builder.gep(place, [INT(form.head)]), block, inputs)
        scale = inputs.scale(block)
        if not form.by_row:
            scale = builder.fmul(self._number(place), scale)
        sums = multiply_add(builder, scale, dot, sums)
        if form.offset:
            offset = self._number(builder.gep(place, [INT(4)]))
            sums = multiply_add(builder, offset, inputs.totals(block), sums)
        return sums

    def finish(self, sums: Any) -> Any:
        """What the sums are once all blocks were added."""
        if self.form.by_row:
            return self.builder.fmul(self._number(self.start), sums)
        return self.builder.fmul(same(FLOATS, 1 / STEPS), sums) if self.form.table else sums

    def _number(self, place: Any) -> Any:
        """The float32 at a place, in all lanes."""
        builder = self.builder
        return spread(builder, builder.load(builder.bitcast(place, FLOAT.as_pointer()), align=1))

    def _dot(self, place: Any, block: Any, inputs: Inputs) -> Any:
        """Sums of the integers' products with the inputs', which add up to all of it, float32."""
        builder, form = self.builder, self.form
        read = self._bytes if form.bits == 8 else self._places if form.table else self._quarters
        numbers, width = read(place), 2 * LANES
        each = [choose(builder, numbers, range(first, first + width)) for first in range(0, BLOCK, width)]
        total = inputs.eights(block) if form.shifted else None
        for q, c in zip(each, inputs.codes(block), strict=True):
            product = multiply_pairs(builder, q, c)
            total = product if total is None else builder.add(total, product)
        return builder.sitofp(total, FLOATS)

    def _bytes(self, place: Any) -> Any:
        """The 32 integers of 8 bits, in words."""
        builder = self.builder
        kind = ir.VectorType(BYTE, BLOCK)
        numbers = builder.load(builder.bitcast(place, kind.as_pointer()), align=1)
        return (builder.zext if self.form.offset else builder.sext)(numbers, ir.VectorType(HALF, BLOCK))

    def _twice(self, place: Any) -> Any:
        """16 bytes as they are, and moved down by 4 bits: 8 x int32. What comes from above must be cut off."""
        builder = self.builder
        four = ir.VectorType(WORD, 4)
        bits = builder.load(builder.bitcast(place, four.as_pointer()), align=1)
        both = choose(builder, bits, [*range(4), *range(4)])
        return builder.lshr(both, ir.Constant(both.type, [0] * 4 + [4] * 4))

    def _quarters(self, place: Any) -> Any:
        """The 32 integers of 4 bits, in words."""
        builder = self.builder
        words = builder.bitcast(self._twice(place), ir.VectorType(HALF, BLOCK // 2))
        above = builder.lshr(words, same(words.type, 8))
        first, second = (builder.and_(part, same(words.type, 15)) for part in (words, above))
        return choose(builder, first, range(BLOCK), second)

    def _places(self, place: Any) -> Any:
        """The 32 numbers of the table, in words."""
        builder, table = self.builder, self.form.table or ()
        both = builder.bitcast(self._twice(place), ir.VectorType(BYTE, BLOCK))
        codes = builder.and_(both, same(both.type, 15))
        low, high = (look_up(builder, [number >> part & 255 for number in table], codes) for part in (0, 8))
        # a number's bytes, side by side; in TABLE_ORDER none leaves its half of a vector of 32
        pairs = choose(builder, low, [p for place in TABLE_ORDER for p in (place, place + BLOCK)], high)
        return builder.bitcast(pairs, ir.VectorType(HALF, BLOCK))
