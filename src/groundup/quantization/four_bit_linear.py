"""Linear layers whose numbers are places in a table of 16, in blocks, as bitsandbytes stores them.

    w = table[code] absmax_b                       b: the block of 64 numbers, one after another over rows
    absmax_b = nested_table[code_b] nested_c + offset   where they are stored in 8 bits themselves, in blocks of 256

NF4 (Dettmers et al. 2023): the table holds quantiles of a normal distribution, so that each is used as often.
"""

import functools
from typing import Any, Self

import torch
from torch import Tensor, nn

from groundup.quantization.linear import QuantizedLinear

NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
BLOCK, NESTED_BLOCK = 64, 256


class FourBitLinear(QuantizedLinear):
    """Numbers as places in a table.

    Args:
        in_features, out_features, bias: see QuantizedLinear.
        block: numbers that share an absmax.
        nested_block: absmax that share one in turn; 0 where they are float32 themselves.

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
        nested_block: int = 0,
    ):
        super().__init__(in_features, out_features, bias, device)
        self.block, self.nested_block = block, nested_block
        numbers = in_features * out_features
        blocks = -(-numbers // block)
        make = functools.partial(torch.zeros, device=device)
        self.register_buffer("packed", make(-(-numbers // 2), 1, dtype=torch.uint8))
        self.register_buffer("absmax", make(blocks, dtype=torch.uint8 if nested_block else torch.float32))
        self.register_buffer("quant_map", make(16))
        nested = nested_block > 0
        self.register_buffer("nested_absmax", make(-(-blocks // nested_block)) if nested else None)
        self.register_buffer("nested_quant_map", make(256) if nested else None)
        self.register_buffer("offset", make(()) if nested else None)

    @classmethod
    def of(cls, layer: nn.Module, double: bool = True) -> Self:
        """Rounded to NF4; `double`: the absmax are stored in 8 bits."""
        weight: Tensor = layer.weight.detach().float()  # type: ignore[operator, union-attr]
        out, inner = weight.shape
        new = cls(inner, out, device=weight.device, nested_block=NESTED_BLOCK if double else 0)
        new.bias = layer.bias  # type: ignore[assignment]
        new.quant_map = torch.tensor(NF4, device=weight.device)
        codes, absmax = _nearest(weight.flatten(), new.quant_map, BLOCK)
        codes = nn.functional.pad(codes, (0, len(codes) % 2)).unflatten(0, (-1, 2))
        new.packed = codes[:, :1] << 4 | codes[:, 1:]
        if not double:
            new.absmax = absmax
            return new
        new.offset = absmax.mean()
        new.nested_quant_map = dynamic_map().to(weight.device)
        new.absmax, new.nested_absmax = _nearest(absmax - new.offset, new.nested_quant_map, NESTED_BLOCK)
        return new

    def scales(self) -> Tensor:
        """The absmax of every block, (blocks,) float32."""
        if self.nested_absmax is None or self.nested_quant_map is None or self.offset is None:
            return self.absmax
        each = self.nested_absmax.repeat_interleave(self.nested_block)[: len(self.absmax)]
        return self.nested_quant_map[self.absmax.long()] * each + self.offset

    def dequantize(self) -> Tensor:
        codes = torch.cat((self.packed >> 4, self.packed & 15), dim=1).flatten()
        numbers = self.quant_map[codes[: self.in_features * self.out_features].long()]
        scale = self.scales().repeat_interleave(self.block)[: len(numbers)]
        return (numbers * scale).view(self.out_features, self.in_features)


def _nearest(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The nearest places in an ascending table, of numbers divided by their block's absmax. (n,) -> (n,) uint8, (b,)"""
    count = len(numbers)
    padded = nn.functional.pad(numbers, (0, -count % block)).view(-1, block)
    absmax = padded.abs().amax(1)
    within = padded / absmax.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    borders = (table[1:] + table[:-1]) / 2
    return torch.bucketize(within, borders).flatten()[:count].byte(), absmax


@functools.cache
def dynamic_map() -> Tensor:
    """256 numbers in [-1, 1], closer together towards 0 (Dettmers et al. 2021, dynamic tree quantization).

    For the powers of ten 10^-6 .. 1, the middles of 1, 2, 4, .. 64 equal parts of [0.1, 1], both signs; and 0 and 1.
    """
    numbers = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0 ** (i - 6)
        numbers += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(numbers))
