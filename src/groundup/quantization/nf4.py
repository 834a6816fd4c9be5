"""Linear layers of 4-bit places in a table, as bitsandbytes stores them: the base of QLoRA (Dettmers et al. 2023).

    w = table[code] absmax_b                                      b: blocks of 64 numbers, on over the ends of rows
    absmax_b = nested_table[code_b] nested_absmax_c + offset      double quantization; c: blocks of 256 absmax

With it 64 numbers take 4 * 64 + 8 + 32 / 256 bits: 4.127 each; without it 4.5.
"""

import threading
from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.base.errors import UsageError
from groundup.quantization.linear import Levels, QuantizedLinear
from groundup.quantization.packing import pack_pairs, unpack_pairs
from groundup.quantization.tables import TABLES, dynamic, places, to_dynamic, to_places

BLOCK, NESTED_BLOCK = 64, 256
AT_ONCE = 2**17
"""Bytes of packed numbers that are looked up together."""
_room = threading.local()
"""`numbers`: where matrices are written for one product."""


class NF4Linear(QuantizedLinear):
    """Numbers as places in a table of 16.

    Args:
        in_features, out_features, bias: see QuantizedLinear.
        block: numbers that share an absmax.
        nested_block: absmax that share one in turn; 0 where they are float32 themselves.
        table: `nf4` or `fp4`.

    Attributes:
        packed: (numbers / 2, 1) uint8, the first of two in the high half.
        absmax: (blocks,) float32, or uint8 where nested.
        quant_map: (16,) float32, the table.
        nested_absmax: (nested blocks,) float32; nested_quant_map: (256,) float32; offset: () float32; or None.
    """

    packed: Tensor
    absmax: Tensor
    quant_map: Tensor
    nested_absmax: Tensor | None
    nested_quant_map: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        device: Any = None,
        *,
        block: int = BLOCK,
        nested_block: int = NESTED_BLOCK,
        table: str = "nf4",
    ):
        super().__init__(in_features, out_features, bias, device)
        self.block, self.nested_block = block, nested_block
        numbers = in_features * out_features
        blocks, nested = -(-numbers // block), nested_block > 0
        where: dict[str, Any] = {"device": device}
        self.register_buffer("packed", torch.zeros(-(-numbers // 2), 1, dtype=torch.uint8, **where))
        self.register_buffer("absmax", torch.zeros(blocks, dtype=torch.uint8 if nested else torch.float32, **where))
        self.register_buffer("quant_map", TABLES[table]().to(device, copy=True))
        self.register_buffer("nested_absmax", torch.zeros(-(-blocks // nested_block), **where) if nested else None)
        self.register_buffer("nested_quant_map", dynamic().to(device, copy=True) if nested else None)
        self.register_buffer("offset", torch.zeros((), **where) if nested else None)

    @classmethod
    def of(cls, layer: nn.Module, double: bool = True, table: str = "nf4", block: int = BLOCK) -> Self:
        """Rounded to the table; `double`: the absmax are stored in 8 bits.

        Raises:
            UsageError: a number is not finite.
        """
        weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr]
        if not weight.is_meta and not weight.isfinite().all():
            raise UsageError("a weight is not finite: leave the layer out by `skip`")
        nested_block = NESTED_BLOCK if double else 0
        where: dict[str, Any] = {"device": weight.device, "block": block, "nested_block": nested_block}
        new = cls(weight.shape[1], weight.shape[0], **where, table=table)
        new.bias = layer.bias  # type: ignore[assignment]
        codes, absmax = to_places(weight.flatten(), new.quant_map, block)
        filling = places(weight.new_zeros(len(codes) % 2, dtype=torch.float32), new.quant_map)
        new.packed = pack_pairs(torch.cat((codes, filling)))[:, None]
        if new.nested_quant_map is None:
            new.absmax = absmax
            return new
        new.offset = absmax.mean()
        new.absmax, new.nested_absmax = to_dynamic(absmax - new.offset, new.nested_quant_map, nested_block)
        return new

    def levels(self) -> Levels | None:
        """None where blocks run on over the ends of rows, or the table is one of its own."""
        names = [
            name for name, table in TABLES.items() if torch.equal(table().to(self.quant_map.device), self.quant_map)
        ]
        if self.in_features % self.block or not names:
            return None
        codes = unpack_pairs(self.packed[:, 0]).view(self.out_features, self.in_features)
        return Levels(codes, self.scales().view(self.out_features, -1), table=names[0])

    def scales(self) -> Tensor:
        """The absmax of every block, (blocks,) float32."""
        if self.nested_absmax is None or self.nested_quant_map is None or self.offset is None:
            return self.absmax
        each = self.nested_absmax.repeat_interleave(self.nested_block)[: len(self.absmax)]
        return self.nested_quant_map[self.absmax.int()] * each + self.offset

    def dequantize(self) -> Tensor:
        return self._looked_up(torch.empty(2 * len(self.packed), device=self.packed.device))

    def for_a_product(self) -> Tensor:
        """Into memory that is kept: to get so much anew from the system takes longer than all the rest."""
        if self.packed.device.type != "cpu":  # others keep freed memory themselves
            return self.dequantize()
        if len(getattr(_room, "numbers", ())) < 2 * len(self.packed):
            _room.numbers = torch.empty(2 * len(self.packed))
        return self._looked_up(_room.numbers[: 2 * len(self.packed)])

    def _looked_up(self, numbers: Tensor) -> Tensor:
        """The matrix, written to `numbers`."""
        packed, scales, count = self.packed[:, 0], self.scales(), self.in_features * self.out_features
        pairs = torch.stack((self.quant_map.repeat_interleave(16), self.quant_map.repeat(16)), dim=1)  # (256, 2)
        # two float32 are looked up as one number of 64 bits, a part at a time: what is made on the way stays small
        table, found = pairs.view(torch.int64)[:, 0], numbers.view(torch.int64)
        for first in range(0, len(packed), AT_ONCE):
            part = slice(first, first + AT_ONCE)
            torch.index_select(table, 0, packed[part].int(), out=found[part])
        whole = count // self.block * self.block
        numbers[:whole].view(-1, self.block).mul_(scales[: whole // self.block, None])
        numbers[whole:].mul_(scales[-1])
        return numbers[:count].view(self.out_features, self.in_features)
