"""Numbers as places in a table, in blocks that share their largest absolute value.

    w = table[code] absmax,   code = the place nearest to w / absmax,   absmax = max |w| of the block

The tables are those of bitsandbytes (Dettmers et al. 2021, 2023), and so is the rounding, to the bit.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.quantization.numbers import normal_float_4

CPU = "cpu"  # said each time: the tables are kept, whatever device is the default when they are first asked for

SMALLEST = 1e-38
"""What a block is divided by at least."""

AT_ONCE = 2**20
"""Numbers that are rounded together: what is made on the way takes some fifty bytes for each."""

STEPS = 65535
"""Even steps from -1 to 1 in which bitsandbytes rounds to a table of 256."""


@functools.cache
def nf4() -> Tensor:
    """The levels of NF4, (16,) float32, ascending: `numbers.normal_float_4`."""
    return torch.tensor(normal_float_4(), device=CPU)


@functools.cache
def fp4() -> Tensor:
    """FP4: a sign, two bits of exponent and one of fraction, whose order bitsandbytes' kernels gave them; (16,)."""
    positive = torch.tensor([0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0], device=CPU) / 12
    return torch.cat((positive, -positive))


@functools.cache
def dynamic() -> Tensor:
    """256 numbers in (-1, 1], closer together towards 0 (Dettmers et al. 2021, dynamic tree quantization), ascending.

    For the powers of ten 10^-6 .. 1, the middles of 1, 2, 4, .. 64 equal parts of [0.1, 1], both signs; and 0 and 1.
    """
    numbers = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, device=CPU)
        middles = 10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)
        numbers += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(numbers), device=CPU)


TABLES = {"nf4": nf4, "fp4": fp4}


def to_places(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Round (n,) floating to places in a table of 16: (n,) uint8 and absmax (blocks,) float32.

    Where two are equally near, the lower one.
    """
    at_once = max(AT_ONCE // block, 1) * block
    parts = [_to_places(part, table, block) for part in numbers.split(at_once)]
    codes, absmax = zip(*parts, strict=True)
    return torch.cat(codes), torch.cat(absmax)


def _to_places(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    count, whole = len(numbers), len(numbers) // block
    blocks = in_blocks(numbers.float(), block)
    absmax = blocks.abs().amax(1)
    absmax[whole:].clamp_(min=SMALLEST)
    within = blocks * (1 / absmax.clamp(min=SMALLEST))[:, None]
    within[whole:] = blocks[whole:] / absmax[whole:, None]  # they divide a last block that is not full
    return places(within.flatten()[:count].clamp(-1, 1), table), absmax


def places(numbers: Tensor, table: Tensor) -> Tensor:
    """The nearest places of numbers in [-1, 1], uint8."""
    order = table.argsort(stable=True)
    ascending = table[order]
    borders = (ascending[:-1] + ascending[1:]) / 2
    return order[torch.bucketize(numbers, borders)].byte()


def to_dynamic(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """As `to_places`, for an ascending table of 256.

    bitsandbytes' CPU kernel takes the nearest of 65,536 even steps first, and the place nearest to that: close to 0,
    where the table is finer, that is another one. A block of zeros is at place 0.
    """
    blocks = in_blocks(numbers.float(), block)
    absmax = blocks.abs().amax(1)
    within = (blocks * (1 / absmax)[:, None]).nan_to_num(-1.0)
    steps = ((within + 1) * (STEPS / 2) + 0.5).floor()
    near = steps / (STEPS / 2) - 1
    borders = (table[:-1] + table[1:]) / 2
    return torch.bucketize(near, borders).flatten()[: len(numbers)].byte(), absmax


def in_blocks(numbers: Tensor, block: int) -> Tensor:
    """(n,) -> (blocks, block); the last is filled with zeros."""
    return F.pad(numbers, (0, -len(numbers) % block)).view(-1, block)
