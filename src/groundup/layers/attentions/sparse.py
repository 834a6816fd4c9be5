"""Sparse attention: each token sees some of those before it, and all of them through others (Child et al. 2019).

    stride 4, token 9 of 0 .. 11            0 1 2 3 4 5 6 7 8 9
    Strided "local": the last 4, itself             . x x x x x
    Strided "column": every 4th back          x       x       x
    Fixed "local": its own block of 4                     . x x
    Fixed "column": the last of each block          x       x   x     (summary=1; and itself)

With a stride of about sqrt(T) each part has T sqrt(T) pairs, and two steps reach everything: one along a column, one
within reach. A model alternates the parts layer by layer, joins them in each head ("both"), or gives each head its own
(`ByHead`). Strided suits data with a period, such as images; Fixed suits text.

GPT-3 (Brown et al. 2020) and GPT-Neo alternate dense and locally banded layers: `alternating`.

These are rules for a layer's `mask`, in any family. The kernels of torch compute hidden pairs too; those of
`layers/flash` leave out tiles in which no pair is seen.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.layers.attentions.rows import places
from groundup.layers.context import Context
from groundup.layers.masks import Causal, Mask, MaskRule

Part = Literal["local", "column", "both"]


@dataclass(frozen=True)
class _Pattern:
    """Causal attention to the pairs of a pattern.

    Attributes:
        stride: reach of the local part, and distance of the columns.
        part: "local", "column" or "both".
    """

    stride: int
    part: Part = "both"

    def __post_init__(self) -> None:
        if self.stride < 1 or self.part not in ("local", "column", "both"):
            raise UsageError(f"a stride is at least 1 and a part local, column or both, not {self}")

    def build(self, context: Context) -> Mask:
        query, key = places(context)
        i, j = query[:, None, :, None], key[:, None, None, :]
        pairs = {"local": lambda: self.local(i, j), "column": lambda: self.column(i, j)}
        seen = self.local(i, j) | self.column(i, j) if self.part == "both" else pairs[self.part]()
        causal = Causal().build(context).dense(query.shape[1], key.shape[1], query.device)
        return Mask(allowed=(seen | (i == j)) & causal)

    def local(self, i: Tensor, j: Tensor) -> Tensor:
        """Which queries i and keys j are near."""
        raise NotImplementedError

    def column(self, i: Tensor, j: Tensor) -> Tensor:
        """Which keys j carry what is far to queries i."""
        raise NotImplementedError


@dataclass(frozen=True)
class Strided(_Pattern):
    """Near: the last `stride` tokens before it. Far: those at multiples of the stride before it."""

    def local(self, i: Tensor, j: Tensor) -> Tensor:
        return i - j <= self.stride

    def column(self, i: Tensor, j: Tensor) -> Tensor:
        return (i - j) % self.stride == 0


@dataclass(frozen=True)
class Fixed(_Pattern):
    """Near: the block of `stride` tokens that it stands in. Far: the last tokens of every block. A token sees itself in
    either part, so that the first ones see something.

    Attributes:
        summary: how many last tokens of a block are seen by all later ones (the paper's c).
    """

    summary: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.summary <= self.stride:
            raise UsageError(f"a block of {self.stride} has 1 to {self.stride} summary tokens, not {self.summary}")

    def local(self, i: Tensor, j: Tensor) -> Tensor:
        return i // self.stride == j // self.stride

    def column(self, i: Tensor, j: Tensor) -> Tensor:
        return j % self.stride >= self.stride - self.summary


@dataclass(frozen=True)
class ByHead:
    """Another rule for each head.

    Attributes:
        rules: head h follows rules[h mod their number].
        num_heads: H.
    """

    rules: tuple[MaskRule, ...]
    num_heads: int

    def build(self, context: Context) -> Mask:
        query, key = places(context)
        one = [context.mask(rule).dense(query.shape[1], key.shape[1], query.device) for rule in self.rules]
        rows = max(len(mask) for mask in one)
        heads = [one[h % len(one)].expand(rows, 1, query.shape[1], key.shape[1]) for h in range(self.num_heads)]
        return Mask(allowed=torch.cat(heads, 1))


def alternating(layer: int, window: int) -> Causal:
    """GPT-3's rule for a layer: even ones see everything before, odd ones a band of the last `window` tokens.

    The paper does not tell the width of the band; GPT-Neo's is 256.
    """
    return Causal(window if layer % 2 else None)
