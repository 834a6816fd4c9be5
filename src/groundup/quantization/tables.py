"""Numbers as places in a table, in blocks that share their largest absolute value.

    w = table[code] absmax,   code = the place nearest to w / absmax,   absmax = max |w| of the block

The tables are those of bitsandbytes (Dettmers et al. 2021, 2023), and so is the rounding, to the bit.
"""

import functools
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

OUTERMOST = 0.9677083
"""The outermost quantile of NF4: about the middle of 1 - 1/32 and 1 - 1/30, half a step of 16 and of 15 levels."""

SMALLEST = 1e-38
"""What a block is divided by at least."""


@functools.cache
def nf4() -> Tensor:
    """NF4 (Dettmers et al. 2023, appendix E): quantiles of the normal distribution, (16,) float32, ascending.

    Seven below 0 and eight above it, at evenly spaced probabilities from `OUTERMOST` to 1/2 on each side; with 0, and
    divided by the largest. So each level is used about as often where weights are normal.
    """
    positive, negative = (torch.linspace(OUTERMOST, 0.5, n)[:-1].tolist() for n in (9, 8))
    quantile = NormalDist().inv_cdf
    levels = torch.tensor(sorted([*map(quantile, positive), 0.0, *(-quantile(p) for p in negative)]))
    return levels / levels.max()


@functools.cache
def fp4() -> Tensor:
    """FP4: a sign, two bits of exponent and one of fraction, whose order bitsandbytes' kernels gave them; (16,)."""
    positive = torch.tensor([0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0]) / 12
    return torch.cat((positive, -positive))


@functools.cache
def dynamic() -> Tensor:
    """256 numbers in (-1, 1], closer together towards 0 (Dettmers et al. 2021, dynamic tree quantization), ascending.

    For the powers of ten 10^-6 .. 1, the middles of 1, 2, 4, .. 64 equal parts of [0.1, 1], both signs; and 0 and 1.
    """
    numbers = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = 10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)
        numbers += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(numbers))


TABLES = {"nf4": nf4, "fp4": fp4}


def to_places(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Round (n,) floating to places in a table of 16: (n,) uint8 and absmax (blocks,) float32.

    Where two are equally near, the lower one.
    """
    within, absmax = _divided(numbers.float(), block, by_reciprocal=True)
    order = table.argsort(stable=True)
    ascending = table[order]
    borders = (ascending[:-1] + ascending[1:]) / 2
    return order[torch.bucketize(within.clamp(-1, 1), borders)].byte(), absmax


def to_dynamic(numbers: Tensor, table: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """As `to_places`, for an ascending table of 256; which is nearer is decided by the distances themselves."""
    within, absmax = _divided(numbers.float(), block, by_reciprocal=False)
    left = (torch.searchsorted(table, within, right=True) - 1).clamp(0, len(table) - 2)
    nearer = (within - table[left + 1]).abs() < (within - table[left]).abs()
    return (left + nearer).byte(), absmax


def _divided(numbers: Tensor, block: int, by_reciprocal: bool) -> tuple[Tensor, Tensor]:
    """Numbers over their block's absmax, (n,), and absmax, (blocks,). A last block that is not full is divided even
    `by_reciprocal`, as bitsandbytes does.
    """
    count, whole = len(numbers), len(numbers) // block
    blocks = F.pad(numbers, (0, -count % block)).view(-1, block)
    absmax = blocks.abs().amax(1)
    least = absmax.clamp(min=SMALLEST)[:, None]
    divided = blocks / least
    if by_reciprocal:
        divided[:whole] = blocks[:whole] * (1 / least[:whole])
    return divided.flatten()[:count], absmax
