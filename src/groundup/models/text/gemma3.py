"""Gemma 3 (Gemma team 2025), text alone, from Gemma 2: RMSNorm over each head's queries and keys in place of soft caps;
five layers of six see a window and turn by short waves, the sixth sees all and turns by long ones.
"""

from typing import Any

from torch import nn

from groundup.layers.norms import OffsetRMSNorm
from groundup.layers.rope import Rope
from groundup.models.configs.gemma3 import Gemma3Config
from groundup.models.text.gemma2 import Gemma2


class Gemma3(Gemma2):
    """Gemma 3, text alone."""

    Config = Gemma3Config
    config: Gemma3Config  # type: ignore[assignment]

    def make_rope(self, i: int) -> Rope:
        if self.config.kind(i) == "sliding_attention":
            return Rope(self.head_dim, self.config.rope_local_base_freq)
        return super().make_rope(i)

    def make_attention(self, i: int, **changes: Any) -> nn.Module:
        eps = self.config.rms_norm_eps
        norms = {"q_norm": OffsetRMSNorm(self.head_dim, eps), "k_norm": OffsetRMSNorm(self.head_dim, eps)}
        return super().make_attention(i, **(norms | changes))
