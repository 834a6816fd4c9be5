"""Olmo 3 (Olmo team 2025), from OLMo 2: three layers of four see a window of 4,096 tokens, the fourth sees all; only
the waves of those that see all are stretched (YaRN, from 8,192 to 65,536 tokens).
"""

from groundup.layers.masks import Causal, MaskRule
from groundup.layers.rope import Rope
from groundup.models.configs.layer_kinds import SLIDING
from groundup.models.configs.olmo3 import Olmo3Config
from groundup.models.text.olmo2 import Olmo2


class Olmo3(Olmo2):
    """Olmo 3, 7B and 32B."""

    Config = Olmo3Config
    config: Olmo3Config  # type: ignore[assignment]

    def make_mask(self, i: int) -> MaskRule:
        return Causal(self.config.window(i))

    def make_rope(self, i: int) -> Rope:
        if self.config.kind(i) == SLIDING:
            return Rope(self.head_dim, self.config.rope_local_base_freq)
        return super().make_rope(i)
