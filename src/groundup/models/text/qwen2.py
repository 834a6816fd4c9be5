"""Qwen2 (Yang et al. 2024) and Qwen2.5, from Llama 2: biases on queries, keys and values; the small sizes tie the head
to the embedding. Some configs give the upper layers a sliding window.
"""

from typing import Any

from torch import nn

from groundup.layers.masks import Causal, MaskRule
from groundup.models.configs.qwen2 import Qwen2Config
from groundup.models.text.llama import Llama


class Qwen2(Llama):
    """Qwen2 and Qwen2.5, dense."""

    Config = Qwen2Config
    config: Qwen2Config  # type: ignore[assignment]

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        return super().make_attention(i, **({"bias": True, "out_bias": False} | changes))

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))
