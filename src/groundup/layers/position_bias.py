"""Positions as a number added to each score: softmax(q k^T / sqrt(d) + bias) v.

The bias of a pair depends on the distance  query's place - key's place  and on the head. Places are those of the tokens
in their rows (`masks.query_slots`, `masks.key_slots`), so padding, packed documents and steps with a cache get the
same numbers as one plain row. A bias is given to `Attention(position_bias=...)`.

    ALiBi               -m |i - j|, m fixed for each head             Press et al. 2021
    KerplePower         -r1 |i - j|^r2, r1 and r2 learned              Chi et al. 2022
    KerpleLogarithmic   -r1 log(1 + r2 |i - j|)                        Chi et al. 2022
    T5Bias              a learned number for each bucket of distances  Raffel et al. 2020
"""

import math
from collections.abc import Hashable

import torch
from torch import Tensor, nn

from groundup.layers.context import Context
from groundup.layers.masks import key_slots, query_slots


class PositionBias(nn.Module):
    """A bias that depends on head and distance. A subclass says what it is for a list of distances.

    Args:
        num_heads: H of the whole model.

    Attributes:
        heads: which of them this module serves; all, until tensor parallelism deals them out.
    """

    def __init__(self, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.heads = range(num_heads)

    def by_distance(self, distance: Tensor) -> Tensor:
        """(N,) int64, positive where the key is earlier -> (H, N) floating"""
        raise NotImplementedError

    def forward(self, context: Context) -> Tensor:
        """(B or 1, H, T, S) floating, for the queries and keys of this call."""
        queries, keys = query_slots(context), key_slots(context)
        last = keys.shape[1] - 1
        # Each of the 2 S - 1 possible distances once, then dealt out: learned ones get their gradient in one sum.
        values = self.by_distance(torch.arange(-last, last + 1, device=keys.device))  # (H, 2 S - 1)
        distance = queries[:, :, None] - keys[:, None, :]  # (B or 1, T, S)
        return values[:, distance + last].transpose(0, 1)

    def key(self) -> Hashable:
        """Two biases with equal keys give equal numbers: one forward call computes them once."""
        return self


class ALiBi(PositionBias):
    """-m |i - j|: attention with linear biases (Press et al. 2021). Nothing is learned, and no length is the longest.

    Args:
        num_heads: H. For a power of two head h = 1 .. H has m = 2^(-8 h / H); see `alibi_slopes` for others.
        scale: factor of the bias. 1 as in the paper and BLOOM, which add it to scores already divided by sqrt(d);
            Falcon RW adds first and divides the sum: 1 / sqrt(d).
    """

    def __init__(self, num_heads: int, scale: float = 1.0):
        super().__init__(num_heads)
        self.scale = scale

    def by_distance(self, distance: Tensor) -> Tensor:
        return -self.scale * self.slopes(distance.device)[:, None] * distance.abs()

    def slopes(self, device: torch.device) -> Tensor:
        """M of this module's heads, (H,) float32."""
        return torch.tensor(alibi_slopes(self.num_heads)[self.heads.start : self.heads.stop], device=device)

    def key(self) -> Hashable:
        return type(self), self.num_heads, self.heads, self.scale


class RoundedALiBi(ALiBi):
    """m j in bfloat16 for the key at place j of its document, as Falcon's code computes it (Almazrouei et al. 2023).

    Without the rounding it were ALiBi: what all keys of a query share, here m i, cancels in softmax.
    """

    def forward(self, context: Context) -> Tensor:
        places = context.places if context.fresh else key_slots(context)  # (B or 1, S)
        m = self.slopes(places.device).bfloat16()
        bias = (m[:, None] * places[:, None]).float() * self.scale  # (B or 1, H, S)
        return bias[:, :, None].expand(-1, -1, context.positions.shape[1], -1)


def alibi_slopes(num_heads: int) -> list[float]:
    """M of each head: 2^(-8/n), 2^(-16/n), ... 2^-8 for n heads. Where n is no power of two: those of the power below
    it, then every other one of the power above it (Press et al. 2021, their code; BLOOM).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-4 * (2 * h + 1) / power) for h in range(num_heads - power)]
    return slopes + between


class _Kerple(PositionBias):
    """Kernelised relative position bias (Chi et al. 2022): minus a distance that is conditionally positive definite.

    r1 > 0 is learned as its logarithm and begins at ALiBi's slopes.
    """

    def __init__(self, num_heads: int):
        super().__init__(num_heads)
        self.log_r1 = nn.Parameter(torch.tensor(alibi_slopes(num_heads)).log())

    @property
    def r1(self) -> Tensor:
        """(H,), above 0."""
        return self.log_r1.float().exp()


class KerplePower(_Kerple):
    """-r1 |i - j|^r2, with 0 < r2 < 2 learned through a sigmoid; it begins at r2 = 1, which is ALiBi."""

    def __init__(self, num_heads: int):
        super().__init__(num_heads)
        self.logit_r2 = nn.Parameter(torch.zeros(num_heads))

    @property
    def r2(self) -> Tensor:
        """(H,), between 0 and 2."""
        return 2 * self.logit_r2.float().sigmoid()

    def by_distance(self, distance: Tensor) -> Tensor:
        return -self.r1[:, None] * distance.abs().float() ** self.r2[:, None]


class KerpleLogarithmic(_Kerple):
    """-r1 log(1 + r2 |i - j|), with r2 > 0 learned as its logarithm; it begins at r2 = 1."""

    def __init__(self, num_heads: int):
        super().__init__(num_heads)
        self.log_r2 = nn.Parameter(torch.zeros(num_heads))

    @property
    def r2(self) -> Tensor:
        """(H,), above 0."""
        return self.log_r2.float().exp()

    def by_distance(self, distance: Tensor) -> Tensor:
        return -self.r1[:, None] * torch.log1p(self.r2[:, None] * distance.abs())


class T5Bias(PositionBias):
    """A learned number for each head and bucket of distances (Raffel et al. 2020).

    T5 divides no scores by sqrt(d), so it comes with `Attention(scale=1.0)`; its layers share one table.

    Args:
        num_heads: H.
        num_buckets: rows of the table.
        max_distance: all distances from here on share the last bucket.
        bidirectional: half of the buckets are for later keys; else those have the bucket of distance 0.
    """

    def __init__(self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, bidirectional: bool = False):
        super().__init__(num_heads)
        self.num_buckets, self.max_distance, self.bidirectional = num_buckets, max_distance, bidirectional
        self.weight = nn.Parameter(torch.randn(num_buckets, num_heads) * 0.02)

    def by_distance(self, distance: Tensor) -> Tensor:
        return self.weight[t5_bucket(distance, self.num_buckets, self.max_distance, self.bidirectional)].T


def t5_bucket(distance: Tensor, num_buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """The bucket of each distance (positive where the key is earlier), of the same shape, int64.

    Of n buckets for one direction the first n/2 hold one distance each. The rest widen geometrically up to
    `max_distance`:  n/2 + floor(log(distance / (n/2)) / log(max_distance / (n/2)) * n/2),  at most n - 1.
    """
    first = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        first = num_buckets * (distance < 0)
        distance = distance.abs()
    distance = distance.clamp(min=0)
    exact = num_buckets // 2
    # The order of these float32 operations decides on which side of an edge a distance falls: it is that of T5.
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    wide = exact + (ratio * (num_buckets - exact)).long()
    return first + torch.where(distance < exact, distance, wide.clamp(max=num_buckets - 1))
