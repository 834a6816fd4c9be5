"""Attention whose queries grow sharper with their place, so that a long context does not flatten the softmax."""

import math
from typing import Any

from torch import Tensor

from groundup.layers.attention import Attention
from groundup.layers.context import Context


class LogNAttention(Attention):
    """Queries beyond the context of training are multiplied by log_L(n), n their place from 1 (Su 2021; Chiang & Cholak
    2022; Qwen 2023): the entropy of the attention then stays what it was at L.

    Args:
        sizes: see Attention.
        trained_length: L, above 1.
        settings: see Attention.
    """

    def __init__(self, *sizes: Any, trained_length: int, **settings: Any):
        super().__init__(*sizes, **settings)
        self.trained_length = trained_length

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        places = (context.positions + 1).float()  # (B or 1, T)
        sharper = (places.log() / math.log(self.trained_length)).clamp(min=1)
        return super().attend(q * sharper[:, None, :, None].to(q.dtype), k, v, context)
