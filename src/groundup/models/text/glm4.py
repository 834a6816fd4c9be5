"""GLM-4-0414 (Z.ai 2025), from GLM-4: sandwich norms, at both ends of each branch; the 32B size has no biases."""

from typing import Any

from torch import nn

from groundup.layers.block import SandwichBlock
from groundup.models.configs.glm4 import Glm4Config
from groundup.models.text.glm import Glm
from groundup.weights import rule


class Glm4(Glm):
    """GLM-4-0414."""

    Config = Glm4Config
    config: Glm4Config  # type: ignore[assignment]

    def make_block(self, i: int) -> nn.Module:
        parts = (self.make_norm(), self.make_attention(i), self.make_norm(), self.make_mlp(i))
        return SandwichBlock(*parts, self.make_norm(), self.make_norm())

    @classmethod
    def norm_rules(cls, ours: str, theirs: str) -> Any:
        return (
            *super().norm_rules(ours, theirs),
            rule(ours + "end1", theirs + "post_self_attn_layernorm"),
            rule(ours + "end2", theirs + "post_mlp_layernorm"),
        )
