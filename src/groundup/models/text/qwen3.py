"""Qwen3 (Yang et al. 2025), from Qwen2: each head's queries and keys are normalised by RMSNorm, whose gain all heads
share, before they are turned; the biases are gone; heads are 128 wide at every size.
"""

from typing import Any

from torch import nn

from groundup.layers.norms import RMSNorm
from groundup.models.configs.qwen3 import Qwen3Config
from groundup.models.text.qwen2 import Qwen2


class Qwen3(Qwen2):
    """Qwen3, dense."""

    Config = Qwen3Config
    config: Qwen3Config  # type: ignore[assignment]

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        bias, eps = self.config.attention_bias, self.config.rms_norm_eps
        norms = {"q_norm": RMSNorm(self.head_dim, eps), "k_norm": RMSNorm(self.head_dim, eps)}
        return super().make_attention(i, **({"bias": bias, "out_bias": bias} | norms | changes))
