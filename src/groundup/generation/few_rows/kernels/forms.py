"""The forms in which matrices of integers lie in blocks: see `kernels/blocks.py`. Needs numba."""

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.generation.few_rows.blocks import BLOCK
from groundup.generation.few_rows.kernels.vectors import INT
from groundup.quantization.tables import fp4, nf4

STEPS = 83 * 192
"""What 1 is in a table of integers: four products with 32767 are below 2^31, and FP4's numbers, n / 192, are whole."""


class Form(NamedTuple):
    """A kind of block."""

    bits: int
    offset: bool = False
    by_row: bool = False
    table: tuple[int, ...] | None = None

    @property
    def shifted(self) -> bool:
        """Whether 8 is to be taken off what is stored."""
        return self.bits == 4 and not self.offset and not self.table

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


@intrinsic
def row_bytes(typing: Any, k: Any, like: Any) -> Any:
    """Bytes of a row of K numbers in the form that `like` tells."""
    form, itemsize = FORMS.get(like.dtype), like.dtype.bitwidth // 8

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if form is None:
            return builder.mul(arguments[0], INT(itemsize))
        return builder.add(builder.mul(builder.sdiv(arguments[0], INT(BLOCK)), INT(form.size)), INT(form.row_head))

    return types.int64(types.int64, like), generate


@intrinsic
def in_blocks(typing: Any, like: Any) -> Any:
    """Whether `like` tells of blocks of integers."""
    told = like.dtype in FORMS

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(1), int(told))

    return types.boolean(like), generate
